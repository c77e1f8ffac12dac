"""What cannot be pickled is found where it is."""

from __future__ import annotations

import functools
import io
import threading
from typing import Any

import pytest

import rlray
from rlray.util import inspect_serializability

LOCK = threading.Lock()


class Holder:
    """Importable, so that only its instances fail."""

    def __init__(self) -> None:
        self.fine = 1
        self.lock = LOCK


def failures(obj: Any, **options: Any) -> dict[str, Any]:
    """The way to each failing object, and the object."""
    good, found = inspect_serializability(obj, print_file=io.StringIO(), **options)
    assert good == (not found)
    return {" ".join(failure.path[1:]): failure.obj for failure in found}


def local_class() -> type:
    class Local:
        shared = LOCK
        kind = "made in a function, so that it is pickled by value"

        def uses(self) -> Any:
            return self.shared

    return Local


def test_what_can_be_pickled() -> None:
    for value in (1, [1, {"a": "b"}], lambda: 1, Holder, local_class):
        assert failures(value) == {}


def test_the_object_itself() -> None:
    good, found = inspect_serializability(LOCK, name="my lock", print_file=io.StringIO())
    assert not good
    (failure,) = found
    assert (failure.obj, failure.name, failure.parent, failure.path) == (LOCK, "my lock", None, ("my lock",))


def test_closures_globals_and_defaults() -> None:
    inner, fine = threading.Lock(), 3

    def closure() -> Any:
        return inner, fine

    def uses_global() -> Any:
        return lambda: LOCK

    def has_default(value: Any = inner, *, key: Any = inner) -> Any:
        return value, key

    uses_global.__module__ = "__main__"  # pickled by value, as a program's own functions are
    assert failures(closure) == {"inner": inner}
    assert failures(uses_global) == {"LOCK": LOCK}
    assert failures(has_default) == {"default 0": inner}


def test_attributes_classes_methods_and_containers() -> None:
    holder, local = Holder(), local_class()
    assert failures(holder) == {"lock": LOCK}
    assert failures(local) == {"shared": LOCK}
    assert failures(local()) == {"__class__ shared": LOCK}
    assert failures(local().uses) == {"__self__ __class__ shared": LOCK}
    assert failures([1, {"key": (LOCK,)}]) == {"[1] 'key' [0]": LOCK}
    assert failures(functools.partial(print, LOCK)) == {"args [0]": LOCK}


def test_several_failures_each_once() -> None:
    first, second = threading.Lock(), threading.Lock()
    assert failures([first, second, first]) == {"[0]": first, "[1]": second}


def test_a_loop_ends() -> None:
    endless: list[Any] = [LOCK]
    endless.append(endless)
    assert failures(endless) == {"[0]": LOCK}


def test_depth() -> None:
    nested = [[[LOCK]]]
    assert failures(nested, depth=0) == {"": nested}
    assert failures(nested, depth=1) == {"[0]": nested[0]}
    assert failures(nested) == {"[0] [0] [0]": LOCK}


def test_what_fails_for_no_visible_reason_is_named_itself() -> None:
    class Stubborn:
        def __reduce__(self) -> Any:
            raise RuntimeError("will not travel")

    stubborn = Stubborn()
    assert failures([stubborn]) == {"[0]": stubborn}


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    inspect_serializability(Holder(), name="the holder", print_file=stream)
    assert "the holder -> lock" in stream.getvalue()
    assert "cannot pickle '_thread.lock' object" in stream.getvalue()
    assert capsys.readouterr().out == ""
    inspect_serializability(1)
    assert "It can." in capsys.readouterr().out


@pytest.mark.usefixtures("cluster")
def test_references_and_handles_can_travel() -> None:
    @rlray.remote
    class Actor:
        def method(self) -> None: ...

    ref, actor = rlray.put(1), Actor.remote()
    assert failures(lambda: (ref, actor)) == {}
    assert failures([ref, LOCK, actor]) == {"[1]": LOCK}

"""An exception crosses with its type, its text and its remote traceback, through any number of tasks."""

from __future__ import annotations

import threading
import traceback
from typing import Any

import pytest

import rlray
from rlray.exceptions import RayError, RayTaskError

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


class TwoArguments(Exception):
    """Plain pickle cannot rebuild it: its constructor asks more than `args` holds."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.left = left


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Final(Exception):
    """A class that refuses to be subclassed."""

    def __init_subclass__(cls) -> None:
        raise TypeError("no subclasses")


def thrower_of_key_errors() -> None:
    raise KeyError("the key")


@rlray.remote
def fail(kind: str) -> None:
    if kind == "key":
        thrower_of_key_errors()
    if kind == "two":
        raise TwoArguments(1, 2)
    if kind == "unpicklable":
        raise Unpicklable("holds a lock")
    if kind == "final":
        raise Final("not to be subclassed")
    if kind == "chained":
        try:
            thrower_of_key_errors()
        except KeyError as error:
            raise RuntimeError("outer trouble") from error
    if kind == "local":

        class Local(LookupError):
            pass

        raise Local("known to the worker only")
    if kind == "keyboard":
        raise KeyboardInterrupt("raised by the function")
    if kind == "os":
        open("/no/such/file").close()
    if kind == "unicode":
        "\udcff".encode()


@rlray.remote
def through(value: Any) -> Any:
    return value


def error_of(ref: rlray.ObjectRef) -> BaseException:
    with pytest.raises(RayError) as caught:
        rlray.get(ref, timeout=30)
    return caught.value


def test_is_the_users_exception_and_a_task_error() -> None:
    error = error_of(fail.remote("key"))
    assert isinstance(error, RayTaskError)
    assert isinstance(error, KeyError)
    assert isinstance(error.cause, KeyError)
    assert error.cause.args == ("the key",)


def test_shows_the_remote_traceback() -> None:
    error = error_of(fail.remote("key"))
    assert "thrower_of_key_errors" in str(error)
    assert "test_errors.py" in str(error)
    assert "KeyError: 'the key'" in str(error)
    assert "fail" in str(error)
    assert "pid=" in str(error)
    printed = "".join(traceback.format_exception(error))
    assert 'raise KeyError("the key")' in printed
    assert "__main__" not in printed.splitlines()[-1]


def test_the_remote_cause_is_shown_too() -> None:
    error = error_of(fail.remote("chained"))
    assert isinstance(error, RuntimeError)
    assert "outer trouble" in str(error)
    assert "the key" in str(error)


def test_attributes_of_builtin_errors_survive() -> None:
    error = error_of(fail.remote("os"))
    assert isinstance(error, FileNotFoundError)
    assert error.cause.errno == 2
    assert error.cause.filename == "/no/such/file"
    assert isinstance(error_of(fail.remote("unicode")), UnicodeEncodeError)


def test_a_constructor_with_two_arguments() -> None:
    error = error_of(fail.remote("two"))
    assert isinstance(error, TwoArguments)
    assert "1 and 2" in str(error)
    assert error.cause.left == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("unpicklable", "holds a lock"),
        ("final", "not to be subclassed"),
        ("local", "known to the worker only"),
        pytest.param(
            "keyboard", "raised by the function", marks=pytest.mark.differs("ray", "it stands for a cancelled task")
        ),
    ],
)
def test_awkward_exceptions_lose_neither_text_nor_worker(kind: str, text: str) -> None:
    error = error_of(fail.remote(kind))
    assert isinstance(error, RayTaskError)
    assert text in str(error)
    assert rlray.get(through.remote(1), timeout=30) == 1


def test_a_local_class_keeps_its_base() -> None:
    assert isinstance(error_of(fail.remote("local")), LookupError)


def test_errors_travel_through_dependent_tasks() -> None:
    error = error_of(through.remote(through.remote(fail.remote("key"))))
    assert isinstance(error, KeyError)
    assert "thrower_of_key_errors" in str(error)


def test_a_task_with_a_failed_argument_never_runs(tmp_path: Any) -> None:
    marker = tmp_path / "ran"

    @rlray.remote
    def touch(_: Any) -> None:
        marker.touch()

    error_of(touch.remote(fail.remote("key")))
    rlray.get(through.remote(1))
    assert not marker.exists()


def test_errors_of_nested_gets_travel_up() -> None:
    @rlray.remote
    def outer() -> None:
        rlray.get(fail.remote("key"))

    error = error_of(outer.remote())
    assert isinstance(error, KeyError)
    assert "outer" in str(error)
    assert "thrower_of_key_errors" in str(error)


def test_a_task_can_catch_the_error_of_another() -> None:
    @rlray.remote
    def catch() -> str:
        try:
            rlray.get(fail.remote("key"))
        except KeyError as error:
            return f"caught {error.cause}"
        return "nothing"

    assert rlray.get(catch.remote()) == "caught 'the key'"


def test_an_error_can_be_raised_again_and_again_and_sent_on() -> None:
    ref = fail.remote("key")
    first, second = error_of(ref), error_of(ref)
    assert str(first) == str(second)
    again = rlray.get(rlray.put(first))
    assert isinstance(again, KeyError)
    assert "thrower_of_key_errors" in str(again)


def test_every_return_of_a_failed_task_raises() -> None:
    for ref in fail.options(num_returns=3).remote("key"):
        assert isinstance(error_of(ref), KeyError)


def test_an_exception_as_a_value_is_a_value() -> None:
    value = rlray.get(through.remote(ValueError("just data")))
    assert type(value) is ValueError
    assert value.args == ("just data",)
    assert type(rlray.get(rlray.put(ValueError("put")))) is ValueError


def test_an_argument_that_fails_to_unpickle_is_an_error_of_the_task() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return _spring, (True,)

    assert "sprung" in str(error_of(through.remote(Trap())))
    assert rlray.get(through.remote(1), timeout=30) == 1


def test_a_value_that_fails_to_unpickle_here_is_an_error_here() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return _spring, (False,)

    def make() -> Any:
        return Trap()

    with pytest.raises(Exception, match="sprung"):
        rlray.get(rlray.remote(make).remote(), timeout=30)


def _spring(in_a_task: bool) -> Any:
    if (rlray.get_runtime_context().get_task_id() is not None) == in_a_task:
        raise RuntimeError("sprung")


def test_exception_classes_form_rays_tree() -> None:
    names = (
        "RayTaskError WorkerCrashedError RayActorError GetTimeoutError TaskCancelledError ObjectStoreFullError "
        "ObjectLostError"
    )
    for name in names.split():
        assert issubclass(getattr(rlray.exceptions, name), RayError), name
    assert issubclass(rlray.exceptions.ActorDiedError, rlray.exceptions.RayActorError)
    assert issubclass(rlray.exceptions.ActorUnavailableError, rlray.exceptions.RayActorError)
    assert issubclass(rlray.exceptions.GetTimeoutError, TimeoutError)

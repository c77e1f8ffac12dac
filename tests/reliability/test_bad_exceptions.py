"""Exceptions that cannot travel as they are: what the caller gets tells all, with the class where that can be.

`tests/core/test_errors.py` has what exceptions look like that do travel.
"""

from __future__ import annotations

import builtins
import os
import socket
import sys
import threading
from typing import Any

import pytest

import rlray
from rlray.exceptions import ActorDiedError, RayError, RaySystemError, RayTaskError
from tests.reliability.bad_values import Holding, Mute, State, TwoArguments, error_of, through, workers
from tests.support import run_driver

__all__ = ["workers"]

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]

Group: Any = vars(builtins).get("ExceptionGroup")  # came with Python 3.11
BaseGroup: Any = vars(builtins).get("BaseExceptionGroup")


class Elsewhere(Exception):
    """Unpickles in the process that raises it, and nowhere else."""

    def __init__(self, text: str, home: int) -> None:
        super().__init__(text, home)

    def __reduce__(self) -> Any:
        return _only_at_home, self.args


def _only_at_home(text: str, home: int) -> Exception:
    if os.getpid() != home:
        raise ImportError("no module of that name here")
    return Elsewhere(text, home)


class TestExceptions:
    @pytest.mark.usefixtures("workers")
    def test_one_that_holds_what_cannot_travel_keeps_its_class(self) -> None:
        @rlray.remote
        def hold() -> None:
            error = Holding("the text", threading.Lock())
            with socket.socket() as error.sock:
                raise error

        error = error_of(hold.remote())
        assert isinstance(error, RayTaskError)
        assert isinstance(error, Holding)
        assert "the text" in str(error)
        assert error.code == 42
        assert not hasattr(error.cause, "sock")
        assert error.cause.args == ("the text", "<lock>")
        assert "left out of this exception, since it cannot be pickled: args[1], sock" in error.cause.__notes__[0]

    def test_one_that_is_whole_only_at_home(self) -> None:
        """It can be unpickled where it was raised, so nobody could know; the reader still learns all in text."""

        @rlray.remote
        def stay() -> None:
            raise Elsewhere("far away", os.getpid())

        @rlray.remote
        class Stays:
            def __init__(self, in_constructor: bool) -> None:
                if in_constructor:
                    raise Elsewhere("far away", os.getpid())

            def call(self) -> None:
                raise Elsewhere("far away", os.getpid())

        calls = [stay.remote(), Stays.remote(False).call.remote(), through.remote(stay.remote())]
        for ref in [*calls, Stays.remote(True).call.remote(), stay.options(num_returns=2).remote()[1]]:
            error = error_of(ref)
            assert isinstance(error, RayTaskError | ActorDiedError)
            assert "Elsewhere" in str(error)
            assert "far away" in str(error)
            inner = error if isinstance(error, RayTaskError) else error.__cause__
            assert isinstance(inner, RayTaskError)
            assert isinstance(inner.cause, Elsewhere) or "no module of that name here" in str(inner.cause)

        @rlray.remote
        def catch() -> str:
            try:
                rlray.get(stay.remote())
            except RayError as error:
                return str(error)
            return ""

        assert "far away" in rlray.get(catch.remote(), timeout=30)

    @pytest.mark.usefixtures("workers")
    def test_one_without_a_text(self) -> None:
        @rlray.remote
        def mutter() -> None:
            raise Mute(1)

        error = error_of(mutter.remote())
        assert isinstance(error, Mute)
        assert "mutter raised" in str(error)
        assert "Mute" in str(error)

    @pytest.mark.usefixtures("workers")
    def test_chains_and_notes(self) -> None:
        @rlray.remote
        def chain() -> None:
            try:
                try:
                    raise KeyError("first")
                except KeyError:
                    TwoArguments.throw()
            except TwoArguments as error:
                outer = RuntimeError("last")
                outer.__notes__ = ["a note of mine"]  # type: ignore[attr-defined]
                raise outer from error

        error = error_of(chain.remote())
        assert isinstance(error, RuntimeError)
        for text in ("first", "1 and 2", "last", "direct cause", "During handling"):
            assert text in str(error)
        assert error.cause.__notes__ == ["a note of mine"]  # type: ignore[attr-defined]
        if sys.version_info >= (3, 11):
            assert "a note of mine" in str(error)

    @pytest.mark.skipif(Group is None, reason="exception groups came with Python 3.11")
    @pytest.mark.usefixtures("workers")
    def test_groups(self) -> None:
        @rlray.remote
        def many() -> None:
            raise Group("some", [ValueError(1), TwoArguments(1, 2), Holding("x", threading.Lock())])

        error = error_of(many.remote())
        assert isinstance(error, RayTaskError)
        assert isinstance(error, Group)
        assert [type(one) for one in error.exceptions] == [ValueError, TwoArguments, Holding]
        matching, rest = error.split(ValueError)
        assert matching is not None
        assert rest is not None
        assert (len(matching.exceptions), len(rest.exceptions)) == (1, 2)
        again = rlray.get(through.remote(error), timeout=30)
        assert isinstance(again, Group)

        @rlray.remote
        def base() -> None:
            raise BaseGroup("some", [KeyboardInterrupt()])

        assert isinstance(error_of(base.remote()), RayTaskError)

    @pytest.mark.usefixtures("workers")
    def test_a_circle(self) -> None:
        @rlray.remote
        def circle() -> None:
            error = ValueError("round")
            error.args = ("round", error)
            error.me = error  # type: ignore[attr-defined]
            raise error

        error = error_of(circle.remote())
        assert isinstance(error, RayTaskError)
        assert "round" in str(error)

    def test_attributes_of_an_os_error(self) -> None:
        @rlray.remote
        def look() -> None:
            os.stat("/no/such/file")

        error = error_of(look.remote())
        assert isinstance(error, FileNotFoundError)
        assert (error.errno, error.filename) == (2, "/no/such/file")

    @pytest.mark.usefixtures("workers")
    def test_what_may_be_retried_that_cannot_be_loaded(self) -> None:
        @rlray.remote(retry_exceptions=[_unloadable()], max_retries=2)
        def fail() -> None:
            raise ValueError("as it is")

        error = error_of(fail.remote())
        assert isinstance(error, ValueError)
        assert "as it is" in str(error)
        assert "retry_exceptions cannot be unpickled" in str(error)

    def test_errors_of_a_class_share_a_class(self) -> None:
        """One made for each error would take longer, and stay until Python's collector comes by."""

        @rlray.remote
        def fail() -> None:
            raise TwoArguments(1, 2)

        assert type(error_of(fail.remote())) is type(error_of(fail.remote()))

    @pytest.mark.usefixtures("workers")
    def test_others_in_the_same_messages(self) -> None:
        @rlray.remote
        def turn(i: int) -> Any:
            match i % 6:
                case 1:
                    raise Holding("x", threading.Lock())
                case 2:
                    raise Elsewhere("far", os.getpid())
                case 3:
                    return threading.Lock()
                case 4:
                    return State()
                case 5:
                    raise Mute(1)
            return [i]

        refs = [turn.remote(i) for i in range(600)]
        kinds = [RayTaskError, Holding, RayTaskError, TypeError, RaySystemError, Mute]
        for i, ref in enumerate(refs):
            if i % 6 == 0:
                assert rlray.get(ref, timeout=30) == [i]
            else:
                assert isinstance(error_of(ref), kinds[i % 6])


def _unloadable() -> type[Exception]:
    """An exception class that travels by value and cannot be loaded."""

    class Local(Exception):
        trap = State()

    return Local


MAIN = """
import pickle, rlray
rlray.init(num_cpus=1)
class Mine(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")
        self.a = a
class Sub(Mine): pass
@rlray.remote
def fail():
    raise Sub(1, 2)
@rlray.remote
class Actor:
    def __init__(self):
        raise Mine(3, 4)
    def call(self): ...
try:
    rlray.get(fail.remote())
except Mine as error:
    print("CAUGHT", isinstance(error, Sub), error.a, "1 and 2" in str(error))
try:
    rlray.get(Actor.remote().call.remote())
except rlray.exceptions.ActorDiedError as error:
    print("DIED", isinstance(error.__cause__, Mine), "3 and 4" in str(error))
"""


@pytest.mark.processes
def test_classes_of_the_main_program() -> None:
    output = run_driver(MAIN)
    assert "CAUGHT True 1 True" in output
    assert "DIED True True" in output

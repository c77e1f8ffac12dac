"""Values and arguments that cannot travel: a clear error for whom they concern, and nothing else.

Each error names the task or method and says what to do, and the worker lives on. `test_bad_items.py` has the same for
`map`, where they share messages with good ones, `test_bad_exceptions.py` for what tasks raise.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ActorDiedError, RayError, RaySystemError, RayTaskError, WorkerCrashedError
from tests.reliability.bad_values import (
    SPRUNG,
    UNPICKLABLE,
    Actor,
    Coroutines,
    State,
    Trap,
    all_memory_free,
    error_of,
    make,
    through,
    workers,
)

__all__ = ["workers"]

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.every_engine,
    pytest.mark.differs("ray", "Ray pickles, and says what is wrong in its own words"),
]

ADVICE = "inspect_serializability"


@rlray.remote
class Threaded:
    def through(self, value: Any) -> Any:
        return value

    def make(self, table: str, kind: str) -> Any:
        return {"unpicklable": UNPICKLABLE, "sprung": SPRUNG}[table][kind]()

    def pid(self) -> int:
        return os.getpid()


class TestWhatCannotBePickled:
    @pytest.mark.parametrize("kind", UNPICKLABLE)
    def test_an_argument(self, kind: str) -> None:
        actor = Actor.remote()
        for call in (through, actor.through):
            for arguments, named in (((UNPICKLABLE[kind](),), {}), ((), {"value": UNPICKLABLE[kind]()})):
                with pytest.raises(TypeError, match=rf"an argument of .*through cannot be pickled.*{ADVICE}"):
                    call.remote(*arguments, **named)
        with pytest.raises(TypeError, match=rf"an argument of Actor.__init__ cannot be pickled.*{ADVICE}"):
            Actor.remote(UNPICKLABLE[kind]())
        assert rlray.get([through.remote(1), actor.through.remote(2)], timeout=30) == [1, 2]

    @pytest.mark.parametrize("kind", UNPICKLABLE)
    def test_a_value_that_is_put(self, kind: str) -> None:
        with pytest.raises(TypeError, match=rf"given to put\(\) cannot be pickled.*{ADVICE}"):
            rlray.put(UNPICKLABLE[kind]())

    @pytest.mark.parametrize("kind", [kind for kind in UNPICKLABLE if kind != "generator"])
    def test_a_result(self, kind: str) -> None:
        actors = [Actor.remote(), Coroutines.remote(), Threaded.options(max_concurrency=2).remote()]
        pids = rlray.get([actor.pid.remote() for actor in actors], timeout=30)
        refs = [make.remote("unpicklable", kind), *(actor.make.remote("unpicklable", kind) for actor in actors)]
        for ref in refs:
            error = error_of(ref)
            assert isinstance(error, RayTaskError)
            assert isinstance(error, TypeError)
            assert "the result of " in str(error)
            assert "make cannot be pickled" in str(error)
            assert ADVICE in str(error)
        assert rlray.get([actor.pid.remote() for actor in actors], timeout=30) == pids

    @pytest.mark.usefixtures("workers")
    @pytest.mark.parametrize("what", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_a_result_that_raises_what_would_end_a_program(self, what: type[BaseException]) -> None:
        @rlray.remote
        def give() -> Any:
            return Trap("pickling", what)

        error = error_of(give.remote())
        assert isinstance(error, RayTaskError)
        assert "give" in str(error)
        assert "sprung" in str(error)

    @pytest.mark.usefixtures("workers")
    def test_one_of_several_results(self) -> None:
        """All fail together, as Ray has it, and what was packed already is given back."""

        @rlray.remote(num_returns=3)
        def three() -> Any:
            return [np.zeros(1_000_000, np.uint8), rlray.put(np.zeros(1_000_000, np.uint8))], 2, threading.Lock()

        for ref in three.remote():
            assert "the result of three cannot be pickled" in str(error_of(ref))
        del ref
        assert all_memory_free()

    @pytest.mark.usefixtures("workers")
    def test_what_a_generator_yields(self) -> None:
        @rlray.remote
        def each() -> Iterator[Any]:
            yield 1
            yield threading.Lock()
            yield 3

        refs = list(each.remote())
        assert len(refs) == 2
        assert rlray.get(refs[0]) == 1
        assert "the result of each cannot be pickled" in str(error_of(refs[1]))

    def test_what_a_generator_of_an_actor_yields(self) -> None:
        actor = Actor.remote()
        first, second = actor.each.remote(["a", "lock", "b"])
        assert rlray.get(first) == "a"
        assert "each cannot be pickled" in str(error_of(second))
        assert rlray.get(actor.through.remote(1), timeout=30) == 1

    def test_a_function_and_a_class(self) -> None:
        lock = threading.Lock()

        @rlray.remote
        def locked() -> bool:
            return lock.acquire()

        @rlray.remote
        class Locked:
            def take(self) -> bool:
                return lock.acquire()

        with pytest.raises(TypeError, match=r"'locked' cannot be sent to a worker.*create that inside"):
            locked.remote()
        with pytest.raises(TypeError, match=r"'Locked' cannot be sent to a worker.*create that inside"):
            Locked.remote()

    def test_defaults_of_methods_stay_where_they_are(self) -> None:
        """A handle takes along that there is a default, not the default."""
        actor = WithDefaults.remote()
        assert rlray.get(actor.use.remote(1), timeout=30) == (1, True)
        again = rlray.get(through.remote(actor), timeout=30)
        assert rlray.get(again.use.remote(2), timeout=30) == (2, True)
        with pytest.raises(TypeError, match=r"use\(value, count=3, lock=\.\.\.\)"):
            again.use.remote()


class WithLock:
    """Of a module, so that classes that use it travel by name."""

    LOCK = threading.Lock()

    def use(self, value: Any, count: int = 3, lock: Any = LOCK) -> Any:
        return value, lock is WithLock.LOCK


WithDefaults = rlray.remote(WithLock)


class TestWhatCannotBeUnpickled:
    @pytest.mark.parametrize("kind", SPRUNG)
    def test_an_argument(self, kind: str) -> None:
        actors = [Actor.remote(), Coroutines.remote(), Threaded.options(max_concurrency=2).remote()]
        pids = rlray.get([actor.pid.remote() for actor in actors], timeout=30)
        refs = [call.remote(SPRUNG[kind]()) for call in (through, *(actor.through for actor in actors))]
        refs += [through.remote(rlray.put(SPRUNG[kind]())), through.remote(make.remote("sprung", kind))]
        for ref in refs:
            error = error_of(ref)
            assert isinstance(error, RayTaskError)
            assert isinstance(error, RaySystemError)
            assert "through raised in another process" in str(error)
            assert "cannot be unpickled in process" in str(error)
            assert "__setstate__" in str(error)
        assert "an argument of through cannot" in str(error_of(refs[0]))
        assert "a value made by make cannot" in str(error_of(refs[-1])) or "the value of ObjectRef" in str(error)
        assert rlray.get([actor.pid.remote() for actor in actors], timeout=30) == pids

    @pytest.mark.parametrize("kind", SPRUNG)
    def test_a_result_here(self, kind: str) -> None:
        """Whatever it raises, even SystemExit: the program goes on, and the next one is read as if nothing was."""
        actor = Actor.remote()
        for ref, name in ((make.remote("sprung", kind), "make"), (actor.make.remote("sprung", kind), "make")):
            for error in (error_of(ref), ref.future().exception(timeout=30), error_of([through.remote(1), ref])):
                assert type(error) is RaySystemError
                assert isinstance(error, RayError)
                assert error.__cause__ is not None
                assert f"made by {name} cannot be unpickled in process {os.getpid()}" in str(error).replace(
                    "Actor.", ""
                )
                assert type(error.__cause__).__name__ in str(error)
        assert rlray.get(actor.through.remote(1), timeout=30) == 1

    @pytest.mark.parametrize("kind", SPRUNG)
    def test_a_value_that_was_put(self, kind: str) -> None:
        ref = rlray.put(SPRUNG[kind]())
        error = error_of(ref)
        assert type(error) is RaySystemError
        assert "cannot be unpickled" in str(error)

    def test_the_interrupt_of_a_person_is_not_hidden(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            rlray.get(rlray.put(Trap("unpickling", KeyboardInterrupt)))

    @pytest.mark.usefixtures("workers")
    def test_an_argument_that_raises_an_interrupt_there(self) -> None:
        assert "KeyboardInterrupt: sprung" in str(error_of(through.remote(Trap("unpickling", KeyboardInterrupt))))

    @pytest.mark.processes
    def test_an_argument_that_ends_the_process(self) -> None:
        """Nothing can be said of it but that the worker died over the task; the next worker goes on."""

        class Ending:
            def __reduce__(self) -> Any:
                return os._exit, (7,)

        error = error_of(through.options(max_retries=0).remote(Ending()))
        assert isinstance(error, WorkerCrashedError)
        assert "through" in str(error)
        assert "code 7" in str(error)
        assert rlray.get(through.remote(1), timeout=30) == 1

    def test_what_a_generator_has_yielded(self) -> None:
        @rlray.remote
        def each() -> Iterator[Any]:
            yield 1
            yield State()
            yield 3

        first, second, third = each.remote()
        assert (rlray.get(first), rlray.get(third)) == (1, 3)
        assert "made by each cannot be unpickled" in str(error_of(second))

    def test_an_argument_of_a_constructor(self) -> None:
        error = error_of(Actor.remote(State()).pid.remote())
        assert isinstance(error, ActorDiedError)
        assert "an argument of Actor.__init__ cannot be unpickled" in str(error)
        assert isinstance(error.__cause__, RaySystemError)

    def test_the_code_of_a_class_or_a_function(self) -> None:
        class Base:
            trap = State()

        @rlray.remote
        class Derived(Base):
            def call(self) -> None: ...

        @rlray.remote
        def function() -> Any:
            return Base.trap

        error = error_of(Derived.remote().call.remote())
        assert isinstance(error, ActorDiedError)
        assert "Derived" in str(error)
        assert "sprung" in str(error)
        for _ in range(2):
            error = error_of(function.remote())
            assert "function raised" in str(error)
            assert "cannot be unpickled" in str(error)

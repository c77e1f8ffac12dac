"""What runs in Ray's workers: user code is loaded there once, and what it raises is told in our own errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from rlray.core import engine as engines
from rlray.core.calls import check_generator, results_of, retries
from rlray.core.engine import STREAMING, Code
from rlray.core.exceptions import task_error
from rlray.core.ray.errors import Failed, Raised, raised
from rlray.core.ray.refs import Ref, captured, id_of
from rlray.core.serialization import unpickled


def attach() -> None:
    """This process uses Ray's cluster from here on. Every way into a worker leads through here."""
    if not engines.running():
        from rlray.core.ray.engine import RayEngine

        engines.set_current(RayEngine(driver=False))


class Loaded:
    """A function or class as it travels; unpickled at its first use, once per process."""

    def __init__(self, key: bytes, name: str, pickled: bytes, held: Sequence[Any]) -> None:
        self.key, self.name, self.pickled, self.held = key, name, pickled, held
        self._target: Any = None

    def target(self) -> Any:
        """What it stands for. Raises RaySystemError if it cannot be unpickled here."""
        if self._target is None:
            attach()
            captured.update({id_of(theirs): Ref(theirs) for theirs in self.held})
            self._target = unpickled(f"the code of {self.name}", lambda: pickle.loads(self.pickled))
        return self._target

    def __reduce__(self) -> tuple[Callable[..., Loaded], tuple[Any, ...]]:
        return _loaded, (self.key, self.name, self.pickled, self.held)


_all: dict[bytes, Loaded] = {}


def _loaded(*parts: Any) -> Loaded:
    """The same code is one object, so that all its variants share their globals."""
    return _all.setdefault(parts[0], Loaded(*parts))


def loaded(code: Code) -> Loaded:
    """Code in the form that Ray takes along, with what it captures."""
    return Loaded(code.id, code.name, code.pickled, [ref.ray for ref in code.refs if isinstance(ref, Ref)])


@dataclass(frozen=True)
class How:
    """What a worker must know of a call beyond its arguments."""

    count: int = 1  # of results, or `STREAMING`
    again: bool | bytes = False  # the call's `retry_exceptions`


PLAIN = How()


def check_arguments(args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Raise the error that one of the arguments stands for."""
    for value in args:
        if type(value) is Failed:
            raise value.error()
    for value in kwargs.values():
        if type(value) is Failed:
            raise value.error()


def told(error: BaseException, name: str, how: How = PLAIN, actor: str = "") -> BaseException:
    """What Ray gets to take to the caller, for what user code has raised. Cancellation is Ray's affair."""
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError | Raised):
        return error
    if isinstance(error, SystemExit) and hasattr(error, "ray_terminate_msg"):  # Ray ends this process
        return error
    where = f"pid={os.getpid()}" + (f", actor {actor}" if actor else "")
    failure = task_error(name, error, where)
    return raised(failure, retries(how.again, failure))


# -- tasks -----------------------------------------------------------------------------------------------------------


def task(code: Code, how: How) -> Callable[..., Any]:
    """The function that Ray runs for calls of ``code``. It has no parameters of its own names."""
    body = loaded(code)
    run, run_plain, run_stream = _run, _run_plain, _run_stream  # taken along by name, since this function goes by value
    if how.count == STREAMING:

        def call(*args: Any, **kwargs: Any) -> Any:
            yield from run_stream(body, how, args, kwargs)

    elif how == PLAIN:

        def call(*args: Any, **kwargs: Any) -> Any:
            return run_plain(body, args, kwargs)

    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            return run(body, how, args, kwargs)

    call.__name__ = call.__qualname__ = code.name
    return call


def _run_plain(body: Loaded, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        function = body._target or body.target()
        check_arguments(args, kwargs)
        return one(function(*args, **kwargs))
    except BaseException as error:  # also SystemExit: the caller is told
        raise told(error, _task_name(body)) from None


def _run(body: Loaded, how: How, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = _task_name(body)
    try:
        function = body.target()
        check_arguments(args, kwargs)
        return returned(name, how.count, function(*args, **kwargs))
    except BaseException as error:
        raise told(error, name, how) from None


def _run_stream(body: Loaded, how: How, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    name = _task_name(body)
    try:
        function = body.target()
        check_arguments(args, kwargs)
        result = function(*args, **kwargs)
        check_generator(name, result, Iterator)
        for value in result:  # noqa: UP028 -- Ray sends it values that are not for user code
            yield value
    except GeneratorExit:
        raise
    except BaseException as error:
        raise told(error, name, how) from None


_GENERATOR = type(_ for _ in ())


def one(result: Any) -> Any:
    """The result of a call that has one: of a generator its first value."""
    return next(result) if type(result) is _GENERATOR else result


def returned(name: str, count: int, result: Any) -> Any:
    """The results of a call in the form that Ray wants."""
    results = results_of(name, count, result)
    return None if count == 0 else results[0] if count == 1 else tuple(results)


def _task_name(body: Loaded) -> str:
    with contextlib.suppress(Exception):  # an older Ray
        return ray.get_runtime_context().get_task_name() or body.name
    return body.name

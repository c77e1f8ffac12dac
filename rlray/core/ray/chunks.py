"""Chunks of `map`: many calls of a function in one of Ray's tasks, each with a result of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.calls import results_of, retries
from rlray.core.engine import Code
from rlray.core.exceptions import ActorDiedError, task_error
from rlray.core.mapping import Chunk, SingleCalls
from rlray.core.ray.errors import Failed
from rlray.core.ray.hosting import Loaded, check_arguments, loaded, told
from rlray.core.ray.refs import Ref
from rlray.core.refs import ObjectRef
from rlray.core.serialization import dumps_error, is_plain, serialize

if TYPE_CHECKING:
    from rlray.core.ray.engine import RayEngine

_OVERHEAD = 20e-6  # seconds that Ray needs for each result: a chunk is not made longer than that pays


class RayChunk(Chunk):
    """Items under way in one task. Its first result is what the others took."""

    def __init__(self, engine: RayEngine, refs: Sequence[Any]) -> None:
        self._engine = engine
        first, *rest = map(Ref, refs)
        self.completion: ObjectRef = first
        self._refs = rest
        self.count = len(rest)

    def seconds(self) -> float | None:
        try:
            [measured] = self._engine.get([self.completion], None)
        except Exception:  # its items tell
            return None
        return max(measured, self.count * _OVERHEAD)  # type: ignore[no-any-return]

    def ref(self, index: int) -> ObjectRef:
        return self._refs[index]

    def values(self, return_exceptions: bool) -> Iterable[Any]:
        for value in self._engine.outcomes(self._refs):
            if type(value) is not Failed:
                yield value
            elif return_exceptions:
                yield value.error()
            else:
                raise value.error()


class ActorCalls(SingleCalls):
    """Items under way to an actor, each a call of its own."""

    def broken(self) -> bool:
        try:
            self._engine.get([self.completion], None)
        except ActorDiedError:
            return True
        except Exception:  # an error of that item's own
            return False
        return False


def many(code: Code) -> Callable[..., Any]:
    """The function that Ray runs for a chunk of calls of ``code``."""
    body = loaded(code)

    def call(name: str, again: bool | bytes, tries: int, items: tuple[Any, ...]) -> Any:
        return run(body, name, again, tries, items)

    call.__name__ = call.__qualname__ = code.name
    return call


def run(body: Loaded, name: str, again: bool | bytes, tries: int, items: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the calls took in seconds, then their results. An error, and an attempt more, concern their own item."""
    began = time.perf_counter()
    try:
        function = body.target()
    except BaseException as error:
        raise told(error, name) from None
    results = [_result(function, name, again, tries, item) for item in items]
    return (time.perf_counter() - began, *results)


def _result(function: Callable[..., Any], name: str, again: bool | bytes, tries: int, item: Any) -> Any:
    while True:
        try:
            check_arguments((item,), {})
            [result] = results_of(name, 1, function(item))
            if not is_plain(result):
                serialize(result, f"the result of {name}")  # one that cannot be sent would be an error of all
            return result
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: the caller is told
            failure = task_error(name, error, f"pid={os.getpid()}")
            if tries == 0 or not retries(again, failure):
                return Failed(dumps_error(failure))
            tries -= tries > 0

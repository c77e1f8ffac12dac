"""What every engine does with a call: arguments taken apart and put together, results counted, deaths told."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from rlray.core.engine import CHUNK, STREAMING, CallSpec
from rlray.core.exceptions import (
    ActorDiedError,
    ActorExit,
    ActorUnschedulableError,
    RayTaskError,
    RuntimeEnvSetupError,
    say,
)
from rlray.core.refs import ObjectRef
from rlray.core.serialization import IMMUTABLE, dumps_error

Slot = int | str
"""Where a resolved reference goes: the index of a positional argument, or the name of a keyword argument."""

_SMALL = 1_000  # characters or bytes


def call_kind(spec: CallSpec, of_actor: bool) -> str:
    """What a call is, in Ray's words, and in which form it travels."""
    kind = "ACTOR_TASK" if of_actor else "NORMAL_TASK"
    return {CHUNK: f"{kind} (chunk of map)", STREAMING: f"{kind} (generator)"}.get(spec.num_returns, kind)


def method_of(instance: Any, name: str) -> Callable[..., Any]:
    """What a call of the actor's method ``name`` calls: one of its own, or of those that every actor has."""
    if name in _EVERY_ACTORS:
        return partial(_EVERY_ACTORS[name], instance)
    return getattr(instance, name)  # type: ignore[no-any-return]


def _call_with(instance: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(instance, *args, **kwargs)


def _ready(instance: Any) -> bool:
    return True


def _terminate(instance: Any) -> None:
    raise ActorExit


_EVERY_ACTORS: dict[str, Callable[..., Any]] = {
    "__ray_call__": _call_with,
    "__ray_ready__": _ready,
    "__ray_terminate__": _terminate,
}
"""Their signatures are in `rlray.core.signatures`."""


@dataclass(slots=True)
class Arguments:
    """What a call was given, taken apart for travelling."""

    values: tuple[Sequence[Any], Mapping[str, Any]]  # references at top level replaced by None
    slots: tuple[Slot, ...] = ()
    dependencies: list[ObjectRef] = field(default_factory=list)


def take_apart(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """Find the references at top level: they arrive as values, others inside containers as references."""
    slots: list[Slot] = [i for i, value in enumerate(args) if isinstance(value, ObjectRef)]
    slots += [name for name, value in kwargs.items() if isinstance(value, ObjectRef)]
    if not slots:
        return Arguments((tuple(args), dict(kwargs)))
    dependencies = [args[slot] if isinstance(slot, int) else kwargs[slot] for slot in slots]
    plain_args = tuple(None if isinstance(value, ObjectRef) else value for value in args)
    plain_kwargs = {name: None if isinstance(value, ObjectRef) else value for name, value in kwargs.items()}
    return Arguments((plain_args, plain_kwargs), tuple(slots), dependencies)


def put_together(
    values: tuple[Sequence[Any], Mapping[str, Any]], slots: Sequence[Slot], resolved: Sequence[Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The arguments as the function gets them."""
    if not slots:
        return values
    args, kwargs = list(values[0]), dict(values[1])
    for slot, value in zip(slots, resolved, strict=True):
        if isinstance(slot, int):
            args[slot] = value
        else:
            kwargs[slot] = value
    return args, kwargs


def immutable_arguments(args: tuple[Any, ...]) -> bool:
    """Whether the arguments can wait as they are: nobody can change them before they are sent."""
    for value in args:
        kind = type(value)
        if kind not in IMMUTABLE or ((kind is str or kind is bytes) and len(value) > _SMALL):
            return False
    return True


def results_of(name: str, count: int, result: Any) -> Sequence[Any]:
    """What a call with ``num_returns=count`` has returned, one by one; a generator is run for as many as are needed.

    Raises: ValueError for a wrong count; whatever a generator raises.
    """
    if count == 0:
        return ()
    if count == 1:
        return (next(result) if inspect.isgenerator(result) else result,)
    if inspect.isgenerator(result):
        result = tuple(islice(result, count))
    if not isinstance(result, tuple | list) or len(result) != count:
        got = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
        raise ValueError(f"{name} has num_returns={count} but returned {got}; return a tuple or list of {count}")
    return result


def retries(wanted: bool | bytes, failure: RayTaskError) -> bool:
    """Whether a call that failed so may be made again: ``wanted`` is its ``retry_exceptions``, as it travels."""
    if isinstance(wanted, bool):
        return wanted
    try:
        return isinstance(failure.cause, pickle.loads(wanted))
    except Exception as why:  # user-defined unpickling may raise anything
        failure.traceback_str += f"note: retry_exceptions cannot be unpickled, so it was not tried again: {say(why)}\n"
        return False


def check_generator(name: str, result: Any, kind: type) -> None:
    """Raise TypeError if what a call with ``num_returns="streaming"`` has returned is no generator."""
    if not isinstance(result, kind):
        raise TypeError(
            f"{name} has num_returns='streaming' but returned {type(result).__name__}, not a generator; "
            "use yield, or another num_returns"
        )


def as_call_error(cause: bytes | None) -> bytes:
    """The pickled error that calls get: ActorDiedError, whose cause is an error of the constructor.

    That the actor could not even be placed has errors of its own.
    """
    if cause is None:
        return dumps_error(ActorDiedError("the actor is dead"))
    error = pickle.loads(cause)  # of a class of ours: what a user has raised stays pickled inside
    if isinstance(error, ActorDiedError | ActorUnschedulableError | RuntimeEnvSetupError):
        return cause
    return dumps_error(ActorDiedError(f"the actor's constructor raised, so it never lived:\n{error}", error))

"""The boundary for errors: how those of user code travel through Ray, and what Ray's own are called here."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import ray
from ray import exceptions as theirs

from rlray.core import exceptions as ours
from rlray.core.calls import as_call_error
from rlray.core.exceptions import presentable, say
from rlray.core.ray import kv
from rlray.core.serialization import dumps_error, unpicklable


class Raised(Exception):
    """What a worker raises so that Ray takes our own error to the caller. Ray's tools show its text."""

    def __init__(self, data: bytes, text: str) -> None:
        super().__init__(data, text)
        self.data = data

    def __str__(self) -> str:
        return str(self.args[1])


class Retried(Raised):
    """The same, where the call may be made again: Ray is told to retry on this class alone."""


class Failed:
    """A value that there is not: whoever gets it, or is given it as an argument, gets the error."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[type[Failed], tuple[bytes]]:
        return Failed, (self.data,)

    def error(self) -> BaseException:
        """What to raise."""
        return presentable(pickle.loads(self.data))


def raised(error: BaseException, again: bool = False) -> Raised:
    """An error of ours in the form that travels."""
    return (Retried if again else Raised)(dumps_error(error), str(error))


def of_value(value: Any) -> Any:
    """A value as it is, unless it stands for an error, which is raised."""
    if type(value) is Failed:
        raise value.error()
    return value


def mapped(error: BaseException) -> BaseException:
    """Our error for one of Ray's, to be raised ``from`` it; another error as it is."""
    if isinstance(error, theirs.RayTaskError):
        return _of_task(error)
    if not isinstance(error, theirs.RayError):
        return error
    if isinstance(error, theirs.RayActorError):
        return _of_actor(error)
    for kind, make in _TABLE:
        if isinstance(error, kind):
            return make(str(error) or kind.__name__)
    return ours.RaySystemError(say(error))


def _of_task(error: Any) -> BaseException:
    cause = error.cause
    while isinstance(cause, theirs.RayTaskError):  # an argument of the task was itself an error
        cause = cause.cause
    if isinstance(cause, Raised):
        return presentable(pickle.loads(cause.data))
    if isinstance(cause, theirs.RayError):
        return mapped(cause)
    text = str(error)  # of its attributes Ray's class for both errors has the cause alone
    found = re.search(r"ray::([^\s(]+)\(.*?\(pid=(\d+)", text)
    name, where = (found[1], f"pid={found[2]}") if found else ("a task", "on the cluster")
    # What user code raises comes as `Raised`, so this is what Ray met when it took the result.
    why = unpicklable(f"the result of {name}", cause)
    return ours.RayTaskError(name, f"{text}\n{why}", why, where).as_instanceof_cause()


def _of_actor(error: Any) -> BaseException:
    if isinstance(error, getattr(theirs, "ActorUnavailableError", ())):
        return ours.ActorUnavailableError(str(error))
    told = kv.get(kv.FAILED, error.actor_id or "") if getattr(error, "_actor_init_failed", False) else None
    if told is not None:
        return presentable(pickle.loads(as_call_error(told)))
    text = str(error)
    # Two tell the caller of an actor that exits, the actor itself and its node, which has seen its process end. Whoever
    # comes first counts, and in the node's words the actor "died unexpectedly".
    return ours.ActorDiedError(f"the actor has ended by exit_actor(): {text}" if _EXITED in text else text)


_EXITED = "User requested to exit the actor"
"""What the node says of such a process."""


def _named(*names: str) -> tuple[type[BaseException], ...]:
    """Those of Ray's classes that this version of Ray has."""
    return tuple(getattr(theirs, name) for name in names if hasattr(theirs, name))


_TABLE: list[tuple[type[BaseException], Callable[[str], BaseException]]] = [
    (kind, make)
    for names, make in (
        (("GetTimeoutError",), ours.GetTimeoutError),
        (("TaskCancelledError",), ours.TaskCancelledError),
        (("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError"), ours.WorkerCrashedError),
        (("OwnerDiedError",), ours.OwnerDiedError),
        (("ObjectLostError",), ours.ObjectLostError),
        (("ObjectStoreFullError", "OutOfDiskError"), ours.ObjectStoreFullError),
        (("RuntimeEnvSetupError",), ours.RuntimeEnvSetupError),
        (("TaskPlacementGroupRemoved",), ours.TaskPlacementGroupRemoved),
        (("ActorPlacementGroupRemoved",), ours.ActorPlacementGroupRemoved),
        (("TaskUnschedulableError",), ours.TaskUnschedulableError),
        (("ActorUnschedulableError",), ours.ActorUnschedulableError),
        (("ActorAlreadyExistsError",), ours.ActorAlreadyExistsError),
        (("RayChannelError",), ours.RayChannelError),
    )
    for kind in _named(*names)
]
"""The first that fits counts."""


def is_client() -> bool:
    """Whether this process reaches its cluster through Ray's client (``ray://``)."""
    return bool(ray.util.client.ray.is_connected())

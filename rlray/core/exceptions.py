"""What rlray raises. Names and meanings are Ray's.

RayError
├── RayTaskError                     a task or method raised; also an instance of the user's own exception class
├── TaskCancelledError               the task was cancelled
├── GetTimeoutError (TimeoutError)   ``get`` ran out of time
├── DeadlockError (RuntimeError)     ``get`` waited in a circle of calls that wait for each other; not one of Ray's
├── WorkerCrashedError               the process that ran the task died
├── RayActorError                    the actor cannot answer
│   ├── ActorDiedError               ... and never will
│   └── ActorUnavailableError        ... at this moment: it is being restarted
├── ActorAlreadyExistsError (ValueError)  a living actor has that name
├── TaskUnschedulableError           this machine can never run the task
├── TaskPlacementGroupRemoved        the placement group that the task was to run in is gone
├── ActorUnschedulableError          this machine can never hold the actor
│   └── ActorPlacementGroupRemoved   ... since its placement group is gone
├── RuntimeEnvSetupError             no worker could be set up with the runtime environment
├── ObjectLostError                  the value is gone
│   └── OwnerDiedError               ... with the process that owned it
├── ObjectStoreFullError             no memory left for a value, not even by spilling
└── RaySystemError                   the runtime itself failed, or a value cannot be unpickled
    └── RayChannelError              a process of the runtime went away
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from rlray.core.hints import hint

__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorExit",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "DeadlockError",
    "GetTimeoutError",
    "ObjectLostError",
    "ObjectStoreFullError",
    "OwnerDiedError",
    "RayActorError",
    "RayChannelError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnsupportedError",
    "WorkerCrashedError",
]


class RayError(Exception):
    """Everything that rlray raises about remote work derives from this class."""


class TaskCancelledError(RayError):
    """The task was cancelled before it finished."""

    def __init__(self, message: str = "the task was cancelled") -> None:
        super().__init__(message)


class GetTimeoutError(RayError, TimeoutError):
    """``get(..., timeout=seconds)`` ran out of time; the message says what it was waiting for."""


class DeadlockError(RayError, RuntimeError):
    """Calls wait for each other in a circle, and would do so for ever; the message names them. It breaks the circle."""


class UnsupportedError(RayError, NotImplementedError):
    """The engine that runs has no place for this; the message says what to use instead. See ``docs/cluster.md``."""


class WorkerCrashedError(RayError):
    """The worker process died while it ran the task; the message names the signal or exit code."""

    def __init__(self, message: str = "the worker process died while it ran the task") -> None:
        super().__init__(message)


class RayActorError(RayError):
    """The actor cannot answer this call."""

    def __init__(self, message: str = "the actor cannot answer") -> None:
        super().__init__(message)


class ActorDiedError(RayActorError):
    """The actor is dead and will not come back. If its constructor raised, that error is the ``__cause__``."""

    def __init__(self, message: str = "the actor is dead", cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.__cause__ = cause

    def __reduce__(self) -> tuple[type[ActorDiedError], tuple[str, BaseException | None]]:
        return ActorDiedError, (str(self), self.__cause__)


class ActorAlreadyExistsError(RayError, ValueError):
    """A living actor has that name in that namespace already."""


class ActorUnavailableError(RayActorError):
    """The actor's process died during this call and is being restarted; later calls may succeed."""


class ActorExit(BaseException):
    """Raised by ``exit_actor`` to leave the method that called it; the actor then ends. Do not catch it."""


class TaskUnschedulableError(RayError):
    """The task asks for more than this machine has in all."""


class ActorUnschedulableError(RayError):
    """The actor asks for more than this machine has in all."""


class TaskPlacementGroupRemoved(RayError):
    """The placement group that the task was to run in has been removed."""

    def __init__(self, message: str = "the placement group of this task has been removed") -> None:
        super().__init__(message)


class ActorPlacementGroupRemoved(ActorUnschedulableError):
    """The placement group that the actor was to live in has been removed."""

    def __init__(self, message: str = "the placement group of this actor has been removed") -> None:
        super().__init__(message)


class RuntimeEnvSetupError(RayError):
    """No worker could be set up with the runtime environment; the message says why."""


class ObjectLostError(RayError):
    """The value behind a reference no longer exists."""


class OwnerDiedError(ObjectLostError):
    """The process that owned the value died, and the value with it."""


class ObjectStoreFullError(RayError):
    """No room for a value in the object store, and what is there cannot go to disk; the message says who holds what."""


class RaySystemError(RayError):
    """The runtime itself failed, or a value cannot be unpickled in the process that wants it (see ``__cause__``)."""


class RayChannelError(RaySystemError):
    """A process of the runtime went away, so that nothing more can be asked of it."""


class RayTaskError(RayError):
    """A task or an actor method raised.

    What ``get`` raises is an instance of this class AND of the class of the original exception, so that
    ``except ValueError`` works across processes. ``cause`` is the original exception, ``traceback_str`` the remote
    traceback as text; both are also reachable as ``__cause__``.
    """

    def __init__(self, function_name: str, traceback_str: str, cause: BaseException | bytes, where: str = "") -> None:
        super().__init__(function_name, traceback_str, where)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.where = where  # "pid=..., actor ..." of the process that ran it
        self._cause = cause  # bytes: pickled, since nobody has asked for it yet

    @property
    def cause(self) -> BaseException:
        """The original exception; one that says why, if it cannot be unpickled here."""
        if isinstance(self._cause, bytes):
            try:
                self._cause = loaded = pickle.loads(self._cause)
                return loaded  # type: ignore[no-any-return]
            except KeyboardInterrupt:
                raise
            except BaseException as why:  # user-defined unpickling may raise anything
                text = f"what {self.function_name} raised cannot be unpickled in this process: {say(why)}"
                self._cause = RayError(text)
        return self._cause

    def __str__(self) -> str:
        return f"{self.function_name} raised in another process ({self.where})\n{self.traceback_str.rstrip()}"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return RayTaskError, self._parts()

    def _parts(self) -> tuple[str, str, bytes, str]:
        from rlray.core.serialization import dumps_error

        cause = self._cause if isinstance(self._cause, bytes) else dumps_error(self._cause)
        return self.function_name, self.traceback_str, cause, self.where

    def as_instanceof_cause(self) -> RayTaskError:
        """This error as an instance of the original's class too; itself where Python does not allow such a class."""
        cause = self.cause
        while isinstance(cause, RayTaskError):  # an error that came through several tasks keeps its first class
            cause = cause.cause
        error: RayTaskError = self
        if isinstance(cause, Exception):
            with contextlib.suppress(Exception):  # layout conflict, a final class, or what its constructor raises
                error = _dual_class(type(cause))(self.function_name, self.traceback_str, cause, self.where)
        error.__cause__ = cause
        return error


_duals: WeakValueDictionary[type[Exception], type[RayTaskError]] = WeakValueDictionary()
"""A class goes with its last error, but not before Python looks for circles: each is in one with itself."""


def _dual_class(cause_class: type[Exception]) -> type[RayTaskError]:
    """A class that is both ``RayTaskError`` and ``cause_class``, showing the attributes of the original."""
    known = _duals.get(cause_class)
    if known is not None:
        return known

    class Dual(RayTaskError, cause_class):  # type: ignore[misc, valid-type]
        def __new__(cls, function_name: str, traceback_str: str, cause: Exception, where: str) -> Any:
            args = OSError.__reduce__(cause)[1] if isinstance(cause, OSError) else cause.args  # with its file's name
            return cause_class.__new__(cls, *args)  # exception groups will have it so

        def __init__(self, function_name: str, traceback_str: str, cause: Exception, where: str) -> None:
            # Not super().__init__: the user's constructor may want other arguments.
            self.function_name, self.traceback_str, self._cause, self.where = function_name, traceback_str, cause, where
            self.args = cause.args

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") or "_cause" not in self.__dict__:
                raise AttributeError(name)
            return getattr(self.__dict__["_cause"], name)

        __str__ = RayTaskError.__str__

        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return _dual_again, self._parts()

    Dual.__name__ = Dual.__qualname__ = f"RayTaskError({cause_class.__name__})"
    _duals[cause_class] = Dual
    return Dual


def _dual_again(function_name: str, traceback_str: str, cause: bytes, where: str) -> RayTaskError:
    return RayTaskError(function_name, traceback_str, cause, where).as_instanceof_cause()


def presentable(error: BaseException) -> BaseException:
    """An error as it is raised where somebody asks for the value: one of a user's own class too, if that can be."""
    if isinstance(error, RayTaskError):
        return error.as_instanceof_cause()
    if isinstance(error.__cause__, RayTaskError):
        error.__cause__ = error.__cause__.as_instanceof_cause()
    return error


def say(error: BaseException) -> str:
    """An exception in one line, whatever its class does when it is asked for its text."""
    try:
        text = str(error)
    except BaseException:  # of the user's own making
        text = "<its text cannot be had>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def task_error(function_name: str, error: BaseException, where: str) -> RayTaskError:
    """Wrap what user code raised, with its traceback as text; frames of the runtime itself are left out."""
    tb = error.__traceback__
    while tb is not None and "/rlray/core/" in tb.tb_frame.f_code.co_filename.replace("\\", "/"):
        tb = tb.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, tb or error.__traceback__)) + hint(error)
    except Exception as why:  # of the user's own making: __str__, __notes__, ...
        text = f"{say(error)} (its traceback cannot be shown: {say(why)})\n"
    return RayTaskError(function_name, text, error, where)

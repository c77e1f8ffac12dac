"""What ``@remote`` makes of functions and classes, and handles to actors."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any

import cloudpickle

from rlray.core import engine as engines
from rlray.core.engine import Code, Engine
from rlray.core.options import ACTOR_OPTIONS, METHOD_OPTIONS, TASK_OPTIONS, checked, wish, with_defaults
from rlray.core.refs import ObjectRef
from rlray.core.resources import Wish

_METHOD_ATTRIBUTE = "__rlray_method__"

Refs = ObjectRef | list[ObjectRef] | None


def _unwrap(refs: list[ObjectRef]) -> Any:
    """One reference for one result, a list for several, None for none."""
    return refs[0] if len(refs) == 1 else (refs or None)


def _code(target: Any, what: str) -> Code:
    try:
        pickled = cloudpickle.dumps(target, protocol=5)
    except Exception as why:  # user-defined pickling may raise anything
        raise TypeError(
            f"{what} cannot be sent to a worker: {why}. Look for what it refers to from outside "
            "(locks, open files, sockets, ...) and create that inside instead"
        ) from why
    return Code(hashlib.sha1(pickled, usedforsecurity=False).digest(), target.__name__, pickled)


def _signature(target: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):  # some builtins have none
        return None


def _check_arguments(signature: inspect.Signature | None, name: str, args: Any, kwargs: Any) -> None:
    """A call that can only fail fails here, in the caller's own traceback."""
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as why:
            raise TypeError(f"{name}.remote(): {why}; its arguments are {name}{signature}") from None


def _engine() -> Engine:
    from rlray.core.api import ensure_running

    return ensure_running()


class RemoteFunction:
    """A function that runs as a task: ``f.remote(...)`` returns a reference at once.

    References given as arguments arrive as their values (and the task waits for them); inside containers they arrive as
    references.
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._function = function
        self._options = checked(options, TASK_OPTIONS, f"the remote function {function.__name__!r}")
        self._full = with_defaults(self._options, TASK_OPTIONS)
        self._wish = wish(self._full, 1, f"task {function.__name__!r}")
        self._signature = _signature(function)
        self._pickled: Code | None = None
        update_wrapper(self, function)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start the task. Raises TaskUnschedulableError at once if this machine can never run it."""
        return self._submit(args, kwargs, self._full, self._wish)

    def options(self, **options: Any) -> TaskCaller:
        """The same function with other options, for this use only."""
        given = checked(options, TASK_OPTIONS, f"the remote function {self.__name__!r}")  # type: ignore[attr-defined]
        return TaskCaller(self, {**self._options, **given})

    def _submit(self, args: Any, kwargs: Any, options: Mapping[str, Any], asked: Wish) -> Any:
        _check_arguments(self._signature, self._function.__name__, args, kwargs)
        engine = _engine()
        if self._pickled is None:
            self._pickled = _code(self._function, f"the remote function {self._function.__name__!r}")
        return _unwrap(engine.submit(self._pickled, args, kwargs, asked, options))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._function.__name__
        raise TypeError(f"remote function {name!r} cannot be called directly. Instead of {name}(), try {name}.remote()")

    def __reduce__(self) -> tuple[Callable[..., RemoteFunction], tuple[Any, ...]]:
        return RemoteFunction, (self._function, self._options)


class TaskCaller:
    """A remote function with options of one use; see `RemoteFunction.options`."""

    def __init__(self, function: RemoteFunction, options: Mapping[str, Any]) -> None:
        self._function = function
        self._full = with_defaults(options, TASK_OPTIONS)
        self._wish = wish(self._full, 1, f"task {function.__name__!r}")  # type: ignore[attr-defined]

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start the task."""
        return self._function._submit(args, kwargs, self._full, self._wish)


class ActorClass:
    """A class whose instances live in processes of their own: ``Class.remote(...)`` returns a handle at once."""

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        self._class = cls
        self._options = checked(options, ACTOR_OPTIONS, f"the actor class {cls.__name__!r}")
        self._pickled: Code | None = None
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor. Raises ActorUnschedulableError at once if this machine can never hold it.

        Errors of the constructor show at the first call, as ActorDiedError with the original as cause.
        """
        return self._create(args, kwargs, self._options)

    def options(self, **options: Any) -> ActorCaller:
        """The same class with other options, for this use only."""
        given = checked(options, ACTOR_OPTIONS, f"the actor class {self._class.__name__!r}")
        return ActorCaller(self, {**self._options, **given})

    def _create(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> ActorHandle:
        name = self._class.__name__
        _check_arguments(_signature(self._class), name, args, kwargs)
        engine = _engine()
        full = with_defaults(options, ACTOR_OPTIONS)
        if full["get_if_exists"] and full["name"] is None:
            raise ValueError("get_if_exists=True needs a name")
        if self._pickled is None:
            self._pickled = _code(self._class, f"the actor class {self._class.__name__!r}")
        methods = methods_of(self._class)
        asked = wish(full, 0, f"actor {name!r}")
        life = engine.create_actor(self._pickled, methods, args, kwargs, asked, full)
        return ActorHandle(life, name, methods, full["max_task_retries"])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._class.__name__
        raise TypeError(f"actor class {name!r} cannot be called directly. Instead of {name}(), try {name}.remote()")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._class,)  # a subclass inherits from the class itself

    def __reduce__(self) -> tuple[Callable[..., ActorClass], tuple[Any, ...]]:
        return ActorClass, (self._class, self._options)


class ActorCaller:
    """An actor class with options of one use; see `ActorClass.options`."""

    def __init__(self, cls: ActorClass, options: Mapping[str, Any]) -> None:
        self._class = cls
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor."""
        return self._class._create(args, kwargs, self._options)


def methods_of(cls: type) -> dict[str, dict[str, Any]]:
    """The methods of a class by name, with the options given by ``@method``."""
    found = {}
    for name, member in inspect.getmembers(cls, callable):
        if not name.startswith("__") or name == "__call__":
            found[name] = dict(getattr(member, _METHOD_ATTRIBUTE, {}))
            found[name]["signature"] = _method_signature(cls, name, member)
    return found


def _method_signature(cls: type, name: str, member: Any) -> inspect.Signature | None:
    """The arguments that a call through a handle takes: without ``self`` or ``cls``."""
    signature = _signature(member)
    if signature is None or inspect.ismethod(member) or isinstance(inspect.getattr_static(cls, name), staticmethod):
        return signature
    parameters = [one.replace(annotation=inspect.Parameter.empty) for one in list(signature.parameters.values())[1:]]
    return inspect.Signature(parameters)


class ActorHandle:
    """Calls the methods of one actor. The actor lives as long as a handle to it exists anywhere, or until `kill`."""

    def __init__(
        self, life: ObjectRef, class_name: str, methods: Mapping[str, Mapping[str, Any]], max_task_retries: int
    ) -> None:
        self._life = life
        self._class_name = class_name
        self._methods = methods
        self._max_task_retries = max_task_retries

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("_") and name not in self.__dict__.get("_methods", {}):
            raise AttributeError(name)
        if name not in self._methods:
            raise AttributeError(
                f"actor {self._class_name!r} has no method {name!r}; it has {', '.join(sorted(self._methods))}"
            )
        defaults = {"max_task_retries": self._max_task_retries, **self._methods[name]}
        options = with_defaults(defaults, METHOD_OPTIONS)
        return ActorMethod(self._life, name, self._class_name, self._methods[name]["signature"], options)

    def __dir__(self) -> list[str]:
        return sorted(self._methods)

    def __repr__(self) -> str:
        return f"Actor({self._class_name}, {self._life.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._life == self._life

    def __hash__(self) -> int:
        return hash(self._life)

    def __reduce__(self) -> tuple[type[ActorHandle], tuple[Any, ...]]:
        return ActorHandle, (self._life, self._class_name, self._methods, self._max_task_retries)

    @property
    def _actor_id(self) -> str:
        return self._life.hex()


class ActorMethod:
    """One method of one actor: ``handle.method.remote(...)`` returns a reference at once."""

    def __init__(
        self,
        life: ObjectRef,
        name: str,
        class_name: str,
        signature: inspect.Signature | None,
        options: Mapping[str, Any],
    ) -> None:
        self._life, self._name, self._class_name = life, name, class_name
        self._signature, self._options = signature, options

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; calls of one caller run in the order they were made."""
        _check_arguments(self._signature, self._name, args, kwargs)
        return _unwrap(engines.current().call(self._life, self._name, args, kwargs, self._options))

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options, for this use only."""
        given = checked(options, METHOD_OPTIONS, f"the method {self._class_name}.{self._name}")
        options = {**self._options, **given}
        return ActorMethod(self._life, self._name, self._class_name, self._signature, options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"method {self._name!r} of an actor cannot be called directly. "
            f"Instead of handle.{self._name}(), try handle.{self._name}.remote()"
        )


def method(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of an actor's method: ``@method(num_returns=2)``.

    Raises: ValueError for an unknown option or a wrong value.
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        given = checked(options, METHOD_OPTIONS, f"the method {function.__name__!r}")
        setattr(function, _METHOD_ATTRIBUTE, given)
        return function

    if not options:
        raise TypeError("@method needs options, for example @method(num_returns=2)")
    return mark

"""What ``@remote`` makes of functions and classes, and handles to actors."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, update_wrapper
from typing import Any

import cloudpickle

from rlray.core import engine as engines
from rlray.core.engine import STREAMING, CallSpec, Code, Engine
from rlray.core.mapping import Map, Spread
from rlray.core.options import ACTOR_OPTIONS, METHOD_OPTIONS, TASK_OPTIONS, checked, wish, with_defaults
from rlray.core.progress import Progress, Report, progress_of
from rlray.core.refs import ObjectRef
from rlray.core.resources import Wish
from rlray.core.serialization import collecting
from rlray.core.signatures import METHOD_ATTRIBUTE, MethodTable, Signature, methods_of, signature_of

_MOST_CODE = 100_000_000  # bytes, as in Ray


def _code(target: Any, what: str) -> Code:
    try:
        with collecting() as refs:
            pickled = cloudpickle.dumps(target, protocol=5)
    except Exception as why:  # user-defined pickling may raise anything
        raise TypeError(
            f"{what} cannot be sent to a worker: {why}. Look for what it refers to from outside "
            "(locks, open files, sockets, ...) and create that inside instead"
        ) from why
    if len(pickled) > _MOST_CODE:
        raise ValueError(
            f"{what} takes {len(pickled) / 1e6:.0f} MB to send, and {_MOST_CODE / 1e6:.0f} are the most. It captures "
            "something large from outside: put() that and pass the reference as an argument"
        )
    return Code(hashlib.sha1(pickled, usedforsecurity=False).digest(), target.__name__, pickled, tuple(refs))


def _engine() -> Engine:
    engine = engines.peek()
    if engine is None:
        from rlray.core.api import ensure_running

        engine = ensure_running()
    return engine


def _count(num_returns: int | str) -> int:
    return STREAMING if isinstance(num_returns, str) else num_returns


def _retried(exceptions: Any) -> bool | bytes:
    """``retry_exceptions`` in the form that travels."""
    return exceptions if isinstance(exceptions, bool) else bytes(cloudpickle.dumps(tuple(exceptions), protocol=5))


def _map(
    engine: Engine,
    spec: CallSpec,
    actor: ObjectRef | None,
    items: Iterable[Any],
    name: str,
    signature: Signature,
    progress: Progress | None,
) -> Map:
    signature.check(name, (None,), {})
    if spec.num_returns != 1:
        raise ValueError(f"{name}.map() gives one reference per item, but {name} has another num_returns; use remote()")
    cpus = int(engine.resources()[0].get("CPU", 1)) if actor is None else 1
    return Map(engine, lambda chunk: engine.chunk(spec, actor, chunk), items, max(1, cpus), progress)


class RemoteFunction:
    """A function that runs as a task: ``f.remote(...)`` returns a reference at once.

    References given as arguments arrive as their values (and the task waits for them); inside containers they arrive as
    references.
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._function = function
        self._options = checked(options, TASK_OPTIONS, f"the remote function {function.__name__!r}")
        if inspect.isgeneratorfunction(function):
            self._options.setdefault("num_returns", "streaming")
        self._name = function.__name__
        self._pickled: Code | None = None
        self._spec: CallSpec | None = None
        self._wish = wish(self._options, 1, f"task {self._name!r}")  # wrong amounts are told here
        update_wrapper(self, function)

    @cached_property
    def _signature(self) -> Signature:
        # Not before it is needed: a function that names itself is unpickled while it is still without its defaults.
        return signature_of(self._function)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start the task. Raises TaskUnschedulableError at once if this machine can never run it."""
        self._signature.check(self._name, args, kwargs)
        engine = engines.peek() or _engine()
        if self._spec is None:
            self._spec = self._make_spec(self._options, self._wish)
        return engine.submit(self._spec, args, kwargs)

    def map(self, items: Iterable[Any], *, progress: bool | Report = False) -> Map:
        """A task per item of any iterable, also an endless one: millions a second, because they travel in chunks.

        Guarantees: as `rlray.core.mapping.Map` says: one reference per item, in order; errors, retries and crashes
        concern their own item; few items are under way at a time. References among the items arrive as values.

        Args:
            items: What to call the function with; ``len()`` of it, if it has one, is what progress is compared with.
            progress: True for a line on stderr, if it takes more than a second; or a function that is called, ten times
                a second at most and at the end, by whoever iterates, with how many items are finished and how many
                there are, None if that is not known.

        Raises: ValueError if the function has other than one result; TaskUnschedulableError as `remote` does.
        """
        engine, spec = _engine(), self._own_spec()
        return _map(engine, spec, None, items, self._name, self._signature, progress_of(progress, spec.name, items))

    def _own_spec(self) -> CallSpec:
        if self._spec is None:
            self._spec = self._make_spec(self._options, self._wish)
        return self._spec

    def options(self, **options: Any) -> TaskCaller:
        """The same function with other options, for this use only."""
        given = checked(options, TASK_OPTIONS, f"the remote function {self._name!r}")
        return TaskCaller(self, {**self._options, **given})

    def _make_spec(self, options: Mapping[str, Any], asked: Wish) -> CallSpec:
        if self._pickled is None:
            self._pickled = _code(self._function, f"the remote function {self._name!r}")
        full = with_defaults(options, TASK_OPTIONS)
        return CallSpec(
            full["name"] or self._name,
            self._pickled,
            num_returns=_count(full["num_returns"]),
            max_retries=full["max_retries"],
            retry_exceptions=_retried(full["retry_exceptions"]),
            wish=asked,
            max_calls=full["max_calls"],
            backpressure=max(0, full["_generator_backpressure_num_objects"]),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._name
        raise TypeError(f"remote function {name!r} cannot be called directly. Instead of {name}(), try {name}.remote()")

    def __reduce__(self) -> tuple[Callable[..., RemoteFunction], tuple[Any, ...]]:
        return RemoteFunction, (self._function, self._options)


class TaskCaller:
    """A remote function with options of one use; see `RemoteFunction.options`."""

    def __init__(self, function: RemoteFunction, options: Mapping[str, Any]) -> None:
        self._function, self._options = function, options
        self._spec: CallSpec | None = None
        self._wish = wish(options, 1, f"task {function._name!r}")  # wrong amounts are told here

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start the task."""
        self._function._signature.check(self._function._name, args, kwargs)
        return (engines.peek() or _engine()).submit(self._own_spec(), args, kwargs)

    def map(self, items: Iterable[Any], *, progress: bool | Report = False) -> Map:
        """A task per item; see `RemoteFunction.map`."""
        function, engine, spec = self._function, _engine(), self._own_spec()
        shown = progress_of(progress, spec.name, items)
        return _map(engine, spec, None, items, function._name, function._signature, shown)

    def _own_spec(self) -> CallSpec:
        if self._spec is None:
            self._spec = self._function._make_spec(self._options, self._wish)
        return self._spec


class ActorClass:
    """A class whose instances live in processes of their own: ``Class.remote(...)`` returns a handle at once."""

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        self._class = cls
        self._options = checked(options, ACTOR_OPTIONS, f"the actor class {cls.__name__!r}")
        self._pickled: Code | None = None
        self._methods: MethodTable | None = None
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    @cached_property
    def _signature(self) -> Signature:
        # Not before it is needed: a class that names itself is unpickled while it is still empty.
        return signature_of(self._class)

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
        self._signature.check(name, args, kwargs)
        engine = _engine()
        full = with_defaults(options, ACTOR_OPTIONS)
        if full["get_if_exists"] and full["name"] is None:
            raise ValueError("get_if_exists=True needs a name")
        if self._methods is None:
            self._methods = methods_of(self._class)
        groups = tuple(full["concurrency_groups"] or ())
        if self._methods.groups != groups:
            self._methods = MethodTable(self._methods.methods, groups)
        for method_name, (_, given) in self._methods.methods.items():
            _check_group(given.get("concurrency_group"), groups, f"method {method_name!r} of {name!r}")
        if self._pickled is None:
            self._pickled = _code(self._class, f"the actor class {self._class.__name__!r}")
        asked = wish(full, 0, f"actor {name!r}")
        life = engine.create_actor(self._pickled, self._methods, args, kwargs, asked, full)
        return ActorHandle(life, name, self._methods, full["max_task_retries"])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._class.__name__
        raise TypeError(f"actor class {name!r} cannot be called directly. Instead of {name}(), try {name}.remote()")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._class,)  # a subclass inherits from the class itself

    def __reduce__(self) -> tuple[Callable[..., ActorClass], tuple[Any, ...]]:
        return ActorClass, (self._class, self._options)


def _check_group(group: str | None, groups: Sequence[str], what: str) -> None:
    if group is not None and group not in groups:
        raise ValueError(
            f"{what} is to run in the concurrency group {group!r}, and the actor has "
            f"{'only ' + ', '.join(map(repr, groups)) if groups else 'none'}; give the class that group: "
            f"@remote(concurrency_groups={{{group!r}: 2}})"
        )


class ActorCaller:
    """An actor class with options of one use; see `ActorClass.options`."""

    def __init__(self, cls: ActorClass, options: Mapping[str, Any]) -> None:
        self._class = cls
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor."""
        return self._class._create(args, kwargs, self._options)


class ActorHandle:
    """Calls the methods of one actor. The actor lives as long as a handle to it exists anywhere, or until `kill`."""

    def __init__(self, life: ObjectRef, class_name: str, methods: MethodTable, max_task_retries: int) -> None:
        self._life = life
        self._class_name = class_name
        self._methods = methods
        self._max_task_retries = max_task_retries

    def __getattr__(self, name: str) -> ActorMethod:
        if name == "_methods":  # a handle that is just being made
            raise AttributeError(name)
        methods = self._methods.methods
        if name not in methods:
            if name.startswith("_"):
                raise AttributeError(name)
            raise AttributeError(
                f"actor {self._class_name!r} has no method {name!r}; it has "
                f"{', '.join(sorted(one for one in methods if not one.startswith('__ray')))}"
            )
        signature, options = methods[name]
        options = {"max_task_retries": self._max_task_retries, **options}
        found = ActorMethod(self._life, name, self._class_name, signature, options, self._methods.groups)
        self.__dict__[name] = found  # from here on Python finds it without asking again
        return found

    def __dir__(self) -> list[str]:
        return sorted(self._methods.methods)

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
        signature: Signature,
        options: Mapping[str, Any],
        groups: Sequence[str],
    ) -> None:
        self._life, self._name, self._class_name = life, name, class_name
        self._signature, self._options, self._groups = signature, options, groups
        full = with_defaults(options, METHOD_OPTIONS)
        self._spec = CallSpec(
            full["name"] or f"{class_name}.{name}",
            None,
            name,
            num_returns=_count(full["num_returns"]),
            max_retries=full["max_task_retries"],
            retry_exceptions=_retried(full["retry_exceptions"]),
            concurrency_group=full["concurrency_group"],
            backpressure=max(0, full["_generator_backpressure_num_objects"]),
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; calls of one caller run in the order they were made."""
        self._signature.check(self._name, args, kwargs)
        return (engines.peek() or engines.current()).call(self._life, self._spec, args, kwargs)

    def map(self, items: Iterable[Any], *, progress: bool | Report = False) -> Map:
        """A call per item of any iterable, in order; see `RemoteFunction.map`."""
        shown = progress_of(progress, f"{self._class_name}.{self._name}", items)
        return _map(engines.current(), self._spec, self._life, items, self._name, self._signature, shown)

    @staticmethod
    def map_over(methods: Sequence[ActorMethod], items: Iterable[Any], *, progress: bool | Report = False) -> Map:
        """As `map`, over the same method of several actors: each item goes to an actor that has little to do."""
        engine, first = engines.current(), methods[0]
        first._signature.check(first._name, (None,), {})
        calls = [(method._spec, method._life) for method in methods]
        shown = progress_of(progress, f"{first._class_name}.{first._name}", items)
        return Map(engine, Spread(engine, calls), items, len(calls), shown)

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options, for this use only."""
        given = checked(options, METHOD_OPTIONS, f"the method {self._class_name}.{self._name}")
        _check_group(given.get("concurrency_group"), self._groups, f"method {self._name!r} of {self._class_name!r}")
        merged = {**self._options, **given}
        return ActorMethod(self._life, self._name, self._class_name, self._signature, merged, self._groups)

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
        setattr(function, METHOD_ATTRIBUTE, given)
        return function

    if not options:
        raise TypeError("@method needs options, for example @method(num_returns=2)")
    return mark

"""The engine interface in Ray's calls. What stays the same from call to call is kept: little is added to each."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import cloudpickle
import ray

from rlray.core import exceptions as exc
from rlray.core.engine import STREAMING, ActorInfo, CallSpec, Code, Context, Engine, chunked
from rlray.core.mapping import Chunk
from rlray.core.ray import actors, kv
from rlray.core.ray.asking import as_options, check_possible
from rlray.core.ray.chunks import ActorCalls, RayChunk, many
from rlray.core.ray.errors import Failed, Retried, is_client, mapped
from rlray.core.ray.groups import Groups
from rlray.core.ray.hosting import How, task
from rlray.core.ray.refs import Ref, bare, captured, id_of
from rlray.core.ray.streams import Stream
from rlray.core.refs import ObjectRef, ObjectRefGenerator
from rlray.core.resources import Wish
from rlray.core.runtime_env import canonical
from rlray.core.serialization import dumps_error, not_loaded, unpicklable
from rlray.core.signatures import MethodTable
from rlray.core.state import Report
from rlray.core.timeline import Track

_QUICK = 32  # references that `first_ready` looks at
_SETTLING = 5.0  # seconds until a named actor has been announced by whoever made it


class RayEngine(Engine):
    """Tasks and actors of a Ray cluster; in the driver and in every worker that runs user code."""

    def __init__(self, driver: bool, owns: bool = False, grows: bool = True) -> None:
        self._driver = driver
        self._owns = owns  # what `init` has started or connected to, `shutdown` ends
        self.grows = grows  # nodes may come, so that what is impossible now may not be later
        self.one_machine = not grows
        self._groups = Groups(self)
        self._functions: WeakKeyDictionary[Code, dict[Any, Any]] = WeakKeyDictionary()
        self._classes: WeakKeyDictionary[Code, dict[Any, Any]] = WeakKeyDictionary()
        self._closed = False

    @property
    def groups(self) -> Groups:
        return self._groups

    # -- tasks -------------------------------------------------------------------------------------------------------

    def submit(self, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        home = spec.home
        if home is None or home[0] is not self:
            home = spec.home = (self, self._home_of_task(spec))
        return self._start(spec, home[1], args, kwargs)

    def _start(self, spec: CallSpec, remote: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        for value in args:
            if isinstance(value, ObjectRef):
                args, kwargs = bare(args, kwargs, self)
                break
        else:
            if kwargs:
                args, kwargs = bare(args, kwargs, self)
        try:
            made = remote(*args, **kwargs)
        except Exception as why:
            raise self._not_sent(f"an argument of {spec.name}", why) from why
        count = spec.num_returns
        if count == 1:
            return Ref(made, spec.name)
        if count == STREAMING:
            return ObjectRefGenerator(Stream(made))
        return None if count == 0 else [Ref(one, spec.name) for one in made]

    def _not_sent(self, what: str, why: Exception) -> BaseException:
        """What to raise where Ray would not take a value: user-defined pickling may raise anything."""
        self._check_open()
        if isinstance(why, ray.exceptions.RayError):
            return mapped(why)
        if isinstance(why, ValueError) and "placement group" in str(why):
            return ValueError(f"what {what} is for fits no bundle of the placement group that it goes into: {why}")
        return unpicklable(what, why.__cause__ if isinstance(why.__cause__, Exception) else why)

    def _home_of_task(self, spec: CallSpec) -> Any:
        """What to call for a call of ``spec``: Ray's function with its options."""
        self._check_open()
        assert spec.code is not None
        if not self.grows or spec.wish.node:
            check_possible(spec.wish, exc.TaskUnschedulableError, f"task {spec.name!r}")
        how = How(spec.num_returns, spec.retry_exceptions)
        variants = self._functions.setdefault(spec.code, {})
        key = (how, spec.max_calls)
        function = variants.get(key)
        if function is None:
            options = {"max_calls": spec.max_calls, "num_cpus": 0}
            function = variants[key] = ray.remote(**options)(task(spec.code, how))
        return function.options(**self._options(spec), **self._of_call(spec)).remote

    def _options(self, spec: CallSpec) -> dict[str, Any]:
        return as_options(spec.wish) | {"name": spec.name, "max_retries": spec.max_retries}

    def _of_call(self, spec: CallSpec) -> dict[str, Any]:
        """Ray's options for what calls of functions and methods have in common."""
        options: dict[str, Any] = {}
        if spec.retry_exceptions is not False:
            options["retry_exceptions"] = [Retried]
        if spec.num_returns == STREAMING:
            if is_client():
                raise exc.UnsupportedError(
                    f"{spec.name} is a generator, and those cannot be read through ray://; run the program on the "
                    "cluster itself, for example with `ray job submit`, or let it return a list"
                )
            options["num_returns"] = "streaming"
            if spec.backpressure:
                options["_generator_backpressure_num_objects"] = spec.backpressure
        elif spec.num_returns != 1:
            options["num_returns"] = spec.num_returns
        return options

    def chunk(self, spec: CallSpec, actor: ObjectRef | None, items: tuple[Any, ...]) -> Chunk:
        if actor is not None:
            return ActorCalls(self, [self._call_for(spec, actor, item) for item in items])
        assert spec.code is not None
        if len(items) == 1 or any(isinstance(item, ObjectRef) for item in items):
            return super().chunk(spec, None, items)
        whole = chunked(spec)
        if whole.home is None or whole.home[0] is not self:
            whole.home = (self, ray.remote(num_cpus=0)(many(spec.code)))
        options = self._options(spec) | {"num_returns": len(items) + 1}
        try:
            refs = whole.home[1].options(**options).remote(spec.name, spec.retry_exceptions, spec.max_retries, items)
        except Exception:  # an item that cannot be sent is an error in its own place
            return super().chunk(spec, None, items)
        return RayChunk(self, refs)

    def outcomes(self, refs: Sequence[Ref]) -> list[Any]:
        """The values, with `Failed` in the place of errors."""
        try:
            return ray.get([ref.ray for ref in refs])  # type: ignore[no-any-return]
        except Exception:  # the whole chunk failed: each tells why
            return [self._outcome(ref) for ref in refs]

    def _outcome(self, ref: Ref) -> Any:
        try:
            return ray.get(ref.ray)
        except Exception as error:
            return Failed(dumps_error(mapped(error)))

    # -- actors ------------------------------------------------------------------------------------------------------

    def create_actor(
        self,
        code: Code,
        methods: MethodTable,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        asked: Wish,
        options: Mapping[str, Any],
    ) -> ObjectRef:
        self._check_open()
        if not self.grows or asked.node:
            check_possible(asked, exc.ActorUnschedulableError, f"actor {code.name!r}")
        made = self._class_of(code, methods, options["concurrency_groups"])
        taken = ("name", "namespace", "lifetime", "max_restarts", "max_task_retries", "max_concurrency")
        theirs = as_options(asked) | {name: options[name] for name in taken if options[name] is not None}
        if options["get_if_exists"]:
            theirs["get_if_exists"] = True
        retries = options["max_task_retries"]
        try:
            positional, named = bare(args, kwargs, self)
            handle = made.options(**theirs).remote(methods, retries, *positional, **named)
            if options["name"]:
                id_of(handle)  # through Ray's client it is told only here that the name is taken
        except Exception as why:
            if isinstance(why, ValueError) and options["name"] and "already" in str(why):
                raise self._name_taken(options) from why
            raise self._not_sent(f"an argument of {code.name}.__init__", why) from why
        ref = Ref(handle)
        if options["name"]:
            about = (ref.binary(), code.name, methods, retries)
            kv.put(kv.NAMED, self._key(options["name"], options["namespace"]), cloudpickle.dumps(about))
        return ref

    def _name_taken(self, options: Mapping[str, Any]) -> Exception:
        namespace = options["namespace"] or self._namespace()
        return exc.ActorAlreadyExistsError(
            f"an actor named {options['name']!r} already lives in namespace {namespace!r}; "
            "choose another name, or pass get_if_exists=True"
        )

    def _class_of(self, code: Code, methods: MethodTable, groups: Mapping[str, int] | None) -> Any:
        variants = self._classes.setdefault(code, {})
        key = tuple(sorted((groups or {}).items()))
        if key not in variants:
            variants[key] = actors.actor_class(code, methods, groups)
        return variants[key]

    def call(self, actor: ObjectRef, spec: CallSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        home = spec.home
        if home is None or home[0] is not self:
            home = spec.home = (self, self._home_of_call(actor, spec))
        remote, before = home[1]
        return self._start(spec, remote, (*before, *args) if before else args, kwargs)

    def _home_of_call(self, actor: ObjectRef, spec: CallSpec) -> tuple[Any, tuple[Any, ...]]:
        """What to call for a call of ``spec``, and what to give it before the arguments."""
        self._check_open()
        plain = spec.num_returns == 1 and spec.retry_exceptions is False and not spec.method.startswith("__")
        method = spec.method if plain else actors.STREAM if spec.num_returns == STREAMING else actors.ANY
        options = {"name": spec.name, **self._of_call(spec)}
        if spec.max_retries:
            options["max_task_retries"] = spec.max_retries
        if spec.concurrency_group:
            if is_client():
                raise exc.UnsupportedError(
                    f"{spec.name} names a concurrency group, which ray:// does not pass on; run the program on the "
                    "cluster itself, for example with `ray job submit`"
                )
            options["concurrency_group"] = spec.concurrency_group
        before = () if plain else (spec.method, How(spec.num_returns, spec.retry_exceptions))
        return getattr(self.their(actor), method).options(**options).remote, before

    def find_actor(self, name: str, namespace: str | None) -> tuple[ObjectRef, ActorInfo]:
        self._check_open()
        try:
            ref = Ref(ray.get_actor(name, namespace=namespace))
        except ValueError as why:
            where = namespace or self._namespace()
            raise ValueError(f"there is no living actor named {name!r} in namespace {where!r}") from why
        return ref, self._about(ref, name, namespace)

    def _about(self, ref: Ref, name: str, namespace: str | None) -> ActorInfo:
        deadline = time.monotonic() + _SETTLING
        while True:
            data = kv.get(kv.NAMED, self._key(name, namespace))
            if data is not None:
                actor_id, class_name, methods, retries = pickle.loads(data)
                if actor_id == ref.binary():
                    return ActorInfo(actor_id, class_name, methods, retries)
            if time.monotonic() > deadline:
                raise ValueError(
                    f"the actor named {name!r} was not made by rlray, so nothing is known of its methods; "
                    "use ray.get_actor()"
                )
            time.sleep(0.01)

    def named_actors(self) -> list[tuple[str, str]]:
        self._check_open()
        found = ray.util.list_named_actors(all_namespaces=True)
        return [(one["namespace"], one["name"]) for one in found]

    def kill(self, actor: ObjectRef, no_restart: bool) -> None:
        self._check_open()
        ray.kill(self.their(actor), no_restart=no_restart)

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        self._check_open()
        try:
            ray.cancel(self.their(ref), force=force, recursive=recursive)
        except ValueError as why:
            if not force:
                raise
            text = "force=True cannot cancel an actor's method; use kill(actor) to end the actor"
            raise ValueError(text) from why

    # -- objects -----------------------------------------------------------------------------------------------------

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        try:
            if len(refs) == 1:
                values = [ray.get(self.their(refs[0]), timeout=timeout)]
            else:
                values = ray.get([self.their(ref) for ref in refs], timeout=timeout)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # user-defined unpickling may raise anything
            self._check_open()
            ours = mapped(error)
            if ours is error:
                raise not_loaded("a value", error) from error
            if isinstance(ours, exc.GetTimeoutError):
                ours = exc.GetTimeoutError(f"get timed out after {timeout:g} s; {self._missing(refs)}")
            raise ours from ours.__cause__ or error
        for value in values:
            if type(value) is Failed:
                raise value.error()
        return values

    def _missing(self, refs: Sequence[ObjectRef]) -> str:
        ready, rest = self.wait(list(dict.fromkeys(refs)), len(set(refs)), 0)
        names = [getattr(ref, "maker", "") or "a value" for ref in rest]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"still missing {len(rest)} of {len(ready) + len(rest)} values: {', '.join(names[:3])}{more}"

    def put(self, value: Any) -> ObjectRef:
        try:
            return Ref(ray.put(value))
        except Exception as why:
            raise self._not_sent("a value given to put()", why) from why

    def failed(self, error: Exception) -> ObjectRef:
        return Ref(ray.put(Failed(dumps_error(error))))

    def empty(self, shape: Any, dtype: Any, order: Literal["C", "F"]) -> Any:
        import numpy as np

        from rlray.core.views import layout

        lengths, kind, _ = layout(shape, dtype, order)
        return np.empty(lengths, kind, order)

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None, fetch_local: bool = True
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        self._check_open()
        theirs = {self.their(ref): ref for ref in refs}
        ready, rest = ray.wait(list(theirs), num_returns=num_returns, timeout=timeout, fetch_local=fetch_local)
        return [theirs[one] for one in ready], [theirs[one] for one in rest]

    def first_ready(self, refs: Sequence[ObjectRef]) -> int | None:
        first = refs[:_QUICK]
        if len(set(map(id, refs))) != len(refs) or not all(type(ref) is Ref for ref in first):
            return None
        theirs = [ref.ray for ref in first]  # type: ignore[attr-defined]
        ready, _ = ray.wait(theirs, timeout=0)
        return theirs.index(ready[0]) if ready else None

    def adopt(self, object_id: bytes) -> ObjectRef:
        found = captured.get(object_id)
        if found is None:
            raise exc.ObjectLostError(f"the value of {object_id.hex()} was freed already")
        return found

    def claim(self, object_id: bytes) -> ObjectRef:
        return Ref(ray.get_runtime_context().current_actor)

    def their(self, ref: ObjectRef) -> Any:
        """Ray's reference. Raises ValueError for a reference of another run."""
        if type(ref) is not Ref:
            raise ValueError(f"{ref!r} belongs to a run that has ended; its value is gone")
        return ref.ray

    # -- the rest ----------------------------------------------------------------------------------------------------

    def resources(self) -> tuple[dict[str, float], dict[str, float]]:
        self._check_open()
        total, free = ray.cluster_resources(), ray.available_resources()
        return total, {name: free.get(name, 0.0) for name in total}

    def nodes(self) -> list[dict[str, Any]]:
        self._check_open()
        return list(ray.nodes())

    def context(self) -> Context:
        self._check_open()
        theirs = ray.get_runtime_context()
        fields: dict[str, Any] = {"job_id": theirs.get_job_id(), "node_id": theirs.get_node_id()}
        fields |= {"worker_id": theirs.get_worker_id(), "namespace": theirs.namespace}
        if self._driver:
            return Context(**fields)
        host = actors.here
        fields |= {
            "task_id": theirs.get_task_id(),
            "task_name": theirs.get_task_name(),
            "resources": theirs.get_assigned_resources(),
            "gpu_ids": tuple(map(str, ray.get_gpu_ids())),
            "placement_group_id": theirs.get_placement_group_id(),
            "captures": theirs.should_capture_child_tasks_in_placement_group,
            "environment": canonical(_known_part(theirs.runtime_env)),
        }
        if host is not None:
            fields |= {
                "actor_id": theirs.get_actor_id(),
                "actor_name": theirs.get_actor_name() or "",
                "actor": host.info,
                "was_restarted": _restarted(theirs.get_actor_id()),
            }
        return Context(**fields)

    def inspect(self, kind: str, **options: Any) -> Report:
        raise exc.UnsupportedError(f"what rlray tells of {kind} it knows of its own engines only; {_RAYS_TOOLS}")

    def tracks(self) -> list[Track]:
        raise exc.UnsupportedError(f"rlray notes what calls took on its own engines only; {_RAYS_TOOLS}")

    def note(self, began: float, seconds: float, name: str) -> None:
        """Spans of user code are not kept."""

    def shutdown(self) -> None:
        if not self._closed:
            self._closed = True
            if self._owns:
                ray.shutdown()

    def forked(self) -> Engine | None:
        return None  # Ray's threads are gone there

    def _check_open(self) -> None:
        if self._closed or not ray.is_initialized():
            raise RuntimeError("rlray was shut down")

    def _namespace(self) -> str:
        return str(ray.get_runtime_context().namespace)

    def _key(self, name: str, namespace: str | None) -> str:
        return f"{namespace or self._namespace()}\0{name}"


def _restarted(actor_id: str) -> bool:
    """Whether that actor was started again. Ray's own property for it warns of another one that it uses."""
    about = ray._private.state.actors(actor_id=actor_id)
    return bool(about) and about["NumRestarts"] != 0


_RAYS_TOOLS = (
    "on a Ray cluster use Ray's: its dashboard, `ray list tasks`, `ray memory`, `ray timeline`, ray.util.state"
)


def _known_part(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that rlray knows too."""
    return {name: environment[name] for name in ("env_vars",) if name in environment}

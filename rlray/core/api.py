"""The functions a program calls: Ray's names and meanings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from rlray.core import engine as engines
from rlray.core.engine import Context, Engine
from rlray.core.exceptions import ActorExit
from rlray.core.refs import ObjectRef, ObjectRefGenerator
from rlray.core.remote import ActorClass, ActorHandle, RemoteFunction
from rlray.core.runtime_env import RuntimeEnv, known_good, parsed

if TYPE_CHECKING:
    import numpy as np


def ensure_running() -> Engine:
    """The engine of this process, started with defaults if there is none, as Ray does at the first remote call."""
    if not engines.running():
        from rlray.core.starting import init

        init(ignore_reinit_error=True)
    return engines.current()


def shutdown() -> None:
    """End every process of the runtime and free all memory. Calling it again is harmless."""
    if engines.running():
        engine = engines.current()
        engines.set_current(None)
        engine.shutdown()


def is_initialized() -> bool:
    """Whether the runtime is up in this process."""
    return engines.running()


def remote(*args: Any, **options: Any) -> Any:
    """Make a function a task, or a class an actor: ``@remote`` or ``@remote(num_cpus=2, ...)``.

    Raises: TypeError for something that is neither, or for an unknown option (the message lists the valid ones);
    ValueError for a wrong value of an option.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return _make_remote(args[0], {})
    if args or not options:
        raise TypeError(
            "@remote takes a function or class and nothing else, or keyword options: @remote or @remote(num_cpus=2)"
        )
    return lambda target: _make_remote(target, options)


def _make_remote(target: Any, options: Mapping[str, Any]) -> RemoteFunction | ActorClass:
    if inspect.isclass(target):
        return ActorClass(target, options)
    if inspect.isfunction(target) or inspect.isbuiltin(target):
        return RemoteFunction(target, options)
    raise TypeError(f"@remote takes a function or a class, got {target!r}")


def get(refs: ObjectRef | Sequence[ObjectRef], *, timeout: float | None = None) -> Any:
    """The value of a reference, or the list of values of a list of references.

    Guarantees: arrays of more than 100 KB are views of shared memory, not copies, and read-only; they stay valid as
    long as they are referenced (``array.copy()`` gives one to write to; a tensor that ``torch.from_numpy`` makes of one
    must not be written to, as torch warns). Torch tensors on the CPU are no copies either; torch lets them be written
    to, and what is written is seen in that one result only. While a task waits here, its CPU
    is lent to others.

    Raises: the error of the first task that failed (an instance of the original's class and of RayTaskError);
    GetTimeoutError after ``timeout`` seconds, saying what is missing; TypeError for anything but references.
    """
    engine = engines.peek() or ensure_running()
    if isinstance(refs, ObjectRef):
        return engine.get((refs,), timeout)[0]
    return engine.get(_reference_list(refs, "get"), timeout)


def put(value: Any) -> ObjectRef:
    """Store a value once, for any number of readers; returns its reference.

    Guarantees: arrays and tensors are copied once, those of `empty` not at all. When memory is full, values of this
    process that nobody reads or holds elsewhere at this moment go to disk; they are read from there like any others.

    Raises: TypeError for a reference (it would be a reference to a reference) or something that cannot be pickled;
    ObjectStoreFullError if there is no room for a while; it says who holds what.
    """
    if isinstance(value, ObjectRef):
        raise TypeError(
            "put() takes a value, got a reference; pass the reference itself on, or wrap it in a list: put([ref])"
        )
    return (engines.peek() or ensure_running()).put(value)


_MANY = 100  # references that take long to look at one by one
Waitable = ObjectRef | ObjectRefGenerator


def empty(shape: int | Sequence[int], dtype: Any = float, *, order: Literal["C", "F"] = "C") -> np.ndarray[Any, Any]:
    """An array of arbitrary content that already lies in the object store, as ``numpy.empty``.

    Guarantees: when the whole array (or a reshaped or transposed view of all of it, or a tensor that shares its memory)
    is returned from a task or an actor's method, or given to `put`, alone or inside another value, nothing is copied,
    and the array is read-only from then on. Giving it away again shares the same memory. Its memory is free again
    when the array, its views, and all values that it is part of are gone. Of an array that was only partly given
    away, that part is copied as usual, and the array stays writable. Arrays of up to 100 KB, which travel inside
    messages, are ordinary ones of numpy.

    Do not write through views made before the array was given away: numpy does not know them, so they stay writable,
    and readers would see what is written.

    Raises: TypeError for a dtype that holds Python objects; ValueError for another order than "C" or "F", or a
    shape that numpy refuses; ObjectStoreFullError if there is no room.
    """
    return ensure_running().empty(shape, dtype, order)  # type: ignore[no-any-return]


def wait(
    refs: Sequence[Waitable], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Any], list[Any]]:
    """Wait until ``num_returns`` of ``refs`` have a value or an error, or ``timeout`` seconds have passed.

    Returns (ready, rest), both in the order of ``refs``; ready has at most ``num_returns``. A generator is ready when
    its next reference is, or its end. On a Ray cluster ``fetch_local=False`` leaves values where they are; on one
    machine everything is local.

    Raises: TypeError for anything but a list of references and generators; ValueError for duplicates, or a
    ``num_returns`` that is not between 1 and their number.
    """
    if type(refs) is list and num_returns == 1 and len(refs) > _MANY:
        at = (engines.peek() or ensure_running()).first_ready(refs)
        if at is not None:  # what lies behind is looked at when its turn comes
            return [refs[at]], refs[:at] + refs[at + 1 :]
    if isinstance(refs, list | tuple) and ObjectRefGenerator in set(map(type, refs)):
        return _wait_for_generators(refs, num_returns, timeout, fetch_local)
    checked = _reference_list(refs, "wait")
    if len(set(checked)) != len(checked):
        raise ValueError("wait() got the same reference more than once; pass each once")
    if not checked:
        return [], []
    if not 1 <= num_returns <= len(checked):
        raise ValueError(f"num_returns must be between 1 and the {len(checked)} references given, got {num_returns!r}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must not be negative, got {timeout!r}")
    return (engines.peek() or ensure_running()).wait(checked, num_returns, timeout, fetch_local)


def _wait_for_generators(
    waitables: Sequence[Waitable], num_returns: int, timeout: float | None, fetch_local: bool
) -> tuple[list[Any], list[Any]]:
    """`wait` with generators among the references: the reference to its next value stands for each."""
    stands_for = {one.upcoming() if isinstance(one, ObjectRefGenerator) else one: one for one in waitables}
    if len(stands_for) != len(waitables):
        raise ValueError("wait() got the same reference more than once; pass each once")
    ready, rest = wait(list(stands_for), num_returns=num_returns, timeout=timeout, fetch_local=fetch_local)
    return [stands_for[ref] for ref in ready], [stands_for[ref] for ref in rest]


def _reference_list(refs: Any, what: str) -> Sequence[ObjectRef]:
    if not isinstance(refs, list | tuple):
        raise TypeError(f"{what}() takes a reference or a list of references, got {type(refs).__name__}")
    for kind in set(map(type, refs)):
        if not issubclass(kind, ObjectRef):
            [wrong, *_] = [ref for ref in refs if type(ref) is kind]
            raise TypeError(f"{what}() takes references, got a {kind.__name__} among them: {wrong!r}")
    return refs


def cancel(ref: Waitable, *, force: bool = False, recursive: bool = True) -> None:
    """Stop the task behind ``ref`` if it has not finished; `get` then raises TaskCancelledError.

    A waiting task never starts. A running one gets a KeyboardInterrupt; with ``force`` its process is killed. With
    ``recursive`` the tasks it has submitted are cancelled too.

    Raises: TypeError for anything but a reference; ValueError for ``force`` on an actor's method.
    """
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel() takes a reference, got {type(ref).__name__} {ref!r}; to end an actor use kill()")
    ensure_running().cancel(ref, force, recursive)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor's process at once; calls under way raise RayActorError. With ``no_restart=False`` it may restart."""
    if not isinstance(actor, ActorHandle):
        raise TypeError(
            f"kill() takes an actor handle, got {type(actor).__name__} {actor!r}; to stop a task use cancel()"
        )
    ensure_running().kill(actor._life, no_restart)


def exit_actor() -> NoReturn:
    """End the actor whose method calls this, for good; it is not restarted.

    The call that does so raises ActorDiedError in its caller, and so do those behind it. Raises TypeError outside of
    an actor.
    """
    if ensure_running().context().actor_id is None:
        raise TypeError("exit_actor() ends the actor whose method calls it, and was called outside of an actor")
    raise ActorExit


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle to the living actor of that name. Raises ValueError if there is none."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"get_actor() takes the name of an actor, got {name!r}")
    life, info = ensure_running().find_actor(name, namespace)
    return ActorHandle(life, info.class_name, info.methods, info.max_task_retries)


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names of living actors in this namespace, sorted. Ray's ``ray.util.list_named_actors``.

    With ``all_namespaces``, instead ``{"name": ..., "namespace": ...}`` for each in any namespace.
    """
    engine = ensure_running()
    found = sorted(engine.named_actors())
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in found]
    here = engine.context().namespace
    return [name for namespace, name in found if namespace == here]


def cluster_resources() -> dict[str, float]:
    """Amounts by name that the runtime has in all."""
    return ensure_running().resources()[0]


def available_resources() -> dict[str, float]:
    """Amounts by name that are free now."""
    return ensure_running().resources()[1]


def nodes() -> list[dict[str, Any]]:
    """The machines of the run, as Ray describes them. Unless it runs on a Ray cluster there is one."""
    return ensure_running().nodes()


def get_gpu_ids() -> list[int | str]:
    """The ids of the GPUs that the calling task or actor was given, as in CUDA_VISIBLE_DEVICES: numbers or UUIDs."""
    return [int(gpu) if gpu.isdigit() else gpu for gpu in ensure_running().context().gpu_ids]


class RuntimeContext:
    """Where the calling code runs. Ids are hex strings, None where they do not apply."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def get_job_id(self) -> str:
        """The run."""
        return self._context.job_id

    def get_node_id(self) -> str:
        """The machine."""
        return self._context.node_id

    def get_worker_id(self) -> str:
        """The process."""
        return self._context.worker_id

    def get_task_id(self) -> str | None:
        """The running task or method call."""
        return self._context.task_id

    def get_task_name(self) -> str | None:
        """The running task's name."""
        return self._context.task_name

    def get_actor_id(self) -> str | None:
        """The actor that this process is."""
        return self._context.actor_id

    def get_actor_name(self) -> str | None:
        """The name that actor was given."""
        return self._context.actor_name

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task or actor was given."""
        return dict(self._context.resources)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Ids of assigned accelerators by kind."""
        return {"GPU": list(self._context.gpu_ids)}

    def get_placement_group_id(self) -> str | None:
        """The placement group that this code runs in."""
        return self._context.placement_group_id

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what is started here goes into the same placement group."""
        return self._context.captures

    @property
    def runtime_env(self) -> RuntimeEnv:
        """What this code was set up with, and its tasks and actors are by default."""
        return known_good(parsed(self._context.environment))

    def get_runtime_env_string(self) -> str:
        """The same as JSON."""
        return self._context.environment or "{}"

    @property
    def current_actor(self) -> ActorHandle:
        """A handle to the actor that this process is. Raises RuntimeError outside of an actor."""
        info = self._context.actor
        if info is None:
            raise RuntimeError("current_actor is only there inside an actor")
        life = engines.current().claim(info.id)
        return ActorHandle(life, info.class_name, info.methods, info.max_task_retries)

    @property
    def namespace(self) -> str:
        """Where named actors are looked for."""
        return self._context.namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor has been restarted."""
        return self._context.was_restarted


def get_runtime_context() -> RuntimeContext:
    """Where the calling code runs."""
    return RuntimeContext(ensure_running().context())


__all__ = [
    "ActorClass",
    "ActorHandle",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "RuntimeContext",
    "available_resources",
    "cancel",
    "cluster_resources",
    "empty",
    "exit_actor",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "is_initialized",
    "kill",
    "list_named_actors",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
]

"""``init``: the first process is started before the rest of the runtime is imported, so that both happen at once."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING

from rlray.core.local.spawn import Spawned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rlray.core.engine import Context, Engine

_init_lock = threading.RLock()
os.register_at_fork(before=_init_lock.acquire, after_in_parent=_init_lock.release, after_in_child=_init_lock.release)


def init(
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_memory: int | None = None,
    object_spilling_directory: str | os.PathLike[str] | None = None,
    memory: float | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    namespace: str | None = None,
    ignore_reinit_error: bool = False,
    log_to_driver: bool = True,
    fold_logs: bool = True,
    log_dir: str | os.PathLike[str] | None = None,
    preload: Sequence[str] = (),
    timeline: bool = False,
    engine: str | None = None,
    address: str | None = None,
) -> Context:
    """Start the runtime on this machine, or connect to a Ray cluster; returns when it is ready.

    Guarantees: when this process ends, by whatever signal, every process and all memory of the runtime is gone within
    two seconds.

    With ``engine="inline"`` there are no other processes: a task runs in the calling thread before ``.remote()``
    returns, so that breakpoints, prints and profilers work in it. Programs give the same results, because everything
    else is as with processes: arguments and results are copies, arrays read-only, errors raised by `get`, code that
    travels by value has globals of its own. What is different:

    * Modules exist once: what a task does to an imported module, to ``os.environ`` or to a class, all see.
      ``os._exit`` and crashes in a task end the program; Ctrl-C is the running task's error. No runtime environments.
    * A call runs in a thread of its own if it cannot run at once: an argument is not there yet, or the caller is a
      coroutine of an actor. Calls of an actor that is in another call run when that one has ended. Coroutines run on a
      loop in a thread of their actor, calls of actors with ``max_concurrency`` in threads.
    * A generator runs item by item, as its values are asked for; one that is dropped unread is closed.
    * Nothing waits for resources: those that are taken are shared. Placement groups are placed at once.
      CUDA_VISIBLE_DEVICES is left alone.
    * A call that runs cannot be cancelled, nor stopped by `kill`, unless it is a coroutine.

    With an ``address`` the program runs on Ray (``pip install "rlray[ray]"``), with Ray's scheduler and object store;
    docs/cluster.md says what is different there.

    Args:
        num_cpus: How many CPUs tasks may take together; all of the machine's by default. It may be more than the
            machine has.
        num_gpus: How many GPUs; those that CUDA may use by default.
        resources: Amounts of further resources by name, for tasks and actors that ask for them.
        object_store_memory: Bytes of shared memory at most; 30 % of the machine's by default. Taken only as used.
        object_spilling_directory: Where values go that do not fit in memory; a folder of the run in the place for
            temporary files by default. What was written there is removed at the end.
        memory: Bytes of memory that tasks and actors may book with ``memory=``; by default what the machine has
            less the object store. Booking sets nothing aside and limits nothing: it decides who runs at once.
        runtime_env: What all tasks and actors are set up with, see `rlray.core.runtime_env.RuntimeEnv`.
        namespace: Where named actors live if nothing else is said; one of its own by default.
        ignore_reinit_error: Do nothing if the runtime is up, instead of raising.
        log_to_driver: Print what workers print, prefixed ``(function pid=...)``, ``(Class pid=...)`` or
            ``(Class:name pid=...)``.
        fold_logs: Print what several workers running the same function or class print alike once, and five seconds
            later how many others did. What differs in anything is printed, and what one worker repeats.
        log_dir: Where the workers' full logs go, two files for each, ``worker-N-pidP[-Class[-name]].out`` and ``.err``;
            by default they are removed at the end.
        preload: Modules that every worker needs, imported once before the first worker is forked.
        timeline: Note every call for `rlray.timeline`, however short; those of a millisecond or more always are.
        engine: "local" for worker processes (the default), "inline", or "ray" (the default with an ``address``).
            "inline" ignores the store's size and spilling directory, logs and ``preload``; it refuses a
            ``runtime_env``. "ray" leaves ``fold_logs``, ``log_dir``, ``preload`` and ``timeline`` to Ray.
        address: Of a Ray cluster: "auto" for the one that this machine belongs to, "host:port", or "ray://host:port"
            for Ray's client; "local-ray" starts one of this machine alone. A cluster that is there knows what its
            machines have, so arguments that say it raise ValueError.

    Raises:
        ValueError: There is no such engine, or an argument is wrong.
        RuntimeError: The runtime is up already.
        RaySystemError: Its processes did not start; the message has their last words.
        ImportError: Ray is needed and not installed.
        ConnectionError: There is no cluster at the address.
    """
    with _init_lock:
        running = _running()
        if running is not None:
            if ignore_reinit_error:
                return running.context()
            raise RuntimeError(
                "rlray.init() was called before; call rlray.shutdown() first, or pass ignore_reinit_error=True"
            )
        common: dict[str, Any] = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "resources": resources,
            "memory": memory,
            "runtime_env": runtime_env,
            "namespace": namespace,
            "timeline": timeline,
        }
        engine = engine or ("local" if address is None else "ray")
        if address is not None and engine != "ray":
            raise ValueError(f"address of init() is that of a Ray cluster, and engine is {engine!r}; leave one out")
        if engine == "local":
            started = _start_processes(
                object_store_memory=object_store_memory,
                object_spilling_directory=object_spilling_directory,
                log_to_driver=log_to_driver,
                fold_logs=fold_logs,
                log_dir=log_dir,
                preload=preload,
                **common,
            )
        elif engine == "inline":
            from rlray.core.inline.engine import start

            started = start(**common)
        elif engine == "ray":
            from rlray.core.ray.starting import start as connect

            del common["timeline"]
            started = connect(
                address=address,
                object_store_memory=object_store_memory,
                object_spilling_directory=object_spilling_directory,
                log_to_driver=log_to_driver,
                **common,
            )
        else:
            raise ValueError(f"engine of init() must be 'local', 'inline' or 'ray', got {engine!r}")
        from rlray.core.api import shutdown
        from rlray.core.engine import set_current

        atexit.register(shutdown)
        set_current(started)
        return started.context()


def _running() -> Engine | None:
    if "rlray.core.engine" not in sys.modules:  # importing it now would take time that the first process can use
        return None
    from rlray.core.engine import peek  # waits for a thread that is importing it

    return peek()


def _start_processes(**arguments: Any) -> Engine:
    spawned = Spawned()
    try:
        import rlray.core.api  # noqa: F401  # while the first process starts
        from rlray.core.local.launch import start

        return start(spawned, **arguments)
    except BaseException:
        spawned.abandon()
        raise

"""``init``: the first process is started before the rest of the runtime is imported, so that both happen at once."""

from __future__ import annotations

import atexit
import sys
import threading
from typing import TYPE_CHECKING

from rlray.core.local.spawn import Spawned

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rlray.core.engine import Context

_init_lock = threading.Lock()


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
    log_dir: str | os.PathLike[str] | None = None,
    preload: Sequence[str] = (),
) -> Context:
    """Start the runtime on this machine; returns when it is ready.

    Guarantees: when this process ends, by whatever signal, every process and all memory of the runtime is gone within
    two seconds.

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
        log_to_driver: Print what workers print, prefixed ``(name pid=...)``.
        log_dir: Where the workers' full logs go; by default they are removed at the end.
        preload: Modules that every worker needs, imported once before the first worker is forked.

    Raises:
        RuntimeError: The runtime is up already.
        RaySystemError: Its processes did not start; the message has their last words.
    """
    with _init_lock:
        engines = sys.modules.get("rlray.core.engine")  # not imported: nothing runs
        if engines is not None and engines.running():
            if ignore_reinit_error:
                return engines.current().context()  # type: ignore[no-any-return]
            raise RuntimeError(
                "rlray.init() was called before; call rlray.shutdown() first, or pass ignore_reinit_error=True"
            )
        spawned = Spawned()
        try:
            from rlray.core.api import shutdown  # while the first process starts
            from rlray.core.engine import set_current
            from rlray.core.local.launch import start

            started = start(
                spawned,
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                resources=resources,
                object_store_memory=object_store_memory,
                object_spilling_directory=object_spilling_directory,
                memory=memory,
                runtime_env=runtime_env,
                namespace=namespace,
                log_to_driver=log_to_driver,
                log_dir=log_dir,
                preload=preload,
            )
        except BaseException:
            spawned.abandon()
            raise
        atexit.register(shutdown)
        set_current(started)
        return started.context()

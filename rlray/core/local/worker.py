"""What a forked worker does before it serves."""

from __future__ import annotations

import os
import random
import signal
import sys

from rlray.core.engine import set_current
from rlray.core.local.client import Client
from rlray.core.local.executor import Executor
from rlray.core.local.logs import WorkerOutput
from rlray.core.local.settings import RunSettings
from rlray.core.local.stuck import Stuck
from rlray.core.local.threads import THREAD_VARIABLES


def main(settings: RunSettings, process: int, threads: int, gpus: tuple[str, ...]) -> None:
    """Serve as process number ``process`` of the run, computing with ``threads`` threads and seeing ``gpus``.

    Returns only if the run is over before it has begun to.
    """
    output = WorkerOutput(settings.names_directory, settings.log_directory, process)
    Stuck(settings.stack_path(process)).answer(crashes=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if not settings.threads_set:
        _plan_threads(threads)
    _reseed()
    try:
        client = Client(settings, process)
    except (ConnectionError, FileNotFoundError):
        return  # the node has ended, and with it the run, before this process was there: nobody is left to tell
    executor = Executor(client, gpus, output)
    client.hooks = executor
    set_current(client)
    client.tell_node(("hello",))
    client.loop.start_background()
    executor.run()


def _plan_threads(threads: int) -> None:
    """Set the number of threads for libraries that are imported later and for torch if it is here already."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _reseed() -> None:
    """Forked copies of a random generator must not all give the same numbers."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()

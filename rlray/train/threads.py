"""How many threads an actor's numerical libraries may use: as many as the CPUs that it asked for."""

from __future__ import annotations

import math

from rlray.core.resources import count_cpus


def count(num_cpus: float) -> int:
    """Threads for a request of ``num_cpus``: fractions rounded up, at least one, no more than there are cores."""
    return min(max(1, math.ceil(num_cpus)), count_cpus())


def limit_torch(num_cpus: float) -> int:
    """Let torch use the threads of ``num_cpus`` in this process; returns how many that is.

    OpenMP's and MKL's own variables are set by the runtime before a worker imports anything; torch's pool is set here
    because the worker may have been forked from a process that had imported torch already.
    """
    import torch

    threads = count(num_cpus)
    torch.set_num_threads(threads)
    return threads

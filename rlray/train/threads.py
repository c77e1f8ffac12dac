"""How an actor's numerical libraries use the machine: threads for the CPUs that it asked for, and memory kept warm."""

from __future__ import annotations

import contextlib
import ctypes
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


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for the next time.

    glibc hands large blocks back to the system when they are freed, and the system clears each page again when the next
    update asks for the same: 7 to 13 % of an update of DQN. What is kept is what the largest update needs, once.
    Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(option, _MOST)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST = 2**30

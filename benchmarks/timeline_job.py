"""What one short call costs its worker: the least of many runs, which others on the machine disturb little.

python timeline_job.py [timeline]: prints nanoseconds from taking a call from the queue to its answer, sending included
but for the system call; with ``timeline`` while every call is noted. Runs on older commits of rlray, too.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import rlray

CALLS = 2_000
RUNS = 100


@rlray.remote
def cost() -> float:
    """Seconds for a call, in the worker that this runs in, on its main thread."""
    from rlray.core.engine import current
    from rlray.core.local.jobs import Job, JobSpec
    from rlray.core.resources import PLAIN

    client: Any = current()
    executor: Any = client.hooks
    spec = JobSpec(bytes(20), "echo", 1, False, PLAIN, False, 0, None, 0)
    executor._functions[spec.target] = lambda x: x
    jobs = [Job(1, spec, number.to_bytes(10, "big"), (1,)) for number in range(CALLS)]
    own, post, best = executor._current, client.post, float("inf")
    executor._queue.append(jobs[0])  # what comes next is as short
    client.post = lambda *_: None
    for _ in range(RUNS):
        begun = time.perf_counter()
        for job in jobs:
            executor._run_on_main(job)
        best = min(best, time.perf_counter() - begun)
    executor.answers.flush()
    executor._queue.clear()
    executor._current, client.post = own, post
    return best / CALLS


def main() -> None:
    rlray.init(num_cpus=1, **({"timeline": True} if "timeline" in sys.argv[1:] else {}))
    print(rlray.get(cost.remote()) * 1e9)
    rlray.shutdown()


if __name__ == "__main__":
    main()

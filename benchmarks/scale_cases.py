"""What the driver of a training run does all day, measured by the CPU time of its thread: waiting, asking, answers."""

from __future__ import annotations

import statistics
import time
from typing import Any

from case import Cases, Run

cases = Cases()


@cases.add("wait", "s")
def wait(run: Run, count: int) -> list[float]:
    """The two calls of ``wait`` of a pass, with ``count`` references of which one is ready."""
    ray = run.ray

    @ray.remote(num_cpus=0)
    class Held:
        def first(self, seconds: float) -> None:
            time.sleep(seconds)

        def then(self) -> None:
            """Never in time."""

    held, free = Held.remote(), Held.remote()
    ray.get(free.then.remote())
    held.first.remote(3_600.0)
    pending = [held.then.remote() for _ in range(count - 1)]
    samples = []
    for _ in range(run.size(30, 2)):
        refs = [*pending, free.then.remote()]
        ray.wait(refs[-1:])
        begin = time.thread_time()
        ray.wait(refs, num_returns=1, timeout=0.2)
        ray.wait(refs, num_returns=len(refs), timeout=0)
        samples.append(time.thread_time() - begin)
    return samples


@cases.add("fragment", "s")
def fragment(run: Run, count: int) -> list[float]:
    """A fragment's two calls and two answers, per fragment, in rounds of ``count`` simulators that play nothing.

    Notes: CPU seconds per call in a simulator and in the learner.
    """
    ray = run.ray
    import numpy as np

    @ray.remote(num_cpus=0)
    class Simulator:
        @ray.method(num_returns=2)
        def rollout(self, weights: Any, version: int, step: int) -> tuple[Any, dict[str, Any]]:
            stats = {"returns": [1.0] * 5, "lengths": [1] * 5, "steps": 1, "version": version}
            return np.zeros(100_000, np.uint8), stats

        def cpu(self) -> float:
            return time.process_time()

    @ray.remote(num_cpus=0)
    class Learner:
        @ray.method(num_returns=2)
        def learn(self, fragment: Any, publish: bool) -> tuple[dict[str, Any], Any]:
            return {"version": 1, "metrics": {str(k): 0.5 for k in range(10)}}, None

        def cpu(self) -> float:
            return time.process_time()

    simulators, learner = [Simulator.remote() for _ in range(count)], Learner.remote()
    weights = ray.put(np.zeros(100_000, np.uint8))

    def once() -> None:
        asked = [one.rollout.remote(weights, 1, 2) for one in simulators]
        answered = [stats for _, stats in asked]
        ray.wait(answered, num_returns=count)
        learned = []
        for played, stats in asked:
            ray.get(stats)
            learned.append(learner.learn.remote(played, True))
        reports = [report for report, _ in learned]
        ray.wait(reports, num_returns=count)
        for report in reports:
            ray.get(report)

    once()
    begins = [ray.get(actor.cpu.remote()) for actor in (simulators[0], learner)]
    rounds, samples = run.size(60, 2), []
    for _ in range(rounds):
        begin = time.thread_time()
        once()
        samples.append((time.thread_time() - begin) / count)
    ends = [ray.get(actor.cpu.remote()) for actor in (simulators[0], learner)]
    run.notes["simulator"] = (ends[0] - begins[0]) / rounds
    run.notes["learner"] = (ends[1] - begins[1]) / rounds / count
    run.notes["mean"] = statistics.mean(samples)
    return samples


@cases.add("copy", "s")
def copy(run: Run, count: int) -> list[float]:
    """CPU seconds of a ``put`` of ``count`` bytes, once the store is warm."""
    import numpy as np

    data = np.zeros(count, np.uint8)
    samples = []
    for _ in range(run.size(20, 2) + 3):
        begin = time.process_time()
        ref = run.ray.put(data)
        samples.append(time.process_time() - begin)
        del ref
    return samples[3:]

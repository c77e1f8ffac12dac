"""Who gets which part of the machine. Decided, and checked, before any actor starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlray.train import threads
from rlray.train.failures import ResourcesTooSmall

Amount = float | Literal["auto"]

MAX_LEARNER_CPUS = 16.0
"""What ``auto`` gives the learner at most: beyond that, networks of this size gain nothing from threads."""


@dataclass(frozen=True)
class Plan:
    """What each actor asks for. Driver and evaluator ask for nothing: they fill the gaps that the others leave."""

    simulators: int
    simulator_cpus: float
    learner_cpus: float
    learner_gpus: float
    evaluator_cpus: float = 0.0
    tasks: bool = False  # instead of simulators: so many a round, which wait for their turn, ...
    tasks_at_once: int = 0  # ... as many of them as there is room for

    def __str__(self) -> str:
        players = "task(s) a round" if self.tasks else "simulator(s)"
        gpu = f" and {self.learner_gpus:g} GPU" if self.learner_gpus else ""
        return (
            f"{self.simulators} {players} with {self.simulator_cpus:g} CPU and {threads.count(self.simulator_cpus)} "
            f"thread(s) each; learner with {self.learner_cpus:g} CPU{gpu} and {threads.count(self.learner_cpus)} "
            f"thread(s); evaluator with {threads.count(self.evaluator_cpus)} thread(s)"
        )


def make_plan(
    simulators: int, simulator_cpus: Amount, learner_cpus: Amount, learner_gpus: Amount, total: Mapping[str, float]
) -> Plan:
    """Share ``total`` (amounts by resource name) among the actors.

    ``auto`` for a simulator is one CPU, or its share of half the machine where there are too few; for the learner
    what the simulators leave, one CPU if it has a GPU; for GPUs one if there is any.

    Raises: ResourcesTooSmall if it does not fit, naming what is asked for and what there is.
    """
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    gpu = (1.0 if gpus >= 1 else 0.0) if learner_gpus == "auto" else learner_gpus
    for_simulators = max(cpus - learner_cpus if learner_cpus != "auto" else cpus / 2, cpus - MAX_LEARNER_CPUS)
    each = _down(min(1.0, for_simulators / simulators)) if simulator_cpus == "auto" else simulator_cpus
    left = cpus - simulators * each
    learner = _down(min(left, 1.0 if gpu else MAX_LEARNER_CPUS)) if learner_cpus == "auto" else learner_cpus
    asked = simulators * each + learner
    nothing_left = (simulator_cpus == "auto" and each <= 0) or (learner_cpus == "auto" and learner <= 0)
    if asked > cpus + 1e-6 or gpu > gpus or nothing_left:
        raise ResourcesTooSmall(
            f"the run asks for {simulators} simulator(s) × {each:g} CPU + learner {learner:g} CPU and {gpu:g} GPU, but "
            f"there are {cpus:g} CPU and {gpus:g} GPU; lower simulators.count, simulators.num_cpus, learner.num_cpus "
            "or learner.num_gpus ('auto' fits any machine)"
        )
    return Plan(simulators, each, learner, gpu)


def make_task_plan(
    tasks: int, task_cpus: Amount, learner_cpus: Amount, learner_gpus: Amount, total: Mapping[str, float]
) -> Plan:
    """The same where tasks play: as many at once as ``total`` has room for.

    ``auto`` is one CPU for a task, and for the learner none, CPU or GPU: it learns while the tasks wait.

    Raises: ResourcesTooSmall if not even one task fits beside the learner.
    """
    each = 1.0 if task_cpus == "auto" else task_cpus
    learner = 0.0 if learner_cpus == "auto" else learner_cpus
    gpu = 0.0 if learner_gpus == "auto" else learner_gpus
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    if each + learner > cpus + 1e-6 or gpu > gpus:
        raise ResourcesTooSmall(
            f"the run asks for {each:g} CPU for a task + learner {learner:g} CPU and {gpu:g} GPU, but there are "
            f"{cpus:g} CPU and {gpus:g} GPU; lower simulators.num_cpus, learner.num_cpus or learner.num_gpus ('auto' "
            "fits any machine)"
        )
    at_once = min(tasks, int((cpus - learner) / each + 1e-6)) if each else tasks
    return Plan(tasks, each, learner, gpu, tasks=True, tasks_at_once=at_once)


def _down(amount: float) -> float:
    """Whole CPUs as they are, fractions rounded down to what the runtime keeps."""
    return float(math.floor(amount)) if amount >= 1 else math.floor(amount * 1000) / 1000

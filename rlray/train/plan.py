"""Who gets which part of the machine. Decided, and checked, before any actor starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlray.config.schema import LearnerConfig, SimulatorsConfig
from rlray.train import threads
from rlray.train.failures import ResourcesTooSmall

MAX_LEARNER_CPUS = 16.0
"""What ``auto`` gives the learner at most: beyond that, networks of this size gain nothing from threads."""


@dataclass(frozen=True)
class Share:
    """What the simulators of one group ask for."""

    group: str
    simulators: int
    cpus: float  # each
    what: str = "simulator(s)"  # or tasks, which wait for their turn

    def __str__(self) -> str:
        return f"{self.simulators} {self.what} with {self.cpus:g} CPU and {threads.count(self.cpus)} thread(s) each"


@dataclass(frozen=True)
class Plan:
    """What each actor asks for. Driver and evaluator ask for nothing: they fill the gaps that the others leave."""

    groups: tuple[Share, ...]
    learner_cpus: float
    learner_gpus: float
    evaluator_cpus: float = 0.0
    tasks_at_once: int = 0  # where tasks play instead of simulators: as many of them as there is room for

    def __str__(self) -> str:
        gpu = f" and {self.learner_gpus:g} GPU" if self.learner_gpus else ""
        several = len(self.groups) > 1
        simulators = "; ".join(f"{share.group}: {share}" if several else str(share) for share in self.groups)
        return (
            f"{simulators}; learner with {self.learner_cpus:g} CPU{gpu} and {threads.count(self.learner_cpus)} "
            f"thread(s); evaluator with {threads.count(self.evaluator_cpus)} thread(s)"
        )


def make_plan(
    groups: Sequence[SimulatorsConfig],
    learner: LearnerConfig,
    total: Mapping[str, float],
    largest: float | None = None,
) -> Plan:
    """Share ``total`` (amounts by resource name) among the actors.

    ``auto`` for a simulator is one CPU, or its share of half of what groups with numbers leave where there are too few;
    for the learner what the simulators leave, one CPU if it has a GPU; for GPUs one if there is any.

    Args:
        largest: on a cluster whose nodes come and go, the CPUs of the largest that is there: the learner gets no more.
            What does not fit is no error there, since it may later; ``auto`` is then one CPU.

    Raises: ResourcesTooSmall if it does not fit, naming what is asked for and what there is.
    """
    grows = largest is not None
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    gpu = (1.0 if gpus >= 1 else 0.0) if learner.num_gpus == "auto" else learner.num_gpus
    left = cpus - sum(group.count * group.num_cpus for group in groups if group.num_cpus != "auto")
    autos = sum(group.count for group in groups if group.num_cpus == "auto")
    for_autos = max(left - learner.num_cpus if learner.num_cpus != "auto" else left / 2, left - MAX_LEARNER_CPUS)
    each = _down(min(1.0, for_autos / autos)) if autos else 0.0
    if grows and each <= 0:
        each = 1.0
    left -= autos * each
    most = min(1.0 if gpu else MAX_LEARNER_CPUS, math.inf if largest is None else largest)
    for_learner = _down(min(left, most)) if learner.num_cpus == "auto" else learner.num_cpus
    if grows and for_learner <= 0:
        for_learner = 1.0
    nothing_left = (autos and each <= 0) or (learner.num_cpus == "auto" and for_learner <= 0)
    shares = [Share(one.name, one.count, each if one.num_cpus == "auto" else one.num_cpus) for one in groups]
    if not grows and (for_learner > left + 1e-6 or gpu > gpus or nothing_left):
        simulators = " + ".join(f"{share.simulators} simulator(s) × {share.cpus:g} CPU" for share in shares)
        raise ResourcesTooSmall(
            f"the run asks for {simulators} + learner {max(0.0, for_learner):g} CPU and {gpu:g} GPU, but "
            f"there are {cpus:g} CPU and {gpus:g} GPU; lower simulators.count, simulators.num_cpus, learner.num_cpus "
            "or learner.num_gpus ('auto' fits any machine)"
        )
    return Plan(tuple(shares), for_learner, gpu)


def make_task_plan(group: SimulatorsConfig, learner: LearnerConfig, total: Mapping[str, float]) -> Plan:
    """The same where tasks play: as many at once as ``total`` has room for.

    ``auto`` is one CPU for a task, and for the learner none, CPU or GPU: it learns while the tasks wait.

    Raises: ResourcesTooSmall if not even one task fits beside the learner.
    """
    each = 1.0 if group.num_cpus == "auto" else group.num_cpus
    for_learner = 0.0 if learner.num_cpus == "auto" else learner.num_cpus
    gpu = 0.0 if learner.num_gpus == "auto" else learner.num_gpus
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    if each + for_learner > cpus + 1e-6 or gpu > gpus:
        raise ResourcesTooSmall(
            f"the run asks for {each:g} CPU for a task + learner {for_learner:g} CPU and {gpu:g} GPU, but there are "
            f"{cpus:g} CPU and {gpus:g} GPU; lower simulators.num_cpus, learner.num_cpus or learner.num_gpus ('auto' "
            "fits any machine)"
        )
    at_once = min(group.count, int((cpus - for_learner) / each + 1e-6)) if each else group.count
    share = Share(group.name, group.count, each, "task(s) a round")
    return Plan((share,), for_learner, gpu, tasks_at_once=at_once)


def _down(amount: float) -> float:
    """Whole CPUs as they are, fractions rounded down to what the runtime keeps."""
    return float(math.floor(amount)) if amount >= 1 else math.floor(amount * 1000) / 1000

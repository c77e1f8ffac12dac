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

    def __str__(self) -> str:
        return f"{self.simulators} simulator(s) with {self.cpus:g} CPU and {threads.count(self.cpus)} thread(s) each"


@dataclass(frozen=True)
class Plan:
    """What each actor asks for. Driver and evaluator ask for nothing: they fill the gaps that the others leave."""

    groups: tuple[Share, ...]
    learner_cpus: float
    learner_gpus: float
    evaluator_cpus: float = 0.0

    def __str__(self) -> str:
        gpu = f" and {self.learner_gpus:g} GPU" if self.learner_gpus else ""
        several = len(self.groups) > 1
        simulators = "; ".join(f"{share.group}: {share}" if several else str(share) for share in self.groups)
        return (
            f"{simulators}; learner with {self.learner_cpus:g} CPU{gpu} and {threads.count(self.learner_cpus)} "
            f"thread(s); evaluator with {threads.count(self.evaluator_cpus)} thread(s)"
        )


def make_plan(groups: Sequence[SimulatorsConfig], learner: LearnerConfig, total: Mapping[str, float]) -> Plan:
    """Share ``total`` (amounts by resource name) among the actors.

    ``auto`` for a simulator is one CPU, or its share of half of what groups with numbers leave where there are too few;
    for the learner what the simulators leave, one CPU if it has a GPU; for GPUs one if there is any.

    Raises: ResourcesTooSmall if it does not fit, naming what is asked for and what there is.
    """
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    gpu = (1.0 if gpus >= 1 else 0.0) if learner.num_gpus == "auto" else learner.num_gpus
    left = cpus - sum(group.count * group.num_cpus for group in groups if group.num_cpus != "auto")
    autos = sum(group.count for group in groups if group.num_cpus == "auto")
    for_autos = max(left - learner.num_cpus if learner.num_cpus != "auto" else left / 2, left - MAX_LEARNER_CPUS)
    each = _down(min(1.0, for_autos / autos)) if autos else 0.0
    left -= autos * each
    for_learner = _down(min(left, 1.0 if gpu else MAX_LEARNER_CPUS)) if learner.num_cpus == "auto" else learner.num_cpus
    nothing_left = (autos and each <= 0) or (learner.num_cpus == "auto" and for_learner <= 0)
    shares = [Share(one.name, one.count, each if one.num_cpus == "auto" else one.num_cpus) for one in groups]
    if for_learner > left + 1e-6 or gpu > gpus or nothing_left:
        simulators = " + ".join(f"{share.simulators} simulator(s) × {share.cpus:g} CPU" for share in shares)
        raise ResourcesTooSmall(
            f"the run asks for {simulators} + learner {max(0.0, for_learner):g} CPU and {gpu:g} GPU, but "
            f"there are {cpus:g} CPU and {gpus:g} GPU; lower simulators.count, simulators.num_cpus, learner.num_cpus "
            "or learner.num_gpus ('auto' fits any machine)"
        )
    return Plan(tuple(shares), for_learner, gpu)


def _down(amount: float) -> float:
    """Whole CPUs as they are, fractions rounded down to what the runtime keeps."""
    return float(math.floor(amount)) if amount >= 1 else math.floor(amount * 1000) / 1000

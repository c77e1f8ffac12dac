"""The way of fragments from the simulators to the learner: who plays now, what the learner gets next."""

from __future__ import annotations

from collections.abc import Sequence, Set

from rlray import ObjectRef
from rlray.config.schema import RunConfig
from rlray.train.fleet import Fleet, Rollout
from rlray.train.groups import group_by_number
from rlray.train.learning import LearnerLink
from rlray.train.progress import Progress
from rlray.train.simulator import RolloutStats


class Flow:
    """Guarantees, ``mode: sync``: round by round; all simulators play one fragment with the same weights, the learner
    takes the fragments in the order of the simulators. ``mode: async``: of each group, no more than one fragment beyond
    the number of its simulators is played, waiting or being learned from; nobody waits for another group, and within a
    group simulators take turns.
    """

    def __init__(self, config: RunConfig, fleet: Fleet, learner: LearnerLink, progress: Progress) -> None:
        self._config, self._fleet, self._learner, self._progress = config, fleet, learner, progress
        self._sync = config.mode == "sync"
        self._group_of = group_by_number(config.groups)
        self._finished: list[tuple[Rollout, RolloutStats]] = []  # not yet given to the learner
        self.collected = 0  # agent steps played, learned from or not yet

    @property
    def idle(self) -> bool:
        """Whether the learner has reported on all that was played to its end."""
        return not self._finished and self._learner.idle

    @property
    def settled(self) -> bool:
        """Whether counters and weights may be looked at: always, or between two rounds where all is in fixed order."""
        return not self._sync or (self.idle and not any(self._fleet.rollouts()))

    def restart(self) -> None:
        """Go on from the steps that have been learned from: what was finished is forgotten."""
        self._finished = []
        self.collected = self._progress.steps

    def launch(self) -> None:
        """Ask simulators for fragments: as many as the step limit allows and the learner can soon take."""
        if not self.settled:
            return
        idle = self._fleet.idle()
        for number in sorted(idle) if self._sync else idle:  # in fixed order, also after a resume
            index = self._group_of[number]
            group = self._config.groups[index]
            playing = [self._group_of[rollout.number] for rollout in self._fleet.rollouts()]
            if self.collected + self._coming(playing, index) >= self._config.stop.steps:
                continue
            if not self._sync and playing.count(index) + self._waiting(index) > group.count:
                continue  # one fragment more than simulators: enough for the learner never to wait for a message
            self._fleet.launch(number, self._learner.weights, self._learner.version, self.collected)

    def _coming(self, playing: Sequence[int], index: int) -> int:
        """Steps that are sure to come soon: in mode async those of other groups may take long, and are not waited for.

        Args:
            playing: the groups of the simulators that play.
            index: the group that asks.
        """
        groups = self._config.groups
        counted = playing if self._sync else [one for one in playing if one == index]
        return sum(groups[one].envs * groups[one].fragment_length for one in counted)

    def _waiting(self, index: int) -> int:
        """Fragments of a group that were played and have not been learned from."""
        simulators = [rollout.number for rollout, _ in self._finished]
        simulators += [stats.simulator for stats in self._learner.waiting()]
        return sum(1 for number in simulators if self._group_of[number] == index)

    def under_way(self) -> list[ObjectRef]:
        """References worth waiting for."""
        return [*(rollout.stats for rollout in self._fleet.rollouts()), *self._learner.under_way()]

    def take(self, ready: Set[ObjectRef]) -> None:
        """Fragments from simulators; reports of the learner into the counters."""
        for rollout in [one for one in self._fleet.rollouts() if one.stats in ready]:
            stats = self._fleet.collect(rollout)
            if stats is not None:
                self.collected += stats.steps
                self._finished.append((rollout, stats))
        for report, of in self._learner.collect(ready.__contains__):
            self._progress.add(report, of)

    def hand_over(self) -> None:
        """What is finished goes to the learner, in mode sync once the round is over."""
        if not self._finished or (self._sync and any(self._fleet.rollouts())):
            return
        self._finished.sort(key=lambda one: one[0].number)
        last = self._finished[-1][0]
        for rollout, stats in self._finished:
            self._learner.learn(rollout.fragment, stats, publish=not self._sync or rollout is last)
        self._finished = []

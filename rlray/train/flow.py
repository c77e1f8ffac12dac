"""The way of what is played to the learner: who plays now, what the learner gets next."""

from __future__ import annotations

import logging
from collections.abc import Set

from rlray import ObjectRef
from rlray.config.schema import RunConfig
from rlray.exceptions import ObjectLostError
from rlray.train.groups import group_by_number, spare
from rlray.train.learning import LearnerLink
from rlray.train.players import Players, Rollout
from rlray.train.progress import Progress
from rlray.train.simulator import RolloutStats

log = logging.getLogger(__name__)


class Flow:
    """Guarantees, ``mode: sync``: round by round; all simulators play one fragment with the same weights, the learner
    takes the fragments in the order of the simulators. ``mode: async``: of each group, no more than `spare` fragments
    beyond the number of its simulators are played, waiting or being learned from; nobody waits for another group, and
    within a group simulators take turns. For tasks instead of simulators it is the same. On a cluster simulators are
    those that have found room; a round is of those that had when it began.
    """

    def __init__(self, config: RunConfig, fleet: Players, learner: LearnerLink, progress: Progress) -> None:
        self._config, self._fleet, self._learner, self._progress = config, fleet, learner, progress
        self._sync = config.mode == "sync"
        self._group_of = group_by_number(config.groups)[: len(fleet)]
        self._sizes = [self._group_of.count(group) for group in range(len(config.groups))]
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
        if not self.settled or (self._sync and self._fleet.gathering):
            return
        idle = self._fleet.idle()
        # Counted once and kept up to date: to look at all simulators for each that is idle would grow with the square.
        playing, coming, waiting = [0] * len(self._sizes), [0] * len(self._sizes), self._waiting()
        for rollout in self._fleet.rollouts():
            playing[self._group_of[rollout.number]] += 1
            coming[self._group_of[rollout.number]] += self._fleet.steps_of(rollout.number)
        at_most = [size + spare(group) for size, group in zip(self._sizes, self._config.groups, strict=True)]
        for number in self._fleet.absent():
            at_most[self._group_of[number]] -= 1
        for number in sorted(idle) if self._sync else idle:  # in fixed order, also after a resume
            group = self._group_of[number]
            # Steps that are sure to come soon: in mode async other groups may take long, and are not waited for.
            if self.collected + (sum(coming) if self._sync else coming[group]) >= self._config.stop.steps:
                continue
            if not self._sync and playing[group] + waiting[group] >= at_most[group]:
                continue
            playing[group] += 1
            coming[group] += self._fleet.steps_of(number)
            self._fleet.launch(number, self._learner.weights, self._learner.version, self.collected)

    def _waiting(self) -> list[int]:
        """Fragments of each group that were played and have not been learned from."""
        waiting = [0] * len(self._sizes)
        for rollout, _ in self._finished:
            waiting[self._group_of[rollout.number]] += 1
        for stats in self._learner.waiting():
            waiting[self._group_of[stats.simulator]] += 1
        return waiting

    def under_way(self) -> list[ObjectRef]:
        """References worth waiting for."""
        playing = (rollout.stats for rollout in self._fleet.rollouts())
        return [*playing, *self._learner.under_way(), *self._fleet.seeking()]

    def take(self, ready: Set[ObjectRef]) -> None:
        """Fragments from simulators; reports of the learner into the counters."""
        self._fleet.look_around(ready)
        for rollout in [one for one in self._fleet.rollouts() if one.stats in ready]:
            stats = self._collect(rollout)
            if stats is not None:
                self.collected += stats.steps
                self._finished.append((rollout, stats))
        for report, of in self._learner.collect(ready.__contains__):
            self._progress.add(report, of)

    def _collect(self, rollout: Rollout) -> RolloutStats | None:
        try:
            return self._fleet.collect(rollout)
        except ObjectLostError as error:
            self._learner.check()  # the weights were lost with it, if it is gone
            log.warning("a rollout is lost (%s); the run goes on without it", error)
            return None

    def hand_over(self) -> None:
        """What is finished goes to the learner, in mode sync once the round is over."""
        if not self._finished or (self._sync and any(self._fleet.rollouts())):
            return
        self._finished.sort(key=lambda one: one[0].number)
        last = self._finished[-1][0]
        for rollout, stats in self._finished:
            self._learner.learn(rollout.played, stats, publish=not self._sync or rollout is last)
        self._finished = []

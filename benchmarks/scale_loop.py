"""The training loop in the scaling model: what the driver does, pass by pass, as `rlray.train` does it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from scale_actors import Actors, Fragment, Report
from scale_events import Busy
from scale_setting import Cost, Outcome, Setting


class Link:
    """The learner as the driver sees it (`rlray.train.learning`): of what it was given only the first is waited for."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._given: deque[Fragment] = deque()
        self._reports: deque[Report] = deque()  # that have come and were not looked at

    @property
    def waiting(self) -> int:
        """Fragments given and not reported on."""
        return len(self._given)

    @property
    def refs(self) -> int:
        """References waited for."""
        return len(self._given) if self._loop.setting.all_reports else min(1, len(self._given))

    def ready(self) -> int:
        """Reports that the next pass will find."""
        return len(self._reports) if self._loop.setting.all_reports else min(1, len(self._reports))

    def learn(self, fragment: Fragment, publish: bool) -> None:
        """Give the learner a fragment."""
        self._given.append(fragment)
        self._loop.actors.learn(fragment, publish, self._came)

    def collect(self, reports: int) -> None:
        """Look at as many reports as were ready."""
        for _ in range(reports):
            report = self._reports.popleft()
            if report.published:
                self._loop.newest = report.version
            self._loop.learned(self._given.popleft(), report)

    def _came(self, report: Report) -> None:
        self._reports.append(report)
        self._loop.wake()


@dataclass
class _Adding:
    fragment: Fragment
    due: int | None = None  # once the replay has it
    until: int | None = None  # updates after which it has been learned from


class ReplayLink(Link):
    """Learner and replay as the driver sees them (`rlray.train.replaying`)."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        assert loop.setting.learner.replay is not None
        self._replay = loop.setting.learner.replay
        self._unlimited = loop.setting.learner.steps_per_round is None
        self._ahead = 1 if loop.setting.sync else self._replay.ahead
        self._adding: deque[_Adding] = deque()
        self._drawing = 0  # draws under way
        self._due = self._asked = self._done = 0  # updates
        self._busy = 0.0  # of reports that no fragment was counted with
        self._updates = self._version = 0

    @property
    def waiting(self) -> int:
        return len(self._adding)

    @property
    def refs(self) -> int:
        return sum(1 for one in self._adding if one.until is None) + self._drawing

    def ready(self) -> int:
        return len(self._reports) + sum(1 for one in self._adding if one.due is not None and one.until is None)

    def learn(self, fragment: Fragment, publish: bool) -> None:
        one = _Adding(fragment)
        self._adding.append(one)

        def added(due: int) -> None:
            one.due = due
            self._loop.wake()

        self._loop.actors.add(fragment, added)

    def collect(self, reports: int) -> None:
        for one in self._adding:
            if one.until is None:
                if one.due is None:
                    break
                self._due += one.due
                one.until = 0 if self._unlimited else self._asked + self._due
        while self._reports:
            self._learned(self._reports.popleft())
        begun = bool(self._asked) or any(one.until is not None for one in self._adding)
        while (self._due > 0 or (self._unlimited and begun)) and self._drawing < self._ahead:
            updates = self._replay.most if self._unlimited else min(self._replay.most, self._due)
            self._due = max(0, self._due - updates)
            self._asked += updates
            self._drawing += 1
            self._loop.actors.draw(updates, self._came)
        while self._adding and (until := self._adding[0].until) is not None and until <= self._done:
            report = Report(self._version, self._updates, True, self._busy)
            self._loop.learned(self._adding.popleft().fragment, report)
            self._updates, self._busy = 0, 0.0

    def _learned(self, report: Report) -> None:
        self._drawing -= 1
        self._done += report.updates
        self._updates += report.updates
        self._busy += report.busy
        if report.published:
            self._loop.newest = report.version
        self._version = report.version
        self._loop.actors.take_back(report.updates)


class Loop:
    """One run. The same setting and seed give the same outcome, to the last bit."""

    def __init__(self, setting: Setting, seed: int = 0) -> None:
        self.setting = setting
        self.actors = Actors(setting, seed)
        self.newest = 0  # version of the weights that go out
        self._busy = Busy(self.actors.clock)
        self._passing = False
        self._asked = [0] * len(setting.simulators.nodes)  # when each simulator was asked last
        self._asking = 0
        self._idle = set(range(len(self._asked)))
        self._arrived: list[Fragment] = []  # their stats have come and were not looked at
        self._finished: list[Fragment] = []  # not yet given to the learner
        self._link = Link(self) if setting.learner.replay is None else ReplayLink(self)
        self._count()

    def run(self, fragments: int, warm_up: int) -> Outcome:
        """What the loop does while ``fragments`` are learned from, after ``warm_up`` of them."""
        actors, simulators = self.actors, self.actors.simulators()
        parts = {"driver": self._busy, **actors.parts()}
        actors.clock.after(0.0, self._launch)
        actors.clock.run(lambda: self._learned >= warm_up)
        self._count()
        for busy in (*parts.values(), *simulators):
            busy.reset()
        begin, versions, sent = actors.clock.now, actors.versions, actors.network.bytes
        actors.clock.run(lambda: self._learned >= fragments)
        seconds = actors.clock.now - begin
        return Outcome(
            steps_per_second=self._learned * self.setting.simulators.steps / seconds,
            fragments_per_second=self._learned / seconds,
            updates_per_second=self._updates / seconds,
            weights_per_second=(actors.versions - versions) / seconds,
            policy_lag=self._lags / self._learned,
            learner_busy=self._learning / seconds,
            bytes_per_second=(actors.network.bytes - sent) / seconds,
            busy={
                **{name: busy.mean() for name, busy in parts.items()},
                "simulators": sum(busy.mean() for busy in simulators) / len(simulators),
            },
        )

    def wake(self) -> None:
        """Something has come: let the driver look at it, unless it is in a pass; then it looks when that is over."""
        reports = self._link.ready()
        if self._passing or not (self._arrived or reports):
            return
        self._passing = True
        self._busy.set(1.0)
        fragments, self._arrived = self._arrived, []
        idle = len(self._idle)  # those that have answered are waited for until now
        refs = len(self._asked) - idle + self._link.refs
        cost = self.setting.driver.of(len(fragments) + reports, refs, idle)
        self.actors.work(0, Cost(cost), lambda: self._pass(fragments, reports))

    def learned(self, fragment: Fragment, report: Report) -> None:
        """Count a fragment that has been learned from."""
        self._learned += 1
        self._updates += report.updates
        self._learning += report.busy
        self._lags += max(0, report.version - report.updates - fragment.version)

    def _pass(self, fragments: list[Fragment], reports: int) -> None:
        """Take what is ready, give the learner what is due to it, let simulators play."""
        self._idle.update(one.simulator for one in fragments)
        self._finished += fragments
        self._link.collect(reports)
        if not self.setting.sync or len(self._idle) == len(self._asked):
            self._finished.sort(key=lambda one: one.simulator)
            for one in self._finished:
                self._link.learn(one, publish=not self.setting.sync or one is self._finished[-1])
            self._finished = []
        self._launch()
        self._passing = False
        self._busy.set(0.0)
        self.wake()

    def _launch(self) -> None:
        sync, count = self.setting.sync, len(self._asked)
        if sync and (len(self._idle) < count or self._link.waiting or self._finished):
            return
        places = count if sync else self.setting.spare + len(self._idle) - self._link.waiting
        for number in sorted(self._idle, key=lambda one: one if sync else (self._asked[one], one))[: max(0, places)]:
            self._asking += 1
            self._asked[number] = self._asking
            self._idle.remove(number)
            self.actors.rollout(number, self.newest, self._came)

    def _came(self, fragment: Fragment) -> None:
        self._arrived.append(fragment)
        self.wake()

    def _count(self) -> None:
        """Count from now on."""
        self._learned = self._updates = 0
        self._lags = self._learning = 0.0

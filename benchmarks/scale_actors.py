"""The actors of a run in the scaling model: simulators, learner, replay, and what travels between nodes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from scale_events import Busy, Clock, Cores, Network, Then, Worker, around
from scale_setting import Cost, Replay, Setting


@dataclass(frozen=True)
class Fragment:
    """What was played, as the driver knows it."""

    simulator: int
    node: int
    version: int  # of the weights that played it


@dataclass(frozen=True)
class Report:
    """What the learner has answered."""

    version: int  # after it
    updates: int
    published: bool
    busy: float  # seconds


class Stores:
    """Which node has which weights: each fetches a version once, from any that has it, whoever asks there."""

    def __init__(self, network: Network, nodes: int, size: float, chance: random.Random) -> None:
        self._network, self._size, self._chance = network, size, chance
        self._coming: list[dict[int, list[Then]]] = [{} for _ in range(nodes)]
        self._holders: dict[int, list[int]] = {0: list(range(nodes))}  # of each version
        self._has: list[set[int]] = [{0} for _ in range(nodes)]

    def publish(self, version: int) -> None:
        """Node 0 has it now."""
        self._holders[version] = [0]
        self._has[0].add(version)

    def fetch(self, node: int, version: int, then: Then) -> None:
        """Call ``then`` once ``node`` has it."""
        if version in self._has[node]:
            then()
        elif version in self._coming[node]:
            self._coming[node][version].append(then)
        else:
            self._coming[node][version] = [then]
            source = self._chance.choice(self._holders[version])
            self._network.copy(source, node, self._size, lambda: self._arrived(node, version))

    def _arrived(self, node: int, version: int) -> None:
        self._has[node].add(version)
        self._holders[version].append(node)
        for then in self._coming[node].pop(version):
            then()


class Actors:
    """All processes but the driver. What they answer reaches the driver, and what it asks reaches them, as messages."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting = setting
        self._chance = random.Random(seed)
        self.clock = Clock()
        self._cores = [Cores(self.clock, node.cores, node.others) for node in setting.nodes]
        self.network = Network(self.clock, [node.bytes_per_second for node in setting.nodes], setting.latency)
        self._stores = Stores(self.network, len(setting.nodes), setting.learner.weights_bytes, self._chance)
        self._simulators = [Worker(self.clock) for _ in setting.simulators.nodes]
        self._loaded = [0] * len(self._simulators)
        # Where durations vary, simulators begin in the middle of a fragment, each elsewhere: as if long under way.
        self._left = [self._chance.random() if setting.simulators.spread else 1.0 for _ in self._simulators]
        self._learner, self._replay = Worker(self.clock), Worker(self.clock)
        self._owed = 0.0  # steps that no round of updates was done for
        self._version = self._published = 0
        self.versions = 0  # published so far

    def rollout(self, number: int, version: int, then: Callable[[Fragment], None]) -> None:
        """Let a simulator play a fragment, once the weights are on its node."""
        setting = self._setting.simulators
        node = setting.nodes[number]

        def play(done: Then) -> None:
            cost = setting.play.times(around(self._left[number], setting.spread, self._chance))
            self._left[number] = 1.0
            if version != self._loaded[number]:
                cost += setting.load
                self._loaded[number] = version
            self.work(node, cost, lambda: played(done))

        def played(done: Then) -> None:
            done()
            self._send(node, lambda: then(Fragment(number, node, version)))

        arrived = self._simulators[number].call(play, ready=False)
        self._send(node, lambda: self._stores.fetch(node, version, arrived))

    def learn(self, fragment: Fragment, publish: bool, then: Callable[[Report], None]) -> None:
        """Let the learner do what a fragment makes due."""
        learner = self._setting.learner
        self._with(self._learner, fragment, lambda done: self._update(self._due(), learner.intake, publish, then, done))

    def add(self, fragment: Fragment, then: Callable[[int], None]) -> None:
        """Let the replay have a fragment; it answers how many updates that makes due."""

        def added(done: Then) -> None:
            done()
            due = self._due()
            self._answer(lambda: then(due))

        self._with(self._replay, fragment, lambda done: self.work(0, self._replay_costs.add, lambda: added(done)))

    def draw(self, updates: int, then: Callable[[Report], None]) -> None:
        """Let the replay draw for some updates, and the learner do them."""
        ready = self._learner.call(lambda done: self._update(updates, Cost(), True, then, done), ready=False)
        self._ask_replay(self._replay_costs.draw.times(updates), ready)

    def take_back(self, updates: int) -> None:
        """Let the replay have the priorities of some updates."""
        self._ask_replay(self._replay_costs.take_back.times(updates), lambda: None)

    def work(self, node: int, cost: Cost, then: Then) -> None:
        """Keep a core of a node busy, then wait."""
        asleep = then if cost.wait <= 0 else lambda: self.clock.after(cost.wait, then)
        self._cores[node].run(cost.cpu, asleep)

    def parts(self) -> dict[str, Busy]:
        """What may be busy, but the simulators."""
        parts = {"learner": self._learner.busy}
        if self._setting.learner.replay is not None:
            parts["replay"] = self._replay.busy
        if len(self._setting.nodes) > 1:
            parts["learner's network, in"] = self.network.receives[0].busy
            parts["learner's network, out"] = self.network.sends[0].busy
            parts["simulators' network"] = self.network.receives[-1].busy
        return parts

    def simulators(self) -> list[Busy]:
        """The simulators; one that plays or waits for a core is busy."""
        return [one.busy for one in self._simulators]

    @property
    def _replay_costs(self) -> Replay:
        assert self._setting.learner.replay is not None
        return self._setting.learner.replay

    def _ask_replay(self, cost: Cost, then: Then) -> None:
        def done_with(done: Then) -> None:
            done()
            then()

        call = self._replay.call(lambda done: self.work(0, cost, lambda: done_with(done)), ready=False)
        self._answer(call)

    def _with(self, worker: Worker, fragment: Fragment, work: Callable[[Then], None]) -> None:
        """Let an actor on node 0 work on a fragment, once that is there."""
        arrived = worker.call(work, ready=False)
        size = self._setting.simulators.fragment_bytes
        self._answer(lambda: self.network.copy(fragment.node, 0, size, arrived))

    def _due(self) -> int:
        """Updates that one more fragment makes due."""
        of = self._setting.learner
        if of.steps_per_round is None:
            return 0
        self._owed += self._setting.simulators.steps
        rounds = int(self._owed / of.steps_per_round + 1e-9)
        self._owed -= rounds * of.steps_per_round
        return rounds * of.updates_per_round

    def _update(self, updates: int, intake: Cost, publish: bool, then: Callable[[Report], None], done: Then) -> None:
        """What the learner does in one call."""
        of, begin = self._setting.learner, self.clock.now

        def learned() -> None:
            self._version += updates
            newer = publish and self._version - self._published >= of.publish_after
            report = Report(self._version, updates, newer, self.clock.now - begin)
            if newer:
                self._published = report.version
                self.work(0, of.publish + of.call, lambda: published(report))
            else:
                self.work(0, of.call, lambda: answered(report))

        def published(report: Report) -> None:
            self.versions += 1
            self._stores.publish(report.version)
            answered(report)

        def answered(report: Report) -> None:
            done()
            self._answer(lambda: then(report))

        cost = (intake + of.update.times(updates)).times(around(1.0, of.spread, self._chance))
        self.work(0, cost, learned)

    def _answer(self, then: Then) -> None:
        """A small message within node 0, where driver, learner and replay are."""
        self.clock.after(self._setting.hop, then)

    def _send(self, node: int, then: Then) -> None:
        """A small message between the driver and a simulator."""
        self.clock.after(self._setting.hop if node == 0 else self._setting.latency, then)

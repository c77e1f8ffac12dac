"""What the scaling model is told: costs, nodes, simulators, learner, driver; and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Seconds of a core, and seconds in which no core is needed: asleep, or while a GPU works."""

    cpu: float = 0.0
    wait: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu + other.cpu, self.wait + other.wait)

    def times(self, count: float) -> Cost:
        """The cost of ``count`` of it."""
        return Cost(self.cpu * count, self.wait * count)


@dataclass(frozen=True)
class Node:
    """A machine."""

    cores: float
    bytes_per_second: float = 1.25e9  # each way of its network card
    others: float = 0.0  # jobs of other programs that always want one of its cores


@dataclass(frozen=True)
class Simulators:
    """All of them are alike; ``nodes`` says where each is."""

    nodes: tuple[int, ...]
    steps: int  # agent steps of a fragment
    play: Cost  # of a fragment, from the call until it lies in the store
    fragment_bytes: float
    load: Cost = Cost()  # of new weights
    spread: float = 0.0  # standard deviation of the time to play, relative to its mean


@dataclass(frozen=True)
class Replay:
    """A replay in an actor of its own, beside the learner; see `rlray.train.replaying`."""

    add: Cost  # of a fragment
    draw: Cost  # of the batch of an update
    take_back: Cost  # of its priorities
    most: int = 8  # updates of one draw
    ahead: int = 2  # draws under way


@dataclass(frozen=True)
class Learner:
    """It lives on node 0. After every ``steps_per_round`` agent steps there are ``updates_per_round`` updates.

    Where that is None, a `replay` draws as often as the learner can.
    """

    steps_per_round: float | None
    updates_per_round: int
    intake: Cost  # of a fragment
    update: Cost
    publish: Cost  # of handing out weights
    call: Cost  # around each call: messages
    weights_bytes: float
    replay: Replay | None = None
    spread: float = 0.0
    publish_after: int = 1  # updates that make weights new enough to be handed out


@dataclass(frozen=True)
class Driver:
    """Seconds of a core that one pass of the driver's loop takes; it lives on node 0."""

    base: float  # of a pass
    per_event: float  # for each fragment or report that is ready
    per_ref: float  # for each reference that is waited for
    per_idle: float = 0.0  # for each simulator that is idle

    def of(self, events: int, refs: int, idle: int) -> float:
        """The cost of a pass."""
        return self.base + self.per_event * events + self.per_ref * refs + self.per_idle * idle


@dataclass(frozen=True)
class Setting:
    """A run: who is where and what everything costs.

    Args:
        hop: seconds that a message takes within a node.
        latency: seconds that it takes between nodes.
        spare: fragments beyond one for each simulator that may be played, waiting or being learned from.
        all_reports: whether a pass finds all reports of the learner that are there, or only one (as it is, without a
            replay of its own).
    """

    nodes: tuple[Node, ...]
    simulators: Simulators
    learner: Learner
    driver: Driver
    hop: float = 5e-5
    latency: float = 2e-4
    spare: int = 1
    sync: bool = False
    all_reports: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run comes to once it is under way. ``busy`` has, for each part, the part of the time in which it was."""

    steps_per_second: float
    fragments_per_second: float
    updates_per_second: float
    weights_per_second: float  # versions published
    policy_lag: float  # updates, the mean over fragments
    learner_busy: float  # as the metric time/learner_busy: only in learning
    bytes_per_second: float  # over the network, all together
    busy: dict[str, float]

    @property
    def saturated(self) -> str:
        """The part with the most to do, or ``nothing`` where all of them wait for each other."""
        part = max(self.busy, key=lambda name: self.busy[name])
        return part if self.busy[part] >= 0.85 else "nothing"

"""What simulators, learner and replay of a configuration cost, measured in this process, without a runtime."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from scale_setting import Cost, Replay

from rlray.algos.types import Fragment, Place
from rlray.train.groups import env_of, spec_of
from rlray.train.learner import LearnerActor, LearnerSetup
from rlray.train.replay import ReplayActor, ReplaySetup
from rlray.train.run import resolve
from rlray.train.simulator import Simulator, SimulatorSetup
from rlray.train.sources import AlgorithmSource

T = TypeVar("T")


@dataclass(frozen=True)
class Costs:
    """Figures of one configuration. Seconds are CPU time of one thread, but for `wait`: asleep."""

    steps: int  # agent steps of a fragment
    play: Cost  # of a fragment
    load: Cost  # of new weights
    fragment_bytes: float
    weights_bytes: float
    steps_per_round: float
    updates_per_round: int
    intake: Cost  # of a fragment, in the learner
    update: Cost
    publish: Cost
    replay: Replay | None = None
    compressed: float = 1.0  # the part of a fragment's observations that zlib, at its fastest, leaves
    compress: float = 0.0  # seconds of a core that it takes, per byte
    acting: float = 0.0  # the part of the time to play that is the policy's

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Costs:
        """What `plain` made."""
        replay = plain["replay"]
        return cls(**{**_made(plain), "replay": None if replay is None else Replay(**_made(replay))})


def _made(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Costs out of plain values."""
    return {name: Cost(**value) if isinstance(value, dict) and "cpu" in value else value
            for name, value in plain.items()}  # fmt: skip


class _Watch:
    """CPU time of calls, summed."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.count = 0

    def call(self, once: Callable[..., T], *arguments: Any, count: int = 1) -> T:
        """Call, and count it as ``count``."""
        cpu = time.process_time()
        answer = once(*arguments)
        self.add(time.process_time() - cpu, count)
        return answer

    def add(self, cpu: float, count: int) -> None:
        """Time that ``count`` calls took together."""
        self.cpu, self.count = self.cpu + cpu, self.count + count

    def cost(self, asleep: float = 0.0) -> Cost:
        """Of one."""
        return Cost(self.cpu / max(self.count, 1), asleep)


def costs_of(
    config: Mapping[str, Any],
    fragments: int,
    rounds: float,
    updates: int,
    asleep: tuple[float, float] = (0.0, 0.0),
    learns: bool = True,
) -> Costs:
    """Play ``fragments`` fragments and learn from them, after a few that warm up.

    Args:
        config: of the run; its learner must come to updates within that many fragments.
        rounds, updates: there are ``updates`` updates for every ``rounds`` agent steps.
        asleep: seconds that playing a fragment and an update sleep (`scale_toys`).
        learns: whether the learner is measured; else that is a GPU's work, and only a replay draws for it.
    """
    checked, source = resolve({**config, "stop": {"steps": 10**9}})
    group, spec, algorithm = checked.groups[0], spec_of(checked, source), AlgorithmSource.of(checked)
    setup = SimulatorSetup(env_of(group, source), algorithm, 0, 0, 0, 1, group.envs, group.fragment_length, 1.0,
                           place=Place(0, group.envs, group.envs))  # fmt: skip
    simulator, policy = Simulator(setup), algorithm.make_policy(spec)
    learner = _Learning(
        LearnerActor(LearnerSetup(spec, algorithm, 1, 10**9, 1.0, 0.0)),
        ReplayActor(ReplaySetup(spec, algorithm, 1, 10**9)) if algorithm.has_replay else None,
    )
    simulator.start()
    steps, asked = group.envs * group.fragment_length, 0
    for watch in (_Watches(), watches := _Watches()):  # the first round warms up
        for _ in range(fragments):
            weights, version = watch.publish.call(learner.actor.weights)
            fragment, stats = watch.play.call(simulator.rollout, weights, version, asked)
            watch.load.call(policy.load, weights)
            learner.learn(fragment, watch, learns)
            asked += steps
    arrays = [one for one in (*vars(fragment).values(), *fragment.extras.values()) if isinstance(one, np.ndarray)]
    squeezing = _Watch()
    packed = squeezing.call(zlib.compress, fragment.obs.tobytes(), 1)
    return Costs(
        steps=steps,
        play=watches.play.cost(asleep[0]),
        load=watches.load.cost(),
        fragment_bytes=float(sum(array.nbytes for array in arrays)),
        weights_bytes=float(sum(array.nbytes for array in weights.values())),
        steps_per_round=rounds,
        updates_per_round=updates,
        intake=watches.intake.cost(),
        update=watches.update.cost(asleep[1]),
        publish=watches.publish.cost(),
        replay=watches.replay(learner.most) if learner.replay else None,
        compressed=len(packed) / fragment.obs.nbytes,
        compress=squeezing.cpu / fragment.obs.nbytes,
        acting=stats.policy_seconds / (stats.policy_seconds + stats.env_seconds),
    )


class _Watches:
    def __init__(self) -> None:
        self.play, self.load, self.intake, self.update, self.publish = (_Watch() for _ in range(5))
        self.add, self.draw, self.take_back = (_Watch() for _ in range(3))

    def replay(self, most: int) -> Replay:
        """What was seen of it."""
        return Replay(self.add.cost(), self.draw.cost(), self.take_back.cost(), most)


class _Learning:
    """Learner and replay, if there is one, called as the driver would have them called."""

    def __init__(self, actor: LearnerActor, replay: ReplayActor | None) -> None:
        self.actor, self.replay = actor, replay
        actor.start()
        self.most = replay.start() if replay else 0

    def learn(self, fragment: Fragment, watch: _Watches, learns: bool) -> None:
        """Learn from a fragment; what that takes counts as updates where there are some, else as taking it in."""
        if self.replay is None:
            if not learns:
                return
            whole = _Watch()
            report, _ = whole.call(self.actor.learn, fragment, False)
            (watch.update if report.updates else watch.intake).add(whole.cpu, max(1, report.updates))
            return
        replay = self.replay
        due = watch.add.call(replay.add, fragment).due or 0
        while due:
            count = min(due, self.most)
            drawn, _ = watch.draw.call(replay.draw, count, count=count)
            if not learns:
                continue
            _, _, returned = watch.update.call(self.actor.learn_drawn, drawn, count=count)
            watch.take_back.call(replay.take_back, returned, count=count)

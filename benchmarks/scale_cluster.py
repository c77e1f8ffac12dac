"""Clusters that nobody has run yet, in the scaling model: what is assumed about them, and what could be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scale_costs import Costs
from scale_loop import Loop
from scale_setting import Cost, Learner, Node, Replay, Setting, Simulators
from scale_workloads import Engine

SIZES = (1, 10, 100, 1_000)
"""Nodes. One alone has the learner and simulators; of more, the first has the learner and the others simulators."""

ASSUMED: dict[str, tuple[float, str]] = {
    "cores of a node": (16, "three of the learner's are its own, one of each other is the engine's"),
    "bytes/s of a simulator node": (
        10e9 / 8,
        "each way; AWS c5.4xlarge, 16 vCPU: up to 10 Gbit/s (docs.aws.amazon.com, EC2 instance network bandwidth)",
    ),
    "bytes/s of the learner's node": (25e9 / 8, "each way; usual for instances with one GPU (AWS g5: up to 25 Gbit/s)"),
    "seconds of a message": (2e-4, "between nodes, one way; a round number"),
    "samples/s, GPU of 2018": (
        9_700,
        "Ape-X trains on 19 batches of 512 a second, dueling double DQN, 84×84 (Horgan et al. 2018, arXiv 1803.00933)",
    ),
    "samples/s, ten times that": (97_000, "not measured for rlray; stands for a GPU of today and code that keeps up"),
    "part of such a sample, looking once": (0.2, "counted: double DQN is forward, backward (twice that), two forwards"),
    "bytes/s into the learner": (10e9, "a copy through its hands and to the GPU, on a core of its own; a round number"),
    "relative spread of playing": (0.1, "standard deviation; a round number"),
}


def assumed(name: str) -> float:
    """A figure that is not measured here."""
    return ASSUMED[name][0]


GPUS = {"2018": assumed("samples/s, GPU of 2018"), "fast": assumed("samples/s, ten times that")}


@dataclass(frozen=True)
class Case:
    """What is run: on Pong, or on a simulation that is heavy and has small observations."""

    name: str
    title: str
    costs: str  # the workload that was measured
    epochs: int = 0  # 0: a replay of its own, and as many updates as the learner can
    round: int = 65_536  # agent steps of a round of updates
    seconds: float | None = None  # of a step on a core; None: as measured
    observation: float | None = None  # bytes
    weights: float | None = None  # bytes


CASES = (
    Case("ppo", "PPO on Pong, 3 epochs", "pong_ppo", epochs=3),
    Case("impala", "IMPALA on Pong, 1 epoch", "pong_ppo", epochs=1, round=8_192),
    Case("apex", "Ape-X on Pong, as many updates as the learner can", "pong_apex"),
    Case("heavy", "IMPALA, a simulation of 50 ms a step, 4 kB observations", "pong_ppo", 1, 8_192, 0.05, 4_096.0, 1e6),
)


@dataclass(frozen=True)
class Change:
    """Something that could be done about what saturates, as the model sees it."""

    name: str = "as it is"
    longer: float = 1.0  # fragments, by this factor
    compress: bool = False  # frames by zlib, in the simulators; unpacking them is left out
    shards: int = 1  # of the replay
    publish_after: int = 1  # updates between two versions that go out
    all_reports: bool = False  # of the learner, in one pass of the driver
    parts: int = 1  # drivers, each with a learner of its own and its part of the nodes


CHANGES = (
    Change("4 × longer fragments", longer=4),
    Change("frames compressed", compress=True),
    Change("replay in 4 shards", shards=4),
    Change("weights after 64 updates", publish_after=64),
    Change("all reports in one pass", all_reports=True),
    Change("8 drivers with a learner each", parts=8),
)


def fits(case: Case, change: Change) -> bool:
    """Whether there is anything to change in this case."""
    replay = not case.epochs
    return not (
        (change.compress and case.observation is not None)
        or (change.shards > 1 and not replay)
        or (change.publish_after > 1 and not replay)
        or (change.all_reports and replay)
    )


def setting(case: Case, costs: Costs, engine: Engine, nodes: int, samples: float, change: Change) -> Setting:
    """``nodes`` of a cluster, or of a part of it, with a learner whose GPU does so many ``samples`` a second."""
    steps = int(costs.steps * change.longer)
    play, size = costs.play.times(change.longer), costs.fragment_bytes * change.longer
    if case.seconds is not None:
        play = Cost(case.seconds * steps)
    if case.observation is not None:
        size = case.observation * steps
    whole = size
    if change.compress:
        play, size = play + Cost(size * costs.compress), size * costs.compressed
    play += engine.simulator + Cost(engine.copy * size)
    cores = int(assumed("cores of a node"))
    far, near = (nodes - 1) * (cores - 1), cores - 3
    where = [1 + index % (nodes - 1) for index in range(far)] if nodes > 1 else [0] * near
    others = [Node(cores, assumed("bytes/s of a simulator node"))] * (nodes - 1)
    return Setting(
        nodes=(Node(cores, assumed("bytes/s of the learner's node")), *others),
        simulators=Simulators(tuple(where), steps, play, size, costs.load, assumed("relative spread of playing")),
        learner=learner(case, costs, engine, whole, samples, change),
        driver=engine.driver,
        latency=assumed("seconds of a message"),
        all_reports=change.all_reports,
    )


def learner(case: Case, costs: Costs, engine: Engine, size: float, samples: float, change: Change) -> Learner:
    """A learner on a GPU: it needs a core for what goes through its hands, and waits while the GPU works."""
    weights = costs.weights_bytes if case.weights is None else case.weights
    publish = costs.publish + Cost(engine.copy * weights)
    look, hands, batch = (
        assumed("part of such a sample, looking once") / samples,
        assumed("bytes/s into the learner"),
        512,
    )
    stacked = 4 if case.observation is None else 1  # frames of an observation
    after = change.publish_after
    if case.epochs:
        intake = Cost(stacked * size / hands, costs.steps * change.longer * look)
        updates = case.epochs * case.round // batch
        return Learner(
            case.round, updates, intake, Cost(0.0, batch * 3 * look), publish, engine.learner, weights,
            publish_after=after,
        )  # fmt: skip
    assert costs.replay is not None
    part = 1 / change.shards
    replay = Replay(
        costs.replay.add.times(change.longer * part), costs.replay.draw.times(part), costs.replay.take_back.times(part),
        costs.replay.most,
    )  # fmt: skip
    update = Cost(2 * stacked * 84 * 84 * batch / hands, batch / samples)
    return Learner(
        None, 1, Cost(), update, publish, engine.learner, weights, replay, publish_after=after
    )  # fmt: skip


def predict(
    case: Case, figures: Mapping[str, Any], engine: Engine, nodes: int, gpu: str, change: Change = Change()
) -> dict[str, Any]:
    """What a cluster comes to, all its parts together."""
    of = setting(case, Costs.of(figures[case.costs]), engine, max(2, nodes // change.parts) if nodes > 1 else 1,
                 GPUS[gpu], change)  # fmt: skip
    count = len(of.simulators.nodes)
    outcome = Loop(of).run(max(1_000, count), count + 500)
    row = {
        "case": case.name, "nodes": nodes, "gpu": gpu, "change": change.name, "simulators": count * change.parts,
        **asdict(outcome), "saturated": outcome.saturated,
    }  # fmt: skip
    for name in ("steps_per_second", "fragments_per_second", "updates_per_second", "bytes_per_second"):
        row[name] *= change.parts
    return row

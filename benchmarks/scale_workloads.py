"""The runs that the scaling model is calibrated and compared with, and how figures become a setting of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scale_costs import Costs
from scale_setting import Cost, Driver, Learner, Node, Setting, Simulators

from rlray.config import load_config

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Workload:
    """A configuration, and what has to be known to measure its costs."""

    name: str
    about: str
    base: str | None  # a file in configs/; None: what only sleeps
    changes: tuple[str, ...] = ()
    play: float = 0.0  # seconds asleep, of what only sleeps
    learn: float = 0.0
    rounds: float = 1.0  # there are `updates` updates for this many agent steps
    updates: int = 1
    fragments: int = 20  # to measure costs with
    counts: tuple[int, ...] = (1, 2, 4, 8)  # of simulators, to compare with
    learns: bool = True  # whether the learner is measured; else a GPU is meant to do that

    def config(self, simulators: int) -> dict[str, Any]:
        """The configuration with so many of them, each with a thread, and the learner with one."""
        if self.base is None:
            config: dict[str, Any] = {
                "env": "scale_toys:Sleeper",
                "env_settings": {"seconds": self.play},
                "code": [str(HERE)],
                "algo": "scale_toys:ALGORITHM",
                "hyperparameters": {"seconds": self.learn},
                "simulators": {"envs": 1, "fragment_length": 1},
                "stop": {"steps": 1},
            }
        else:
            config = load_config(HERE.parent / "configs" / self.base, list(self.changes)).model_dump()
        group = {**config["simulators"], "count": simulators, "num_cpus": 1.0}
        return {**config, "simulators": group, "learner": {"num_cpus": 1.0, "num_gpus": 0.0}}


LENGTH = "simulators.fragment_length=64"

WORKLOADS = (
    Workload("sleep", "20 ms asleep for a fragment, 10 ms for an update", None, play=0.02, learn=0.01),
    Workload("nothing", "nothing to play and nothing to learn: the driver's own pace", None, fragments=200),
    Workload(
        "ppo", "PPO on Lunar Lander, asynchronous, 16 environments × 64 steps", "ppo_lunarlander.yaml",
        ("mode=async", "simulators.envs=16", "simulators.fragment_length=64"), rounds=8192, updates=96, fragments=16,
    ),
    Workload(
        "dqn", "DQN on Lunar Lander, 8 environments × 8 steps, 8 samples a step", "dqn_lunarlander.yaml",
        ("mode=async", "simulators.envs=8", "simulators.fragment_length=8", "hyperparameters.batch_size=128",
         "hyperparameters.warmup_steps=500", "hyperparameters.samples_per_step=8"), rounds=16, updates=1, fragments=50,
    ),
    Workload(
        "apex", "Ape-X on Pong (42×42), 8 environments × 16 steps, 4 samples a step", "apex_pong.yaml",
        ("hyperparameters.warmup_steps=500", "hyperparameters.samples_per_step=4"), rounds=32, updates=1, fragments=12,
        counts=(1, 2, 4),
    ),
    Workload(
        "pong_ppo", "PPO's policy on Pong, 84×84, Nature's network, 8 environments × 64 steps", "ppo_lunarlander.yaml",
        ("env=ALE/Pong-v5", "mode=async", "hyperparameters.network=nature", "simulators.envs=8", LENGTH),
        fragments=2, counts=(), learns=False,
    ),
    Workload(
        "pong_apex", "Ape-X on Pong, 84×84 and Nature's network, 8 environments × 64 steps, batches of 512",
        "apex_pong.yaml",
        ("env_settings={}", "hyperparameters.network={kind: nature, dueling: true}", "hyperparameters.batch_size=512",
         "hyperparameters.samples_per_step=1", "hyperparameters.replay_capacity=20000",
         "hyperparameters.warmup_steps=500", "simulators.envs=8", LENGTH),
        fragments=2, counts=(), learns=False,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """What an engine's calls cost: the driver, and around every call of an actor."""

    driver: Driver
    simulator: Cost
    learner: Cost
    copy: float  # seconds of a core per byte that goes into the store

    @classmethod
    def of(cls, figures: Mapping[str, Any], flow: Mapping[str, float], rest: float) -> Engine:
        """From the figures of `scale_cases`: samples by number.

        Args:
            flow: what the bookkeeping takes (`fit_flow`).
            rest: what else a pass takes.
        """
        waits = {int(count): seconds for count, seconds in figures["wait"].items()}
        slope, begin = np.polyfit(list(waits), list(waits.values()), 1, w=[1 / value for value in waits.values()])
        one = figures["fragment"]["1"]
        driver = Driver(
            base=max(0.0, float(begin)) + flow["base"] + rest,
            per_event=figures["fragment"]["4"]["driver"] / 2,
            per_ref=float(slope) + flow["per_ref"],
            per_idle=flow["per_idle"],
        )
        return cls(driver, Cost(one["simulator"]), Cost(one["learner"]), figures["copy"])


def fit_flow(points: list[dict[str, float]]) -> dict[str, float]:
    """Base, seconds per reference and per idle simulator, from passes with so many of both; 0 where there are none."""
    weights = np.array([1 / point["seconds"] for point in points])
    columns = np.array([[1.0, point["count"] - point["idle"], point["idle"]] for point in points]).reshape(-1, 3)
    found, *_ = np.linalg.lstsq(columns * weights[:, None], np.ones(len(points)), rcond=None)
    return dict(zip(("base", "per_ref", "per_idle"), (max(0.0, float(one)) for one in found), strict=True))


def local(costs: Costs, simulators: int, engine: Engine, cores: float, others: float, spread: float = 0.1) -> Setting:
    """The same run on the local engine: one machine, where all processes share the cores with other programs."""
    play = costs.play + engine.simulator + Cost(engine.copy * costs.fragment_bytes)
    learner = Learner(
        costs.steps_per_round, costs.updates_per_round, costs.intake, costs.update,
        costs.publish + Cost(engine.copy * costs.weights_bytes), engine.learner, costs.weights_bytes, costs.replay,
    )  # fmt: skip
    return Setting(
        nodes=(Node(cores, others=others),),
        simulators=Simulators((0,) * simulators, costs.steps, play, costs.fragment_bytes, costs.load, spread),
        learner=learner,
        driver=engine.driver,
    )

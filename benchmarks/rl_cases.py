"""What `rl.py` measures of rlray: simulators, whole training runs, the replay's memory, the learner's idle time."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from case import Cases, Goal, Run
from memory import rollup

cases = Cases()
PONG = "ALE/Pong-v5"
NATURE = {
    "env": PONG,
    "algo": "dqn",
    "hyperparameters": {
        "network": {"kind": "nature", "input_norm": "divide"},
        "precision": "auto",
        "double": False,  # Stable-Baselines3's DQN is not
        "batch_size": 32,
        "samples_per_step": 8,  # a batch of 32 every 4 steps
        "replay_capacity": 20_000,
        "warmup_steps": 1_000,
        "target_update_every": 250,
    },
}
ZOO_PPO = {
    "env": "LunarLander-v3",
    "algo": "ppo",
    "hyperparameters": {
        "network": {"kind": "mlp", "hidden": [64, 64], "activation": "tanh"},
        "discount": 0.999,
        "gae_lambda": 0.98,
        "rollout_steps": 16_384,
        "minibatch_size": 64,
        "epochs": 4,
        "entropy": 0.01,
    },
}
QUIET: dict[str, Any] = {"eval": {"every": None, "final_episodes": 0}, "checkpoint": {"every": None}}


@cases.add("ALE Pong, simulators only", "steps/s", Goal(0.95, "the best peer"), init=None)
def simulators(run: Run) -> list[float]:
    """Random actions, a process for each CPU."""
    return [_simulated(run, PONG, run.size(60_000, 300))]


@cases.add("ALE Pong, Nature's network choosing actions", "steps/s", Goal(0.7, "random actions"), init=None)
def acting(run: Run) -> list[float]:
    """One batch for all environments of a process; random actions beside it, by turns."""
    with tempfile.TemporaryDirectory(prefix="rb-") as folder:
        few = {**NATURE, **QUIET, "mode": "sync", "run_dir": folder, "stop": {"steps": 64}}
        policy = run.ray.train(few).run_dir
        chosen, at_random = [], []
        steps = run.size(40_000, 300)
        for _ in range(run.size(2, 1)):
            at_random.append(_simulated(run, PONG, steps, envs=run.size(64, 4)))
            chosen.append(_simulated(run, None, steps, policy=policy, envs=run.size(64, 4)))
    run.notes["random actions"] = float(np.median(at_random))
    return chosen


@cases.add("DQN on ALE Pong, SB3's hyperparameters", "steps/s", Goal(4, "SB3"), init=None)
def dqn(run: Run) -> list[float]:
    """Steps learned from, once the learner learns."""
    steps, after = run.size(8_000, 1_500), run.size(2_000, 1_100)
    found = _trained(run, {**NATURE, "simulators": {"count": 1, "envs": 8, "fragment_length": 8}}, steps, after)
    run.notes |= {"updates/s": found["rate"] / 4, "idle, %": found["idle"], "updates a step": found["updates"]}
    return [found["rate"]]


@cases.add("PPO on Lunar Lander, the zoo's hyperparameters", "steps/s", Goal(3, "SB3"), init=None)
def ppo(run: Run) -> list[float]:
    """Asynchronous, as runs are by default; ``mode: sync``, in which nothing is a round old, beside it."""
    config = {**ZOO_PPO, "simulators": {"count": 1, "envs": 16, "fragment_length": 1024}}
    steps, after = run.size(114_688, 49_152), 16_384
    run.notes["mode sync"] = _trained(run, {**config, "mode": "sync"}, steps, after)["rate"]
    return [_trained(run, config, steps, after)["rate"]]


@cases.add("bundled Pong, state observations", "steps/s", Goal(20e6), init=None)
def bundled(run: Run) -> list[float]:
    """Random actions on all cores."""
    return [_simulated(run, "rlray/Pong-v0", run.size(100_000_000, 200_000))]


@cases.add("replay of 1 M frames of 84×84", "GB", Goal(7.5), init=None)
def replay_memory(run: Run) -> list[float]:
    """Memory taken when it is full."""
    from gymnasium import spaces

    from rlray.algos.replay import NStepReplay
    from rlray.algos.types import Fragment
    from rlray.envs.types import EnvSpec

    capacity, by_time = run.size(1_000_000, 2_000), (64, 8)
    spec = EnvSpec("Pong", spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6), 4)
    obs, nothing = np.ones((*by_time, 84, 84), np.uint8), np.zeros(by_time, np.bool_)
    before = rollup(os.getpid())["Pss"]
    replay = NStepReplay(spec, capacity, n_step=1, discount=0.99)
    for sequence in range(capacity // nothing.size + 1):
        replay.add(
            Fragment(
                stream=0, sequence=sequence, obs=obs, first=nothing if sequence else ~nothing,
                action=np.ones(by_time, np.int64), reward=np.ones(by_time, np.float32), terminated=nothing,
                truncated=nothing, valid=~nothing, final_index=np.zeros((0, 2), np.int64),
                final_obs=np.zeros((0, 84, 84), np.uint8), last_obs=np.zeros((8, 4, 84, 84), np.uint8),
            )
        )  # fmt: skip
    taken = (rollup(os.getpid())["Pss"] - before) / 1e9
    run.notes["full"] = replay.fill
    return [taken]


@cases.add("learner's idle time, dqn_pong.yaml", "%", Goal(5), init=None)
def idle(run: Run) -> list[float]:
    """Of the time after warm-up, in mode async."""
    found = _trained(run, "dqn_pong.yaml", run.size(14_000, 6_500), run.size(7_000, 5_300))
    run.notes |= {"steps/s": found["rate"]}
    return [found["idle"]]


def _simulated(run: Run, env: str | None, steps: int, **arguments: Any) -> float:
    """Steps per second of `rlray.simulate`, of all processes together."""
    return float(run.ray.simulate(env, steps, **arguments).rate)


def _trained(run: Run, config: Mapping[str, Any] | str, steps: int, after: int) -> dict[str, float]:
    """What the records of a run between ``after`` and ``steps`` agent steps say.

    ``rate``: steps per second; ``updates``: gradient steps per step; ``idle``: percent of the learner's time.
    """
    with tempfile.TemporaryDirectory(prefix="rb-") as folder:
        if isinstance(config, str):
            changes = {"eval.every": "null", "eval.final_episodes": 0, "checkpoint.every": "null", "run_dir": folder}
            overrides = [f"{key}={value}" for key, value in {**changes, "stop.steps": steps}.items()]
            result = run.ray.train(config, overrides=overrides)
        else:
            result = run.ray.train({**config, **QUIET, "run_dir": folder, "stop": {"steps": steps}})
        with (Path(result.run_dir) / "metrics.csv").open() as file:
            records = [{name: float(text or "nan") for name, text in row.items()} for row in csv.DictReader(file)]
    records = [one for one in records if one["step"] >= after]
    first, last = records[0], records[-1]
    seconds, played = last["time/seconds"] - first["time/seconds"], last["step"] - first["step"]
    spans = [(now["time/seconds"] - then["time/seconds"], now["time/learner_busy"]) for then, now in pairwise(records)]
    busy = sum(span * part for span, part in spans) / sum(span for span, _ in spans)
    updates = (last["learner/updates"] - first["learner/updates"]) / played
    return {"rate": played / seconds, "updates": updates, "idle": 100 * (1 - busy)}

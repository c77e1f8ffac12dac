"""The actor that measures: greedy episodes, raw returns, and a video of the first one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import Weights
from rlray.train import threads
from rlray.train.failures import EnvironmentFailed, TrainingError
from rlray.train.sources import AlgorithmSource, EnvSource
from rlray.train.video import write_mp4

T = TypeVar("T")
N = TypeVar("N", int, float)

MAX_ENVS = 16
"""Environments stepped together at most: more would only wait longer for the longest episode."""

MAX_EPISODE_STEPS = 200_000
"""Agent steps after which an episode is taken to be endless; Atari's own limit is 27,000."""


@dataclass(frozen=True)
class EvaluatorSetup:
    """What an evaluator is made from; small enough to travel in the message that creates it."""

    env: EnvSource
    algorithm: AlgorithmSource
    num_cpus: float


@dataclass
class EvalResult:
    """Exactly as many complete episodes as were asked for, in the order in which they were assigned."""

    returns: list[float]  # raw
    lengths: list[int]  # agent steps
    video: str | None = None  # where it was written

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Population standard deviation over the episodes."""
        return float(np.std(self.returns))

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f} (raw return, mean ± std over {len(self.returns)} episodes)"


class Evaluator:
    """Plays greedy episodes.

    Guarantees: the same weights, episodes and seed give the same result. Episodes are assigned to environments
    before the first step and every one of them is played to its end, so that short episodes are not preferred (taking
    the first N that end would). Environments are made for each call and closed after it.
    """

    def __init__(self, setup: EvaluatorSetup) -> None:
        self._setup = setup
        self._threads: int | None = None

    def evaluate(self, weights: Weights, episodes: int, seed: int, video_path: str | None = None) -> EvalResult:
        """Play ``episodes`` greedy episodes with ``weights``.

        Args:
            seed: of the environments; nothing else in here is random.
            video_path: where to write the first episode as an mp4; None for no video.

        Raises: EnvironmentFailed where an environment raises; TrainingError where an episode does not end.
        """
        setup = self._setup
        if self._threads is None:
            self._threads = threads.limit_torch(setup.num_cpus)
        envs, quota = assign(episodes)
        vector_steps = 0

        def run(doing: str, call: Callable[..., T], *args: Any) -> T:
            try:
                return call(*args)
            except Exception as error:
                raise EnvironmentFailed.during(doing, setup.env.id, "evaluator", seed, vector_steps, error) from error

        render = video_path is not None
        env = run("make", setup.env.make, envs, self._threads, render)
        frames: list[NDArray[np.uint8]] = []
        returns: list[list[float]] = [[] for _ in range(envs)]
        lengths: list[list[int]] = [[] for _ in range(envs)]
        reward_sum, length = np.zeros(envs, np.float64), np.zeros(envs, np.int64)
        try:
            policy = setup.algorithm.make_policy(env.spec)
            policy.load(weights)
            obs = run("reset", env.reset, seed)
            while any(len(done) < due for done, due in zip(returns, quota, strict=True)):
                if render and not returns[0]:
                    frames.append(run("render", env.render).copy())
                step = run("step", env.step, policy.act_greedy(obs))
                vector_steps += 1
                obs = step.obs
                reward_sum[step.valid] += step.reward[step.valid]
                length[step.valid] += 1
                for b in np.flatnonzero((step.terminated | step.truncated) & step.valid):
                    if len(returns[b]) < quota[b]:
                        returns[b].append(float(reward_sum[b]))
                        lengths[b].append(int(length[b]))
                    reward_sum[b], length[b] = 0.0, 0
                if length.max() > MAX_EPISODE_STEPS:
                    raise TrainingError(
                        f"an evaluation episode of {setup.env.id!r} did not end within {MAX_EPISODE_STEPS} steps; "
                        "give the environment a time limit (gymnasium.wrappers.TimeLimit)"
                    )
        finally:
            env.close()
        if video_path is not None:
            write_mp4(video_path, frames)
        return EvalResult(_in_order(returns), _in_order(lengths), video_path)


def assign(episodes: int) -> tuple[int, list[int]]:
    """How many environments to step together, and how many episodes each of them plays.

    As many environments as fit under `MAX_ENVS` while every one plays the same number of episodes or one fewer.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    each = -(-episodes // MAX_ENVS)
    envs = -(-episodes // each)
    return envs, [episodes // envs + (b < episodes % envs) for b in range(envs)]


def _in_order(by_env: list[list[N]]) -> list[N]:
    """First every environment's first episode, then every second one, and so on."""
    return [done[i] for i in range(max(map(len, by_env))) for done in by_env if i < len(done)]

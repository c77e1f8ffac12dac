"""The actor that measures: whole episodes, raw returns, and a video of the first one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import Place, PlacedPolicy, RecurrentPolicy, Weights
from rlray.train import threads
from rlray.train.failures import EnvironmentFailed, TrainingError
from rlray.train.histograms import Histogram, of_evaluation
from rlray.train.sources import AlgorithmSource, EnvSource
from rlray.train.video import Recording

T = TypeVar("T")
N = TypeVar("N", int, float)

MAX_ENVS = 16
"""Environments stepped together at most: more would only wait longer for the longest episode."""

MAX_EPISODE_STEPS = 200_000
"""Agent steps after which an episode is taken to be endless; Atari's own limit is 27,000."""

MAX_ACTIONS = 200_000
"""Actions, about, that the histogram of an evaluation's actions is made of: the first ones."""


@dataclass(frozen=True)
class EvaluatorSetup:
    """What an evaluator is made from; small enough to travel in the message that creates it."""

    env: EnvSource
    algorithm: AlgorithmSource
    num_cpus: float
    explore: bool = False  # act as in training, not greedily


@dataclass
class EvalResult:
    """Exactly as many complete episodes as were asked for, in the order in which they were assigned."""

    returns: list[float]  # raw
    lengths: list[int]  # agent steps
    explored: bool = False  # not greedy
    video: str | None = None  # where it was written
    trouble: str | None = None  # why there is no video, where one was asked for
    gif: bytes | None = field(default=None, repr=False, compare=False)  # the beginning of the video
    histograms: dict[str, Histogram] = field(default_factory=dict, repr=False, compare=False)  # by tag

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Population standard deviation over the episodes."""
        return float(np.std(self.returns))

    def __str__(self) -> str:
        how = ", exploring" if self.explored else ""
        return f"{self.mean:.2f} ± {self.std:.2f} (raw return, mean ± std over {len(self.returns)} episodes{how})"


class Evaluator:
    """Plays greedy episodes, or where it is to ``explore`` such as training plays.

    Guarantees: the same weights, episodes, seed and step give the same result. Episodes are assigned to environments
    before the first step and every one of them is played to its end, so that short episodes are not preferred (taking
    the first N that end would). Environments are made for each call and closed after it. A disk that is full costs the
    video and nothing else.
    """

    def __init__(self, setup: EvaluatorSetup) -> None:
        self._setup = setup
        self._threads: int | None = None

    def evaluate(
        self, weights: Weights, episodes: int, seed: int, video_path: str | None = None, step: int = 0
    ) -> EvalResult:
        """Play ``episodes`` with ``weights``.

        Args:
            seed: of the environments, and of exploring; nothing else in here is random.
            video_path: where to write the first episode as an mp4; None for no video.
            step: the run's agent steps, for the schedules of exploring.

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

        video = Recording(video_path)
        env = run("make", setup.env.make, envs, self._threads, video.wanted)
        acted: list[NDArray[Any]] = []
        returns: list[list[float]] = [[] for _ in range(envs)]
        lengths: list[list[int]] = [[] for _ in range(envs)]
        reward_sum, length = np.zeros(envs, np.float64), np.zeros(envs, np.int64)
        with ExitStack() as stack:
            stack.callback(env.close)
            stack.enter_context(video)
            policy = setup.algorithm.make_policy(env.spec)
            recurrent = policy if isinstance(policy, RecurrentPolicy) else None
            if setup.explore and isinstance(policy, PlacedPolicy):
                policy.place(Place(0, envs, envs))
            policy.load(weights)
            rng = np.random.default_rng(seed)
            obs, first = run("reset", env.reset, seed), np.ones(envs, np.bool_)
            while any(len(done) < due for done, due in zip(returns, quota, strict=True)):
                if video.wanted and not returns[0]:
                    video.add(run("render", env.render))
                if recurrent is not None:
                    recurrent.begin(first)
                actions = policy.act(obs, step, rng)[0] if setup.explore else policy.act_greedy(obs)
                if vector_steps * envs < MAX_ACTIONS:
                    acted.append(np.array(actions))
                answer = run("step", env.step, actions)
                vector_steps += 1
                obs, first = answer.obs, answer.begins
                reward_sum[answer.valid] += answer.reward[answer.valid]
                length[answer.valid] += 1
                for b in np.flatnonzero((answer.terminated | answer.truncated) & answer.valid):
                    if len(returns[b]) < quota[b]:
                        returns[b].append(float(reward_sum[b]))
                        lengths[b].append(int(length[b]))
                    reward_sum[b], length[b] = 0.0, 0
                if length.max() > MAX_EPISODE_STEPS:
                    raise TrainingError(
                        f"an evaluation episode of {setup.env.id!r} did not end within {MAX_EPISODE_STEPS} steps; "
                        "give the environment a time limit (gymnasium.wrappers.TimeLimit)"
                    )
        done, took = _in_order(returns), _in_order(lengths)
        histograms = of_evaluation(weights, env.spec.action_space, acted, done, took)
        return EvalResult(done, took, setup.explore, video.path, video.trouble, video.gif, histograms)


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

"""The task that plays: some trials of a round, whole episodes each, on environments that its process has at hand."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import Cast, Outcomes, Trials, Weights
from rlray.envs.types import EnvSpec, SingleEnv
from rlray.train import seeds
from rlray.train.evaluator import MAX_EPISODE_STEPS
from rlray.train.failures import EnvironmentFailed, NotFiniteFound, TrainingError
from rlray.train.not_finite import keep_evidence
from rlray.train.simulator import RolloutStats
from rlray.train.sources import AlgorithmSource, EnvSource

T = TypeVar("T")


@dataclass(frozen=True)
class TrialSetup:
    """What all tasks of a run are told; it travels once."""

    run: str  # a name that no other run has
    env: EnvSource
    spec: EnvSpec
    algorithm: AlgorithmSource
    seed: int  # of the run
    envs: int  # stepped together in a task
    failures: str = "failures"  # the folder for episodes with numbers that are none

    def trials(self) -> Trials:
        """The algorithm's."""
        return self.algorithm.make_trials(self.spec)


@dataclass(frozen=True)
class Part:
    """Which trials a task plays: everything random in them follows from this and the run's seed."""

    number: int  # of the part within its round
    round: int
    first: int  # trial
    count: int
    attempt: int = 0  # one more each time an environment has raised


def make_shared(setup: TrialSetup) -> NDArray[Any] | None:
    """What all tasks of the run and the learner read."""
    return setup.trials().shared(np.random.default_rng(seeds.sequence(setup.seed, seeds.Role.SHARED)))


def play_trials(
    setup: TrialSetup, shared: Any, weights: Weights, version: int, part: Part
) -> tuple[Outcomes, RolloutStats]:
    """Play ``part`` with ``weights`` of that ``version``.

    Guarantees: the same arguments give the same outcomes, whichever process plays them, however many trials are in the
    part and however many environments step together.

    Raises:
        EnvironmentFailed: an environment raised.
        NotFiniteFound: an environment gave a number that is none; the episode's place has been saved.
    """
    wanted = min(setup.envs, part.count)
    envs = _run(setup, part, "make", lambda: CACHE.take(setup.run, setup.env.make_single, wanted))
    try:
        outcomes, env_seconds, policy_seconds = _Stage(setup, envs[:wanted], part).play(weights, shared)
    except BaseException:
        close_all(envs)  # whatever state they are in
        raise
    CACHE.give_back(setup.run, envs)
    stats = RolloutStats(part.number, part.round, part.number, outcomes.steps, version, env_seconds, policy_seconds)
    stats.returns, stats.lengths = outcomes.returns.ravel().tolist(), outcomes.lengths.ravel().tolist()
    return outcomes, stats


@dataclass
class _Slot:
    """One environment, and the trial that it plays."""

    env: SingleEnv
    trial: int = 0
    seeds: Iterator[int] = field(default_factory=lambda: iter(()))  # of the trial's episodes that are to come
    seed: int = 0  # of the running one
    total: float = 0.0  # raw return so far
    length: int = 0


class _Stage:
    """Plays a part: every environment has one trial after the other, in the order in which they become free."""

    def __init__(self, setup: TrialSetup, envs: list[SingleEnv], part: Part) -> None:
        self._setup, self._part = setup, part
        self._trials = setup.trials()
        self._slots = [_Slot(env) for env in envs]
        self._waiting = iter(range(part.first, part.first + part.count))
        space = setup.spec.observation_space
        self._obs: NDArray[Any] = np.empty((len(envs), *(space.shape or ())), space.dtype)
        self._returns: list[list[float]] = [[] for _ in range(part.count)]
        self._lengths: list[list[int]] = [[] for _ in range(part.count)]
        self._floats = self._obs.dtype.kind == "f"
        self._limit = self._trials.max_steps or MAX_EPISODE_STEPS

    def play(self, weights: Weights, shared: Any) -> tuple[Outcomes, float, float]:
        """The outcomes, and the seconds that environments and policies took."""
        cast = self._trials.cast(weights, shared, len(self._slots))
        active = [index for index in range(len(self._slots)) if self._next_trial(cast, index)]
        begin, env_seconds = time.perf_counter(), 0.0
        while active:
            chosen = np.array(active)
            obs = self._obs if len(active) == len(self._obs) else self._obs[chosen]
            if self._floats and not np.isfinite(obs).all():
                raise self._not_finite(active, obs)
            actions = cast.act(obs, chosen)
            between = time.perf_counter()
            ended = [index for index, action in zip(active, actions, strict=True) if self._step(index, action)]
            env_seconds += time.perf_counter() - between
            for index in ended:
                if not self._next_episode(index) and not self._next_trial(cast, index):
                    active.remove(index)
        took = time.perf_counter() - begin
        part = self._part
        outcomes = Outcomes(
            part.round,
            np.arange(part.first, part.first + part.count),
            np.array(self._returns, np.float64),
            np.array(self._lengths, np.int64),
            cast.extras(),
        )
        return outcomes, env_seconds, took - env_seconds

    def _next_trial(self, cast: Cast, index: int) -> bool:
        """Give the slot what waits; whether there was anything."""
        trial = next(self._waiting, None)
        if trial is None:
            return False
        part, slot, trials = self._part, self._slots[index], self._trials
        own = seeds.sequence(self._setup.seed, seeds.Role.TRIAL, part.round, part.attempt, trial // trials.group)
        common = seeds.sequence(self._setup.seed, seeds.Role.TRIAL, part.round, part.attempt)
        episodes = (common if trials.same_episodes else own).generate_state(trials.episodes, np.uint32)
        slot.trial = trial
        slot.seeds = iter([int(word) >> 1 for word in episodes])
        cast.assign(index, trial, np.random.default_rng(own.spawn(1)[0]))
        return self._next_episode(index)

    def _next_episode(self, index: int) -> bool:
        """Begin the trial's next episode; whether it has one."""
        slot = self._slots[index]
        seed = next(slot.seeds, None)
        if seed is None:
            return False
        slot.seed, slot.total, slot.length = seed, 0.0, 0
        self._obs[index] = self._call("reset", slot, slot.env.reset, seed)
        return True

    def _step(self, index: int, action: Any) -> bool:
        """Whether the episode ended."""
        slot = self._slots[index]
        self._obs[index], reward, terminated, truncated = self._call("step", slot, slot.env.step, action)
        slot.total += reward
        slot.length += 1
        if not (terminated or truncated or slot.length >= self._limit):
            return False
        if not math.isfinite(slot.total):
            raise self._not_finite([index], self._obs[index : index + 1])
        if slot.length >= MAX_EPISODE_STEPS:
            raise TrainingError(
                f"an episode of {self._setup.env.id!r} did not end within {MAX_EPISODE_STEPS} steps; give the "
                "environment a time limit (gymnasium.wrappers.TimeLimit), or set max_steps"
            )
        row = slot.trial - self._part.first
        self._returns[row].append(slot.total)
        self._lengths[row].append(slot.length)
        return True

    def _call(self, doing: str, slot: _Slot, call: Callable[[Any], T], argument: Any) -> T:
        try:
            return call(argument)
        except Exception as error:
            raise _failed(self._setup, self._part, doing, error, slot.seed, slot.length) from error

    def _not_finite(self, active: list[int], obs: NDArray[Any]) -> NotFiniteFound:
        """The error about the first slot that shows such a number, or has summed one up."""
        bad = ~np.isfinite(obs.reshape(len(active), -1)).all(axis=1)
        slot = self._slots[active[int(bad.argmax())]]
        what = "an observation" if bad.any() else "a reward"
        kept = keep_evidence(Path(self._setup.failures), "task", {"obs": obs, "part": vars(self._part)})
        return NotFiniteFound(
            f"{_name(self._part)}: environment {self._setup.env.id!r} (seed {slot.seed}) gave {what} that is infinite "
            f"or not a number, up to step {slot.length}: look into the environment. {kept}"
        )


class EnvCache:
    """Environments that outlive the task that made them, so that the next one need not make them again.

    Guarantees: whoever takes them has them for itself until it gives them back. A process keeps those of one run, the
    last that played in it; those of another are closed. Nothing of an episode outlives it: each begins with a seed.
    """

    def __init__(self) -> None:
        self._kept: dict[str, list[SingleEnv]] = {}

    def take(self, run: str, make: Callable[[], SingleEnv], count: int) -> list[SingleEnv]:
        """At least ``count`` environments of ``run``; what is missing is made."""
        envs = self._kept.pop(run, [])
        self.clear()
        try:
            while len(envs) < count:
                envs.append(make())
        except BaseException:
            close_all(envs)
            raise
        return envs

    def give_back(self, run: str, envs: list[SingleEnv]) -> None:
        """Keep them for the next task."""
        self.clear()
        self._kept[run] = envs

    def clear(self) -> None:
        """Close what is kept."""
        while self._kept:
            close_all(self._kept.popitem()[1])


CACHE = EnvCache()
"""Of this process."""


def close_all(envs: list[SingleEnv]) -> None:
    """Close environments, of which some may have failed."""
    for env in envs:
        with contextlib.suppress(Exception):  # what led here is told already
            env.close()


def _run(setup: TrialSetup, part: Part, doing: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception as error:
        raise _failed(setup, part, doing, error, 0, 0) from error


def _failed(setup: TrialSetup, part: Part, doing: str, error: Exception, seed: int, step: int) -> EnvironmentFailed:
    return EnvironmentFailed.during(doing, setup.env.id, _name(part), seed, step, error)


def _name(part: Part) -> str:
    return f"task {part.number} of round {part.round}"

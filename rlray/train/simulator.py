"""The actor that plays: vectorised environments and a copy of the policy, on CPUs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from rlray import method
from rlray.algos.types import Fragment, Policy, Weights
from rlray.envs.types import VecStep, VectorEnv
from rlray.train import seeds, threads
from rlray.train.failures import EnvironmentFailed
from rlray.train.fragments import FragmentBuilder
from rlray.train.sources import AlgorithmSource, EnvSource

T = TypeVar("T")


@dataclass(frozen=True)
class SimulatorSetup:
    """What a simulator is made from; small enough to travel in the message that creates it."""

    env: EnvSource
    algorithm: AlgorithmSource
    number: int  # which simulator of the run, from 0
    life: int  # 0, then one more each time it had to be replaced
    stream: int  # never used before in this run
    seed: int  # of the run
    envs: int  # B
    fragment_length: int  # T
    num_cpus: float

    def sequences(self) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
        """Where the random numbers of the environments and of the policy come from."""
        envs, policy = seeds.sequence(self.seed, seeds.Role.SIMULATOR, self.number, self.life).spawn(2)
        return envs, policy

    @property
    def env_seed(self) -> int:
        """What the environments are reset with."""
        return seeds.integer(self.sequences()[0])


@dataclass
class RolloutStats:
    """The small half of a rollout: all that the driver ever sees of it."""

    simulator: int
    stream: int
    sequence: int
    steps: int  # agent steps, dummy reset steps not counted
    version: int  # of the weights that chose the actions
    env_seconds: float
    policy_seconds: float
    returns: list[float] = field(default_factory=list)  # raw, one per episode that ended, in order of ending
    lengths: list[int] = field(default_factory=list)  # agent steps of the same episodes


class Simulator:
    """Owns ``B`` environments and a policy, and turns weights into fragments.

    Guarantees: fragments of one stream follow each other without a gap; the same setup and the same sequence of
    calls give the same fragments, bit for bit. Nothing expensive and nothing of the user's runs in the constructor:
    `start` does that, or else the first rollout, so that what it raises arrives as an ordinary exception of a call.
    """

    def __init__(self, setup: SimulatorSetup) -> None:
        self._setup = setup
        self._started = False
        self._sequence = 0
        self._version: int | None = None
        self._vector_steps = 0

    def start(self) -> None:
        """Make policy and environments and reset them, once.

        Raises: EnvironmentFailed where the environment cannot be made or reset.
        """
        if self._started:
            return
        setup = self._setup
        count = threads.limit_torch(setup.num_cpus)
        _, policy_seeds = setup.sequences()
        self._rng = np.random.default_rng(policy_seeds)
        seeds.seed_torch(policy_seeds)
        self._env: VectorEnv = self._run("make", setup.env.make, setup.envs, count)
        self._policy: Policy = setup.algorithm.make_policy(self._env.spec)
        self._obs = self._run("reset", self._env.reset, setup.env_seed)
        self._first = np.ones(setup.envs, np.bool_)
        self._return = np.zeros(setup.envs, np.float64)
        self._length = np.zeros(setup.envs, np.int64)
        self._started = True

    @method(num_returns=2)
    def rollout(self, weights: Weights, version: int, step: int) -> tuple[Fragment, RolloutStats]:
        """Play ``T`` steps of the ``B`` environments.

        Args:
            weights: what the policy shall run with; looked at only when ``version`` is another than last time.
            version: of the weights.
            step: the run's count of agent steps before this fragment, for the policy's schedules.

        Raises: EnvironmentFailed where an environment raises in ``step``.
        """
        self.start()
        setup = self._setup
        if version != self._version:
            self._policy.load(weights)
            self._version = version
        builder = FragmentBuilder(self._env.spec, setup.fragment_length, setup.envs)
        stats = RolloutStats(setup.number, setup.stream, self._sequence, 0, version, 0.0, 0.0)
        for _ in range(setup.fragment_length):
            begin = time.perf_counter()
            actions, extras = self._policy.act(self._obs, step + stats.steps, self._rng)
            builder.before(self._obs, self._first, actions, extras)
            between = time.perf_counter()
            answer = self._run("step", self._env.step, actions)
            stats.policy_seconds += between - begin
            stats.env_seconds += time.perf_counter() - between
            builder.after(answer)
            self._count(answer, stats)
            self._obs = answer.obs
            self._first = answer.terminated | answer.truncated | ~answer.valid
            self._vector_steps += 1
        fragment = builder.finish(setup.stream, self._sequence, self._obs)
        self._sequence += 1
        return fragment, stats

    def _count(self, answer: VecStep, stats: RolloutStats) -> None:
        """Add raw rewards to the running episodes, and report those that ended."""
        stats.steps += int(answer.valid.sum())
        self._return[answer.valid] += answer.reward[answer.valid]
        self._length[answer.valid] += 1
        for b in np.flatnonzero((answer.terminated | answer.truncated) & answer.valid):
            stats.returns.append(float(self._return[b]))
            stats.lengths.append(int(self._length[b]))
            self._return[b], self._length[b] = 0.0, 0

    def _run(self, doing: str, call: Callable[..., T], *args: Any) -> T:
        """Call into the environment; what it raises is told with all that is needed to find it again."""
        try:
            return call(*args)
        except Exception as error:
            setup = self._setup
            who = f"simulator {setup.number}"
            steps = self._vector_steps
            raise EnvironmentFailed.during(doing, setup.env.id, who, setup.env_seed, steps, error) from error

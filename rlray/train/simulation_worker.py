"""The process that plays for `rlray.simulate`: many environments, a way to choose actions, and no learning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import RecurrentPolicy, Weights
from rlray.envs.types import VecStep, VectorEnv
from rlray.train import seeds, threads
from rlray.train.failures import EnvironmentFailed
from rlray.train.random_actions import random_actions
from rlray.train.sources import AlgorithmSource, EnvSource
from rlray.train.tally import Summary, Tally

T = TypeVar("T")

TELL_SECONDS = 0.25
"""How often it tells how far it is."""


@dataclass(frozen=True)
class Share:
    """What one process plays; small enough to travel in a message."""

    env: EnvSource
    algorithm: AlgorithmSource | None  # None: random actions
    number: int  # which of the simulation's processes, from 0
    life: int  # 0, then one more each time it had to be replaced
    seed: int  # of the simulation
    envs: int  # B
    steps: int  # agent steps to play, rounded up to a whole step of all environments
    num_cpus: float

    def sequences(self) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
        """Where the random numbers of the environments and of the actions come from."""
        envs, actions = seeds.sequence(self.seed, seeds.Role.SIMULATION, self.number, self.life).spawn(2)
        return envs, actions


@dataclass(frozen=True)
class Played:
    """What one life of a process has played so far."""

    steps: int  # agent steps, dummy reset steps not counted
    seconds: float  # since its first step
    cpu_seconds: float  # of the process, in the same time
    returns: Summary  # raw, of the episodes that ended
    lengths: Summary  # agent steps of the same episodes

    @classmethod
    def nothing(cls) -> Played:
        """Of a life that has not told anything."""
        return cls(0, 0.0, 0.0, Summary(), Summary())


def play(share: Share, weights: Weights | None) -> Iterator[Played]:
    """Play ``share``; says how far it is before the first step, every `TELL_SECONDS`, and at the end.

    Guarantees: the same share and weights play the same episodes. Nothing here runs once per environment.

    Raises: EnvironmentFailed where the environment raised.
    """
    env_seeds, action_seeds = share.sequences()
    seed, steps, vector_steps = seeds.integer(env_seeds), 0, 0
    env: VectorEnv | None = None

    def run(doing: str, call: Callable[..., T], *args: Any) -> T:
        try:
            return call(*args)
        except Exception as error:
            who = f"process {share.number}"
            raise EnvironmentFailed.during(doing, share.env.id, who, seed, vector_steps, error) from error

    try:
        env = run("make", share.env.make, share.envs, threads.count(share.num_cpus))
        act = _actor(share, env, weights, np.random.default_rng(action_seeds))
        obs = run("reset", env.reset, seed)
        returns, lengths = Tally(), Tally()
        reward_sum, began_at = np.zeros(share.envs), np.zeros(share.envs, np.int64)  # of the running episodes
        began, cpu = time.perf_counter(), time.process_time()
        told = began

        def played() -> Played:
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
            return Played(steps, seconds, cpu_seconds, returns.summary(), lengths.summary())

        yield played()
        step_envs, before = env.step, None
        while steps < share.steps:
            actions = act(obs, before)
            try:  # as `run`, without the cost of a call in the only loop that is hot
                answer = step_envs(actions)
            except Exception as error:
                run("step", _raise, error)
            vector_steps += 1
            obs, before = answer.obs, answer
            reward_sum += answer.reward
            counted = int(np.count_nonzero(answer.valid))
            steps += counted
            if counted < share.envs:
                began_at[~answer.valid] = vector_steps
            ended = answer.final_index
            if ended.size:
                returns.add(reward_sum[ended])
                lengths.add((vector_steps - began_at[ended]).astype(np.float64))
                reward_sum[ended], began_at[ended] = 0.0, vector_steps
            if time.perf_counter() - told >= TELL_SECONDS:
                told = time.perf_counter()
                yield played()
        yield played()
    finally:
        if env is not None:
            env.close()


def _actor(
    share: Share, env: VectorEnv, weights: Weights | None, rng: np.random.Generator
) -> Callable[[NDArray[Any], VecStep | None], NDArray[Any]]:
    """What chooses actions [B, ...] for observations [B, ...] and the step that led to them, None after a reset."""
    if share.algorithm is None:
        draw = random_actions(env.spec.action_space, share.envs, rng)
        return lambda obs, before: draw()
    threads.limit_torch(share.num_cpus)
    policy = share.algorithm.make_policy(env.spec)
    assert weights is not None
    policy.load(weights)
    if not isinstance(policy, RecurrentPolicy):
        return lambda obs, before: policy.act_greedy(obs)

    def act(obs: NDArray[Any], before: VecStep | None) -> NDArray[Any]:
        policy.begin(np.ones(share.envs, np.bool_) if before is None else before.begins)
        return policy.act_greedy(obs)

    return act


def _raise(error: Exception) -> None:
    raise error

"""The actor that plays: vectorised environments and a copy of the policy, on CPUs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlray import method
from rlray.algos.types import CompletingPolicy, Fragment, Place, PlacedPolicy, Policy, RecurrentPolicy, Weights
from rlray.envs.types import VecStep, VectorEnv
from rlray.train import seeds, threads
from rlray.train.checkpoint import load_checkpoint
from rlray.train.failures import EnvironmentFailed
from rlray.train.fragments import FragmentBuilder
from rlray.train.not_finite import check_fragment
from rlray.train.pacing import Pace, Paced
from rlray.train.seats import Seated
from rlray.train.simulator_state import PlayState, env_came_back, env_state, part_of
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
    failures: str = "failures"  # the folder for fragments with numbers that are none
    keep_episodes: bool = True  # whether a checkpoint keeps running episodes where the environment can tell its state
    place: Place | None = None  # which of the run's environments these are; None: the first of ``envs``
    group: str | None = None  # its name, where there are several
    realtime_hz: float | None = None  # steps of each environment per second of wall-clock time; None: not paced

    @property
    def who(self) -> str:
        """What messages call it."""
        return f"simulator {self.number}" + (f" ({self.group})" if self.group else "")

    def sequences(self) -> tuple[np.random.SeedSequence, np.random.SeedSequence]:
        """Where the random numbers of the environments and of the policy come from."""
        envs, policy = seeds.sequence(self.seed, seeds.Role.SIMULATOR, self.number, self.life).spawn(2)
        return envs, policy

    @property
    def env_seed(self) -> int:
        """What the environments are reset with."""
        return seeds.integer(self.sequences()[0])

    def seed_after_cut(self, steps: int) -> int:
        """What the environments are reset with where they begin anew at the checkpoint after ``steps`` of the run."""
        return seeds.integer(seeds.sequence(self.seed, seeds.Role.CUT, self.number, self.life, steps))


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
    paced_seconds: float = 0.0  # wall-clock time that its steps took up, pauses before it included; 0: not paced
    late_seconds: float = 0.0  # by which they began too late, summed


class Simulator(Seated):
    """Owns ``B`` environments and a policy, and turns weights into fragments.

    Guarantees: fragments of one stream follow each other without a gap; the same setup and the same sequence of
    calls give the same fragments, bit for bit, also where `load` stands between two of them. Nothing expensive and
    nothing of the user's runs in the constructor: `start` does that, or else the first rollout, so that what it raises
    arrives as an ordinary exception of a call.
    """

    def __init__(self, setup: SimulatorSetup) -> None:
        self._setup = setup
        self._started = False
        self._version: int | None = None

    def start(self) -> None:
        """Make policy and environments and reset them, once.

        Raises: EnvironmentFailed where the environment cannot be made or reset.
        """
        if self._started:
            return
        self._prepare()
        self._obs = self._run("reset", self._env.reset, self._play.env_seed)
        self._started = True

    @method(num_returns=2)
    def rollout(self, weights: Weights, version: int, step: int) -> tuple[Fragment, RolloutStats]:
        """Play ``T`` steps of the ``B`` environments.

        Args:
            weights: what the policy shall run with; looked at only when ``version`` is another than last time.
            version: of the weights.
            step: the run's count of agent steps before this fragment, for the policy's schedules.

        Raises:
            EnvironmentFailed: an environment raised in ``step``.
            NotFiniteFound: an environment gave a number that is none; the fragment has been saved.
        """
        self.start()
        setup, play = self._setup, self._play
        if version != self._version:
            self._policy.load(weights)
            self._version = version
        builder, paced = FragmentBuilder(self._env.spec, setup.fragment_length, setup.envs), Paced()
        stats = RolloutStats(setup.number, play.stream, play.sequence, 0, version, 0.0, 0.0)
        for _ in range(setup.fragment_length):
            begin = time.perf_counter()
            if self._recurrent is not None:
                self._recurrent.begin(play.first)
            actions, extras = _both(self._policy.act(self._obs, step + stats.steps, self._rng))
            builder.before(self._obs, play.first, actions, extras)
            stats.policy_seconds += time.perf_counter() - begin
            if self._pace is not None:
                self._pace.wait(paced)
            begin = time.perf_counter()
            answer = self._run("step", self._env.step, actions)
            stats.env_seconds += time.perf_counter() - begin
            builder.after(answer)
            self._count(answer, stats)
            self._obs = answer.obs
            play.first = answer.begins
            play.vector_steps += 1
        stats.paced_seconds, stats.late_seconds = paced.seconds, paced.late_seconds
        fragment = builder.finish(play.stream, play.sequence, self._obs)
        if isinstance(self._policy, CompletingPolicy):
            begin = time.perf_counter()
            self._policy.complete(fragment)
            stats.policy_seconds += time.perf_counter() - begin
        who = f"{setup.who}: environment {setup.env.id!r} (seed {play.env_seed})"
        check_fragment(fragment, who, play.vector_steps - setup.fragment_length, Path(setup.failures))
        play.sequence += 1
        return fragment, stats

    def begin_stream(self, stream: int) -> None:
        """Let the next fragment be the first of ``stream``: those before it will not be learned from."""
        self.start()
        self._play.stream, self._play.sequence = stream, 0

    @method(num_returns=2)
    def snapshot(self, steps: int, stream: int) -> tuple[dict[str, Any], bool]:
        """All that `load` needs to go on from here, and whether running episodes are in it.

        Where they are not, because the environment cannot tell its state or the setup does not want it, the
        environments begin anew, here as after a resume, with seeds that depend on ``steps``, the run's; the next
        fragment is then the first of ``stream``.

        Raises: EnvironmentFailed where they cannot be made or reset.
        """
        self.start()
        saved = env_state(self._env) if self._setup.keep_episodes else None
        if saved is None:
            self._cut(steps, stream)
        state = {"env": saved, "obs": np.array(self._obs), **part_of(self._play, self._rng, self._policy)}
        return state, saved is not None

    def load(self, state: dict[str, Any], steps: int) -> str | None:
        """Go on from a `snapshot`; returns a complaint where the environments did not come back to where they were.

        They have then begun anew, with the seeds that `snapshot` would have given them; `begin_stream` must follow.

        Raises: EnvironmentFailed where they cannot be made or reset.
        """
        self._prepare()
        self._version = None
        self._play.load(state, self._rng, self._policy)
        self._started = True
        if state["env"] is None:
            self._obs = self._run("reset", self._env.reset, self._play.env_seed)
            return None
        self._obs, complaint = env_came_back(self._env, state)
        if complaint is None:
            return None
        self._cut(steps, self._play.stream)
        return f"{self._setup.who}: {complaint}; its episodes begin anew, as a new stream"

    def load_from(self, checkpoint: str, steps: int) -> str | None:
        """`load` what ``checkpoint`` holds of this simulator."""
        part = f"simulator_{self._setup.number}"
        return self.load(load_checkpoint(checkpoint, [part])[part], steps)

    def _prepare(self) -> None:
        """Make policy and environments, anew where there are some."""
        setup = self._setup
        if self._started:
            self._env.close()
        self._threads = threads.limit_torch(setup.num_cpus)
        _, policy_seeds = setup.sequences()
        self._rng = np.random.default_rng(policy_seeds)
        seeds.seed_torch(policy_seeds)
        self._play = PlayState(setup.stream, setup.env_seed, setup.envs)
        self._pace = Pace(setup.realtime_hz) if setup.realtime_hz is not None else None
        self._make()
        self._policy: Policy = setup.algorithm.make_policy(self._env.spec)
        self._recurrent = self._policy if isinstance(self._policy, RecurrentPolicy) else None
        if isinstance(self._policy, PlacedPolicy):
            self._policy.place(setup.place or Place(0, setup.envs, setup.envs))

    def _make(self) -> None:
        self._env: VectorEnv = self._run("make", self._setup.env.make, self._setup.envs, self._threads)

    def _cut(self, steps: int, stream: int) -> None:
        """Begin new episodes on new environments, so that nothing of the old ones can play a part."""
        self._env.close()
        self._play = PlayState(stream, self._setup.seed_after_cut(steps), self._setup.envs)
        self._make()
        self._obs = self._run("reset", self._env.reset, self._play.env_seed)

    def _count(self, answer: VecStep, stats: RolloutStats) -> None:
        """Add raw rewards to the running episodes, and report those that ended."""
        play = self._play
        stats.steps += int(answer.valid.sum())
        play.reward_sum[answer.valid] += answer.reward[answer.valid]
        play.length[answer.valid] += 1
        for b in np.flatnonzero((answer.terminated | answer.truncated) & answer.valid):
            stats.returns.append(float(play.reward_sum[b]))
            stats.lengths.append(int(play.length[b]))
            play.reward_sum[b], play.length[b] = 0.0, 0

    def _run(self, doing: str, call: Callable[..., T], *args: Any) -> T:
        """Call into the environment; what it raises is told with all that is needed to find it again."""
        try:
            return call(*args)
        except Exception as error:
            play, env, who = self._play, self._setup.env.id, self._setup.who
            raise EnvironmentFailed.during(doing, env, who, play.env_seed, play.vector_steps, error) from error


def _both(acted: Any) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """What ``act`` returned, taken apart."""
    if not (isinstance(acted, tuple) and len(acted) == 2 and isinstance(acted[1], dict)):
        raise TypeError(f"act() must return actions and a dict of extras, possibly empty, but returned {acted!r:.80}")
    return acted

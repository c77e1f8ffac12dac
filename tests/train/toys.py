"""A small environment and a small algorithm with real semantics whose every number can be computed by hand."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pydantic import BaseModel, ConfigDict

from rlray.algos.types import Algorithm, Fragment, LearnerContext, Metrics, Place, Weights
from rlray.envs.types import EnvSpec


class Corridor(gymnasium.Env[Any, Any]):
    """Walk right for ``length`` steps: reward ``prize`` at the end; truncated after ``limit`` steps. Action 1 is right.

    The observation is (position, steps of this episode, a number drawn at reset). It can be told to misbehave:
    ``fail`` is ``"reset"`` or ``"step"`` to raise there, ``"die"`` to kill its own process in a step, ``"reward"`` or
    ``"obs"`` to give one that is not a number, ``"straight"`` to raise after ``fail_at`` steps right and none else.
    A walk straight to the end takes ``slow_walk`` seconds: evaluations do that, random walks hardly ever.
    ``fail_at`` counts the steps since it was made; ``once`` names a file that is made when it fails and keeps it from
    failing again, in any process.
    """

    def __init__(
        self,
        length: int = 5,
        limit: int = 20,
        fail: str = "",
        fail_at: int = 0,
        once: str = "",
        sleep: float = 0.0,
        prize: float = 1.0,
        slow_walk: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = spaces.Box(-1.0, 1e6, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.render_mode = render_mode
        self.length, self.limit, self.fail, self.fail_at, self.once, self.sleep, self.prize, self.slow_walk = (
            length,
            limit,
            fail,
            fail_at,
            once,
            sleep,
            prize,
            slow_walk,
        )
        self.total = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._misbehave("reset")
        self.at, self.steps, self.drawn = 0, 0, float(self.np_random.random())
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.total += 1
        if self.total > self.fail_at:
            self._misbehave("step")
        time.sleep(self.sleep)
        self.at += 1 if action == 1 else 0
        self.steps += 1
        if self.at == self.steps == self.length:
            time.sleep(self.slow_walk)
        if self.at == self.steps == self.fail_at:
            self._misbehave("straight")
        done = self.at >= self.length
        lost = self.total > self.fail_at
        if self.fail == "obs" and lost:
            self.drawn = float("inf")
        reward = float("nan") if self.fail == "reward" and lost else self.prize * done
        return self._obs(), reward, done, not done and self.steps >= self.limit, {}

    def render(self) -> Any:
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, min(15, self.at)] = 255
        return picture

    def _obs(self) -> Any:
        return np.array([self.at, self.steps, self.drawn], np.float32)

    def _misbehave(self, where: str) -> None:
        wanted = "step" if self.fail == "die" else self.fail
        if wanted != where:
            return
        if self.once and not first_to_make(self.once):
            return
        if self.fail == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError(f"the corridor fell in at {where}")


class Counted(Corridor):
    """Shows how many episodes there have been: it depends on more than one episode's seed and actions."""

    episodes = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes += 1.0
        self.drawn = self.episodes
        return self._obs(), {}


def first_to_make(path: str) -> bool:
    """Make the file; whether it was not there before."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class CountingSettings(BaseModel):
    """Settings of `CountingLearner`."""

    model_config = ConfigDict(extra="forbid")
    right: float = 0.5
    """Probability of walking right while exploring."""
    seconds: float = 0.0
    """How long learning from one fragment takes."""
    fail_at: int = -1
    """The fragment at which the learner raises; below zero never."""
    die_at: int = -1
    """The fragment at which the learner's process is killed."""
    once: str = ""
    """A file that is made when that happens, and keeps it from happening again."""
    nan_at: int = -1
    """The fragment whose loss is no number, counted from 1."""
    greedy_once: str = ""
    """A file: the process that makes it, in its first greedy step, is killed there."""
    greedy_dies: bool = False
    """Each greedy step kills its process."""
    greedy_raises: bool = False


class CountingPolicy:
    """Walks right with a given probability; greedy it always does."""

    def __init__(self, spec: EnvSpec, settings: CountingSettings) -> None:
        self.settings = settings
        self.count = -1
        self.loads = 0

    def load(self, weights: Weights) -> None:
        self.count = int(weights["count"])
        self.loads += 1

    def act(self, obs: Any, step: int, rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
        actions = (rng.random(len(obs)) < self.settings.right).astype(np.int64)
        return actions, {"count": np.full(len(obs), self.count), "step": np.full(len(obs), step)}

    def act_greedy(self, obs: Any) -> Any:
        if self.settings.greedy_raises:
            raise ValueError("no greedy action today")
        if self.settings.greedy_dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.greedy_once and first_to_make(self.settings.greedy_once):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.ones(len(obs), np.int64)


class CountingLearner:
    """Its only weight counts its fragments; it checks what fragments promise while it counts.

    ``luck`` adds up random numbers, its own and torch's: nothing may be drawn twice, or left out. The replay keeps what
    the last fragments began with.
    """

    def __init__(self, spec: EnvSpec, settings: CountingSettings, context: LearnerContext) -> None:
        self.settings = settings
        self.count = 0
        self.reward = 0.0
        self.luck = 0.0
        self.rng = np.random.default_rng(context.seed)
        self.replay = np.zeros((4, *spec.frame_shape), np.float32)
        self.next: dict[int, tuple[int, Any]] = {}  # by stream: how many fragments came, what the next begins with

    def learn(self, fragment: Fragment) -> Metrics:
        if self.count == self.settings.fail_at:
            raise ArithmeticError("this cannot be learned")
        if self.count == self.settings.die_at and (not self.settings.once or first_to_make(self.settings.once)):
            os.kill(os.getpid(), signal.SIGKILL)
        sequence, obs = self.next.get(fragment.stream, (0, fragment.obs[0]))
        assert fragment.sequence == sequence, f"stream {fragment.stream}: {fragment.sequence} after {sequence - 1}"
        assert np.array_equal(fragment.obs[0], obs), "the fragments of a stream do not follow each other"
        self.next[fragment.stream] = sequence + 1, np.array(fragment.last_obs)
        time.sleep(self.settings.seconds)
        self.replay[self.count % 4] = fragment.obs[0, 0]
        self.count += 1
        self.reward += float(fragment.reward.sum())
        self.luck += float(self.rng.random() + torch.rand(()))
        loss = float("nan") if self.count == self.settings.nan_at else float(fragment.obs.sum())
        return {"updates": 1.0, "loss": loss, "reward_sum": self.reward, "luck": self.luck}

    def weights(self) -> Weights:
        return {"count": np.array(self.count), "ballast": np.zeros(100_000)}

    def state(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "reward": self.reward,
            "luck": self.luck,
            "rng": self.rng.bit_generator.state,
            "fragments": {str(stream): count for stream, (count, _) in self.next.items()},
            "next": {str(stream): obs for stream, (_, obs) in self.next.items()},
            "replay": self.replay,
        }

    def load_state(self, state: Any) -> None:
        self.count, self.reward, self.luck = state["count"], state["reward"], state["luck"]
        self.rng.bit_generator.state = state["rng"]
        self.next = {int(s): (count, state["next"][s].copy()) for s, count in state["fragments"].items()}
        if "replay" in state:
            self.replay[:] = state["replay"]


ALGORITHM = Algorithm("counting", CountingSettings, CountingPolicy, CountingLearner)


class AgeingPolicy(CountingPolicy):
    """Counts the steps of each episode itself; greedy it walks right only where the observation agrees."""

    age: Any = None

    def begin(self, first: Any) -> None:
        self.age = np.zeros(len(first), np.int64) if self.age is None else np.where(first, 0, self.age)

    def act(self, obs: Any, step: int, rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
        self.age = self.age + 1
        return super().act(obs, step, rng)[0], {"age": self.age - 1}

    def act_greedy(self, obs: Any) -> Any:
        self.age = self.age + 1
        return (self.age - 1 == obs[:, 1]).astype(np.int64)

    def state(self) -> dict[str, Any]:
        return {"age": self.age}

    def load_state(self, state: Any) -> None:
        self.age = state["age"]


AGEING = Algorithm("ageing", CountingSettings, AgeingPolicy, CountingLearner)


WARM_UNTIL = 100
"""The step of a run before which `WARMING` does not walk right."""


class WarmingPolicy(CountingPolicy):
    """Has a schedule: it stands still first, then it walks right; it wants to be placed."""

    def place(self, place: Place) -> None:
        self.envs = place.envs

    def act(self, obs: Any, step: int, rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
        assert self.envs == len(obs)
        return np.full(len(obs), int(step >= WARM_UNTIL)), {}


WARMING = Algorithm("warming", CountingSettings, WarmingPolicy, CountingLearner)


class LedgerSettings(CountingSettings):
    """Settings of `LedgerReplay` and `LedgerLearner`."""

    due: int | None = 5
    """Updates for each fragment; None: as many as the learner can do."""
    most: int = 2


class NumberedPolicy(CountingPolicy):
    """Keeps with each step the number of its environment in the run, and turns it around once all is played."""

    def place(self, place: Place) -> None:
        self.numbers = np.arange(place.first, place.first + place.envs) + 1000 * place.total

    def act(self, obs: Any, step: int, rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
        return super().act(obs, step, rng)[0], {"number": self.numbers}

    def complete(self, fragment: Fragment) -> None:
        fragment.extras["number"] = -fragment.extras["number"]


class LedgerReplay:
    """Gives out numbers, one for each update, and wants each of them back once; it checks what comes in."""

    def __init__(self, spec: EnvSpec, settings: LedgerSettings, context: LearnerContext) -> None:
        self.settings, self.most = settings, settings.most
        self.fragments = CountingLearner(spec, CountingSettings(), context)
        self.rng = np.random.default_rng(context.seed)
        self.steps = self.given = self.back = 0
        self.numbers: set[int] = set()  # of the environments that fragments came from

    def add(self, fragment: Fragment) -> tuple[int | None, Metrics]:
        self.fragments.learn(fragment)
        self.steps += fragment.steps
        self.numbers |= set(np.unique(fragment.extras["number"]).tolist())
        return self.settings.due, {"replay_fill": 0.5}

    def draw(self, updates: int) -> dict[str, Any]:
        assert 1 <= updates <= self.most
        numbers = np.arange(self.given, self.given + updates)
        self.given += updates
        return {"numbers": numbers, "luck": self.rng.random(updates), "ballast": np.zeros(100_000)}

    def take_back(self, returned: Any) -> None:
        assert list(returned) == list(range(self.back, self.back + len(returned)))
        self.back += len(returned)

    def state(self) -> dict[str, Any]:
        counts = {"steps": self.steps, "given": self.given, "back": self.back, "numbers": sorted(self.numbers)}
        fragments = self.fragments.state()
        replay = fragments.pop("replay")
        return {**counts, "fragments": fragments, "rng": self.rng.bit_generator.state, "replay": replay}

    def load_state(self, state: Any) -> None:
        self.steps, self.given, self.back = state["steps"], state["given"], state["back"]
        self.numbers = set(state["numbers"])
        self.fragments.load_state({**state["fragments"], **({"replay": state["replay"]} if "replay" in state else {})})
        self.rng.bit_generator.state = state["rng"]


class LedgerLearner:
    """Wants the numbers in order, none twice and none left out."""

    def __init__(self, spec: EnvSpec, settings: LedgerSettings, context: LearnerContext) -> None:
        self.settings, self.count, self.luck = settings, 0, 0.0

    def learn_drawn(self, drawn: Any) -> tuple[Metrics, Any]:
        assert list(drawn["numbers"]) == list(range(self.count, self.count + len(drawn["numbers"])))
        time.sleep(self.settings.seconds)
        self.count += len(drawn["numbers"])
        self.luck += float(drawn["luck"].sum())
        return {"updates": float(len(drawn["numbers"])), "loss": self.luck}, drawn["numbers"]

    def weights(self) -> Weights:
        return {"count": np.array(self.count)}

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "luck": self.luck}

    def load_state(self, state: Any) -> None:
        self.count, self.luck = state["count"], state["luck"]


LEDGER = Algorithm("ledger", LedgerSettings, NumberedPolicy, LedgerLearner, make_replay=LedgerReplay)


class ShortOrLong(gymnasium.Env[Any, Any]):
    """Every other episode, by a coin tossed at reset, lasts 1 step with return 0, or 40 steps with return 1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 40 if self.np_random.random() < 0.5 else 1
        self.reward = float(self.left == 40)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(1, np.float32), self.reward if self.left == 0 else 0.0, self.left == 0, False, {}


class Impossible(gymnasium.Env[Any, Any]):
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("the device is busy")


def Together(num_envs: int, length: int = 5) -> Any:
    """Corridors stepped by gymnasium itself, whose state nobody can ask for."""
    return SyncVectorEnv([lambda: Corridor(length)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)

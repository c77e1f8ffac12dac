"""Tiny vector environments with known answers, and a loop that plays them and hands on the fragments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from rlray.algos.types import Fragment, Policy, RecurrentPolicy
from rlray.envs.types import EnvSpec, VecStep


class Toy(ABC):
    """Same-step autoreset around `begin` and `move`, written for one environment at a time."""

    spec: EnvSpec

    def __init__(self, num_envs: int, seed: int = 0) -> None:
        self.num_envs = num_envs
        self.rng = np.random.default_rng(seed)
        self.cells: list[Any] = [None] * num_envs

    @abstractmethod
    def begin(self) -> Any:
        """A first state."""

    @abstractmethod
    def move(self, state: Any, action: int) -> tuple[Any, float, bool, bool]:
        """Next state, reward, terminated, truncated."""

    @abstractmethod
    def look(self, state: Any) -> np.ndarray:
        """The whole observation of a state."""

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.cells = [self.begin() for _ in range(self.num_envs)]
        return np.stack([self.look(state) for state in self.cells])

    def step(self, actions: np.ndarray) -> VecStep:
        moved = [self.move(state, int(action)) for state, action in zip(self.cells, actions, strict=True)]
        terminated = np.array([m[2] for m in moved])
        truncated = np.array([m[3] for m in moved])
        index = np.flatnonzero(terminated | truncated)
        finals = [self.look(moved[b][0]) for b in index]
        self.cells = [self.begin() if b in index else m[0] for b, m in enumerate(moved)]
        return VecStep(
            obs=np.stack([self.look(state) for state in self.cells]),
            reward=np.array([m[1] for m in moved], np.float32),
            terminated=terminated,
            truncated=truncated,
            valid=np.ones(self.num_envs, np.bool_),
            final_index=index,
            final_obs=np.stack(finals) if finals else None,
        )


class Endings(Toy):
    """Six states, one-hot; actions do nothing. Each shows another way for an episode to go on or to end.

    state 0: reward 1, terminated, seeming to lead back to 0        value 1
    state 1: reward 1, truncated, leading back to 1                 value 1 + g v(1) = 1 / (1 - g)
    state 2: reward 0, truncated, leading to 3                      value g v(3)
    state 3: reward 3, terminated                                   value 3
    state 4: reward 1, leads to 0                                   value 1 + g
    state 5: reward -1, leads to 2                                  value -1 + g^2 v(3)
    """

    spec = EnvSpec("Endings-v0", spaces.Box(0, 1, (6,), np.float32), spaces.Discrete(2))

    @staticmethod
    def values(g: float) -> list[float]:
        return [1, 1 / (1 - g), 3 * g, 3, 1 + g, -1 + 3 * g * g]

    def begin(self) -> int:
        return int(self.rng.integers(6))

    def move(self, state: int, action: int) -> tuple[int, float, bool, bool]:
        return (
            (0, 1.0, True, False), (1, 1.0, False, True), (3, 0.0, False, True),
            (3, 3.0, True, False), (0, 1.0, False, False), (2, -1.0, False, False),
        )[state]  # fmt: skip

    def look(self, state: int) -> np.ndarray:
        return np.eye(6, dtype=np.float32)[state]


class Corridor(Toy):
    """Seven cells, one-hot. Right at the far end: reward 1, terminated. Truncated after 20 steps without it."""

    spec = EnvSpec("Corridor-v0", spaces.Box(0, 1, (7,), np.float32), spaces.Discrete(2, start=1))
    shortest = 7

    def begin(self) -> tuple[int, int]:
        return 0, 0

    def move(self, state: tuple[int, int], action: int) -> tuple[tuple[int, int], float, bool, bool]:
        assert action in (1, 2)
        cell, time = state
        if action == 2 and cell == 6:
            return (cell, time + 1), 1.0, True, False
        cell = min(max(cell + (1 if action == 2 else -1), 0), 6)
        return (cell, time + 1), 0.0, False, time + 1 == 20

    def look(self, state: tuple[int, int]) -> np.ndarray:
        return np.eye(7, dtype=np.float32)[state[0]]


class Catch(Toy):
    """Pictures: a ball comes down in a slanted line, and must be caught. Two frames show where it is going.

    Reward 1 or -1 in the last of 4 steps; a random policy catches about every other one.
    """

    size = 6
    height = 4
    spec = EnvSpec("Catch-v0", spaces.Box(0, 255, (2, 6, 6), np.uint8), spaces.Discrete(3), frame_stack=2, pad="repeat")

    def begin(self) -> dict[str, int]:
        drift = int(self.rng.integers(-1, 2))
        low, high = max(0, -self.height * drift), min(self.size, self.size - self.height * drift)
        ball = int(self.rng.integers(low, high))
        return {"row": 0, "ball": ball, "drift": drift, "paddle": int(self.rng.integers(1, self.size - 1))}

    def move(self, state: dict[str, int], action: int) -> tuple[dict[str, int], float, bool, bool]:
        paddle = min(max(state["paddle"] + action - 1, 1), self.size - 2)
        moved = {**state, "row": state["row"] + 1, "ball": state["ball"] + state["drift"], "paddle": paddle}
        if moved["row"] < self.height:
            return moved, 0.0, False, False
        return moved, 1.0 if abs(moved["ball"] - paddle) <= 1 else -1.0, True, False

    def look(self, state: dict[str, int]) -> np.ndarray:
        before = {**state, "row": state["row"] - 1, "ball": state["ball"] - state["drift"]} if state["row"] else state
        return np.stack([self._frame(before), self._frame(state)])

    def _frame(self, state: dict[str, int]) -> np.ndarray:
        frame = np.full((self.size, self.size), 30, np.uint8)
        frame[state["row"], state["ball"]] = 220
        frame[-1, state["paddle"] - 1 : state["paddle"] + 2] = 140
        return frame


class Aim(Toy):
    """One step: two numbers are shown, and the closer the action to them, the better."""

    spec = EnvSpec("Aim-v0", spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-1, 1, (2,), np.float32))

    def begin(self) -> np.ndarray:
        return self.rng.uniform(-0.8, 0.8, 2).astype(np.float32)

    def move(self, state: np.ndarray, action: int) -> tuple[np.ndarray, float, bool, bool]:
        return state, 0.0, True, False

    def look(self, state: np.ndarray) -> np.ndarray:
        return state

    def step(self, actions: np.ndarray) -> VecStep:
        assert all(self.spec.action_space.contains(action) for action in actions)
        reward = -np.square(self.unit(actions) - np.stack(self.cells)).sum(axis=1)
        return replace(super().step(np.zeros(self.num_envs)), reward=reward)

    def unit(self, actions: np.ndarray) -> np.ndarray:
        """Actions in -1 ... 1."""
        return actions


class AimFar(Aim):
    """The same with other bounds, another shape and another dtype."""

    low, high = np.array([[10.0], [-6.0]]), np.array([[11.0], [2.0]])
    spec = EnvSpec("AimFar-v0", Aim.spec.observation_space, spaces.Box(low, high, dtype=np.float64))

    def unit(self, actions: np.ndarray) -> np.ndarray:
        return (2 * (actions - self.low) / (self.high - self.low) - 1)[:, :, 0]


class Idle(Endings):
    """`Endings` with a continuous action that does as little."""

    spec = EnvSpec("Idle-v0", Endings.spec.observation_space, spaces.Box(-1, 1, (1,), np.float32))

    @staticmethod
    def values(g: float, bonus: float = 0.0) -> list[float]:
        """Where every decision but the first earns ``bonus``."""
        return [
            1,
            (1 + g * bonus) / (1 - g),
            g * (3 + bonus),
            3,
            1 + g * (1 + bonus),
            -1 + g * (bonus + g * (3 + bonus)),
        ]

    def step(self, actions: np.ndarray) -> VecStep:
        return super().step(actions[:, 0])


class CatchFreely(Catch):
    """`Catch` with one continuous action: left below -1/3, right above 1/3."""

    spec = EnvSpec("CatchFreely-v0", Catch.spec.observation_space, spaces.Box(-1, 1, (1,), np.float32), 2, "repeat")

    def step(self, actions: np.ndarray) -> VecStep:
        return super().step(np.rint(1.5 * actions[:, 0]).clip(-1, 1) + 1)


class Recall(Toy):
    """A number is shown at the first of ``delay + 1`` steps, then nothing; reward 1 or -1 for that action at the last.

    What has to be done at the last step cannot be seen there.
    """

    delay = 4
    spec = EnvSpec("Recall-v0", spaces.Box(0, 1, (3,), np.float32), spaces.Discrete(2))

    def begin(self) -> tuple[int, int]:
        return int(self.rng.integers(2)), 0

    def move(self, state: tuple[int, int], action: int) -> tuple[tuple[int, int], float, bool, bool]:
        cue, time = state
        if time < self.delay:
            return (cue, time + 1), 0.0, False, False
        return (cue, time + 1), 1.0 if action == cue else -1.0, True, False

    def look(self, state: tuple[int, int]) -> np.ndarray:
        cue, time = state
        return np.array([time == 0 and cue == 0, time == 0 and cue == 1, time >= self.delay], np.float32)


class Waiting(Endings):
    """`Endings` with next-step autoreset: after an episode there is a step that is not valid, see `VecStep`."""

    def step(self, actions: np.ndarray) -> VecStep:
        waiting = getattr(self, "waiting", np.zeros(self.num_envs, np.bool_))
        fresh = list(self.cells)
        out = super().step(actions)
        self.waiting = np.zeros(self.num_envs, np.bool_)
        kept = []
        for b in range(self.num_envs):
            if waiting[b]:
                self.cells[b] = fresh[b]
                out.reward[b], out.terminated[b], out.truncated[b], out.valid[b] = 0.0, False, False, False
            self.waiting[b] = out.terminated[b] or out.truncated[b]
        obs = np.stack([self.look(state) for state in self.cells])
        finals = dict(zip(out.final_index.tolist(), out.final_obs if out.final_obs is not None else (), strict=True))
        kept = np.flatnonzero(self.waiting)
        for b in kept:
            obs[b] = finals[b]
        return replace(out, obs=obs, final_index=kept, final_obs=obs[kept].copy() if len(kept) else None)


def fragments(env: Toy, policy: Policy, rng: np.random.Generator, length: int, stream: int = 0) -> Iterator[Fragment]:
    """Play on and on; ``policy`` may be given new weights between two fragments."""
    spec, obs = env.spec, env.reset()
    first = np.ones(env.num_envs, np.bool_)
    sequence = steps = 0
    while True:
        rows: dict[str, list[Any]] = {}
        kept: dict[str, list[Any]] = {}
        index: list[tuple[int, int]] = []
        finals: list[np.ndarray] = []
        for t in range(length):
            if isinstance(policy, RecurrentPolicy):
                policy.begin(first)
            action, extras = policy.act(obs, steps, rng)
            for name, value in extras.items():
                kept.setdefault(name, []).append(value.copy())
            out = env.step(action)
            row = {"obs": newest(spec, obs), "first": first, "action": action, "reward": out.reward}
            row |= {"terminated": out.terminated, "truncated": out.truncated, "valid": out.valid}
            for name, value in row.items():
                rows.setdefault(name, []).append(value.copy())
            if out.final_obs is not None:
                index += [(t, int(b)) for b in out.final_index]
                finals += list(newest(spec, out.final_obs))
            obs, first = out.obs, out.begins
            steps += int(out.valid.sum())
        yield Fragment(
            stream=stream,
            sequence=sequence,
            final_index=np.array(index, np.int64).reshape(-1, 2),
            final_obs=np.array(finals, obs.dtype).reshape(-1, *spec.frame_shape),
            last_obs=obs.copy(),
            extras={name: np.stack(values) for name, values in kept.items()},
            **{name: np.stack(values) for name, values in rows.items()},
        )
        sequence += 1


def newest(spec: EnvSpec, obs: np.ndarray) -> np.ndarray:
    return obs[:, -1] if spec.frame_stack > 1 else obs


def mean_return(env: Toy, policy: Policy, episodes: int) -> float:
    """Of greedy episodes, as many in each environment."""
    obs, total, ended = env.reset(), 0.0, np.zeros(env.num_envs, int)
    quota, first = episodes // env.num_envs, np.ones(env.num_envs, np.bool_)
    while (ended < quota).any():
        if isinstance(policy, RecurrentPolicy):
            policy.begin(first)
        out = env.step(policy.act_greedy(obs))
        total += float(out.reward[ended < quota].sum())
        ended += out.terminated | out.truncated
        obs, first = out.obs, out.begins
    return total / (quota * env.num_envs)

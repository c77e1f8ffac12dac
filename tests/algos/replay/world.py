"""An oracle for replays: it keeps everything in lists and knows what each observation really was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlray.algos.replay import NStepReplay
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec

DISCOUNT = 0.9


def make_spec(stack: int = 1, pad: str = "zero", floats: bool = False, box: bool = False) -> EnvSpec:
    shape = (3,) if floats else (2, 2)
    shape = (stack, *shape) if stack > 1 else shape
    space = spaces.Box(-np.inf, np.inf, shape, np.float32) if floats else spaces.Box(0, 255, shape, np.uint8)
    actions = spaces.Box(-1, 1, (2, 1), np.float32) if box else spaces.Discrete(7)
    return EnvSpec("Test-v0", space, actions, frame_stack=stack, pad=pad)


@dataclass
class Played:
    """One step as it really happened."""

    seen: np.ndarray  # the whole observation before it
    after: np.ndarray  # the whole observation after it, the true final one at an end
    action: Any
    reward: float
    terminated: bool
    truncated: bool
    frames: list[int]  # the frame numbers that ``seen`` shows


class Column:
    """One environment whose every frame is different."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps: list[Played | None] = []  # None: a dummy reset step
        self.begin()

    def begin(self) -> None:
        self.episode = [self.world.new_frame()]
        self.first = True
        self.resetting = False

    def stacked(self) -> np.ndarray:
        spec = self.world.spec
        shown = [self.world.frame(number) for number in self.episode[-spec.frame_stack :]]
        if spec.frame_stack == 1:
            return shown[-1]
        blank = np.zeros_like(shown[0]) if spec.pad == "zero" else shown[0]
        return np.stack([blank] * (spec.frame_stack - len(shown)) + shown)


class World:
    """Simulators that play random episodes, and the oracle that remembers them all."""

    def __init__(self, spec: EnvSpec, capacity: int, n_step: int, seed: int, clip: bool = False) -> None:
        self.spec, self.capacity, self.n_step, self.clip = spec, capacity, n_step, clip
        self.rng = np.random.default_rng(seed)
        self.frame_count = 0
        self.position: dict[int, int] = {}  # frame number -> where in the order of writing; lost ones are missing
        self.written = 0
        self.columns: dict[int, list[Column]] = {}
        self.sequence: dict[int, int] = {}

    def new_frame(self) -> int:
        self.frame_count += 1
        return self.frame_count

    def frame(self, number: int) -> np.ndarray:
        raw = np.array([number >> 16, number >> 8 & 255, number & 255, 1])
        return (
            raw.reshape(2, 2).astype(np.uint8)
            if self.spec.observation_space.dtype == np.uint8
            else (raw[1:] / 8).astype(np.float32)
        )

    def play(self, stream: int, steps: int, columns: int, lost: bool = False) -> Fragment:
        """The next fragment of a stream; a ``lost`` one never reaches the replay."""
        if stream not in self.columns:
            self.columns[stream] = [Column(self) for _ in range(columns)]
            self.sequence[stream] = -1
        self.sequence[stream] += 1
        shape = (steps, columns)
        fields: dict[str, Any] = {
            name: np.zeros(shape, dtype)
            for name, dtype in (
                ("first", bool), ("reward", np.float32), ("terminated", bool),
                ("truncated", bool), ("valid", bool),
            )
        }  # fmt: skip
        actions = self.spec.action_space
        fields["action"] = np.zeros((*shape, *(actions.shape or ())), actions.dtype)
        obs = np.zeros((*shape, *self.spec.frame_shape), self.spec.observation_space.dtype)
        finals: list[tuple[tuple[int, int], int]] = []
        order: list[int] = []
        for t in range(steps):
            for b, column in enumerate(self.columns[stream]):
                obs[t, b] = self.frame(column.episode[-1])
                fields["first"][t, b] = column.first
                step = self._step(column)
                fields["valid"][t, b] = step is not None
                if step is None:
                    continue
                order.append(step.frames[-1])
                for name in ("action", "reward", "terminated", "truncated"):
                    fields[name][t, b] = getattr(step, name)
                if step.terminated or step.truncated:
                    finals.append(((t, b), self.frame_count - 1))
        order += [number for _, number in finals]
        if not lost:
            self.position.update({number: self.written + k for k, number in enumerate(order)})
            self.written += len(order)
        return Fragment(
            stream=stream,
            sequence=self.sequence[stream],
            obs=obs,
            final_index=np.array([index for index, _ in finals], np.int64).reshape(-1, 2),
            final_obs=np.array([self.frame(n) for _, n in finals], obs.dtype).reshape(-1, *self.spec.frame_shape),
            last_obs=np.stack([column.stacked() for column in self.columns[stream]]),
            **fields,
        )

    def _step(self, column: Column) -> Played | None:
        rng = self.rng
        if column.resetting:
            column.begin()
            column.steps.append(None)
            return None
        seen, frames = column.stacked(), column.episode[-self.spec.frame_stack :]
        ends = rng.random() < 0.15
        terminated = bool(ends and rng.random() < 0.6)
        truncated = bool(ends and (not terminated or rng.random() < 0.2))
        column.episode.append(self.new_frame())
        shape = self.spec.action_space.shape
        action = rng.uniform(-1, 1, shape).astype(np.float32) if shape else int(rng.integers(7))
        step = Played(seen, column.stacked(), action, float(rng.integers(-3, 4)), terminated, truncated, frames)
        column.steps.append(step)
        column.first = False
        if ends:
            column.begin()
            column.resetting = bool(rng.random() < 0.5)  # both kinds of autoreset, mixed
        return step

    def transitions(self) -> dict[bytes, tuple[Any, float, float, np.ndarray]]:
        """All that may be drawn now, by the content of s_tm1."""
        oldest = self.written - self.capacity
        found = {}
        for column in (c for columns in self.columns.values() for c in columns):
            for i, step in enumerate(column.steps):
                if step is None or any(self.position.get(n, -1) < max(oldest, 0) for n in step.frames):
                    continue
                value, factor, last = 0.0, 1.0, None
                for k in range(self.n_step):
                    here = column.steps[i + k] if i + k < len(column.steps) else None
                    if here is None or here.frames[-1] not in self.position:
                        break
                    value += factor * (max(-1.0, min(1.0, here.reward)) if self.clip else here.reward)
                    factor *= DISCOUNT
                    if here.terminated or here.truncated:
                        last, factor = here.after, 0.0 if here.terminated else factor
                        break
                else:
                    follower = column.steps[i + self.n_step] if i + self.n_step < len(column.steps) else None
                    if follower is not None and follower.frames[-1] in self.position:
                        last = follower.seen
                if last is not None:
                    found[step.seen.tobytes()] = (step.action, value, factor, last)
        return found


def assert_same(world: World, replay: NStepReplay, rng: np.random.Generator) -> int:
    expected = world.transitions()
    assert replay.eligible == len(expected)
    assert len(replay) == min(world.written, world.capacity)
    if not expected:
        with pytest.raises(ValueError, match="no complete transition"):
            replay.sample(1, rng)
        return 0
    batch = replay.sample(10 * len(expected), rng)
    drawn = set()
    for k in range(len(batch.r_t)):
        key = batch.s_tm1[k].tobytes()
        if key in drawn:
            continue
        drawn.add(key)
        action, value, factor, after = expected[key]
        assert np.array_equal(batch.a_tm1[k], action)
        assert abs(batch.r_t[k] - value) < 1e-5
        assert abs(batch.discount_t[k] - factor) < 1e-6
        assert not factor or np.array_equal(batch.s_t[k], after)
    assert len(drawn) > 0.9 * len(expected)  # each is missed with a probability of e^-10
    return len(expected)

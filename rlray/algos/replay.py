"""Uniform n-step replay that stores each frame once.

All fragments of all simulators go into ONE ring of slots, oldest first, and what belongs together is linked:

    slot      |  5 |  6 |  7 |  8 |  9 | 10 |
    previous  |  5 |  5 |  6 |  8 |  8 |  7 |   the frame before it in its episode, itself for a first one
    following |  6 |  7 | 10 |  9 |    |    |   the step after it, or the final observation of its episode
    successor | 10 |    |    |    |    |    |   s_t of the transition that starts here, -1 while it is not known

So simulators, environments and restarts come and go without any share of the ring being theirs, and nothing can glue
two frames together but a link, which is made only where a fragment says that one observation followed the other.
Links to the past point to older slots and links to the future to newer ones; the ring forgets the oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.returns import n_step_returns
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec

Array = NDArray[Any]


@dataclass
class Batch:
    """Transitions in the names of the papers; ``t`` is m <= n steps after ``t - 1``."""

    s_tm1: Array  # [B, *observation_shape] as the environment's dtype
    a_tm1: Array  # [B, ...]
    r_t: Array  # [B] float32, the discounted sum of m rewards
    discount_t: Array  # [B] float32, gamma^m, or 0 where the episode terminated within the m steps
    s_t: Array  # [B, *observation_shape]


@dataclass
class _Stream:
    """Where the columns of one simulator life left off. Positions count all slots ever written."""

    sequence: int  # of its last fragment
    tail: NDArray[np.int64]  # [B] position of the last step, -1 where the next observation starts an episode
    age: NDArray[np.int64]  # [B] of the last step
    whole: NDArray[np.bool_]  # [B] of the last step
    pending: NDArray[np.int64]  # [P] positions of steps whose n-step window is not complete
    end: int  # position after its last slot


def replay_bytes(spec: EnvSpec, capacity: int) -> int:
    """Bytes of memory that an `NStepReplay` of ``capacity`` steps grows to; nothing is allocated."""
    return capacity * sum(dtype.itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in _fields(spec).values())


class NStepReplay:
    """Holds the last ``capacity`` observations of any number of streams and draws n-step transitions from them.

    Guarantees: every eligible transition is drawn with the same probability. Eligible is a valid step whose n-step
    window is complete (n further steps are known, or its episode ended) and whose stacked frames are all still held.
    The window stops where the episode ends: at a truncation it bootstraps from the true final observation, at a
    termination not at all. Over a gap (a fragment that never came, a replaced simulator) nothing is linked. The ring's
    pages are touched only when they are first written. Not safe for use by several threads at once.

    Args:
        spec: of one environment; says frame shape, stacking and padding.
        capacity: in observations held: one for each step, and one more for the final observation of each episode.
        n_step: n, at least 1.
        discount: gamma.
        clip_reward: clip each reward to [-1, 1] before it is summed. What is stored stays raw.

    Raises:
        TypeError: the observation space has no shape and dtype.
        ValueError: a number out of range.
    """

    def __init__(
        self, spec: EnvSpec, capacity: int, n_step: int = 1, discount: float = 0.99, clip_reward: bool = False
    ) -> None:
        if not 2 <= capacity < 2**31:
            raise ValueError(f"capacity must lie in 2 ... 2^31 - 1 steps, got {capacity}")
        if n_step < 1:
            raise ValueError(f"n_step must be at least 1, got {n_step}")
        if not 0 <= discount <= 1:
            raise ValueError(f"discount must lie in 0 ... 1, got {discount}")
        self.spec, self.capacity, self.n_step = spec, capacity, n_step
        self.discount, self.clip_reward = discount, clip_reward
        self._stack = spec.frame_stack
        # zeros, unlike full, leaves the pages untouched until they are written
        self._at: dict[str, Array] = {n: np.zeros((capacity, *s), d) for n, (d, s) in _fields(spec).items()}
        self._at["successor"].fill(-1)
        self._written = 0  # slots ever written: the next position
        self._eligible = 0
        self._streams: dict[int, _Stream] = {}
        self._choices: NDArray[np.int64] | None = None  # the eligible slots, once listed since the last change

    def __len__(self) -> int:
        """Observations held."""
        return min(self._written, self.capacity)

    @property
    def fill(self) -> float:
        """The part of the capacity in use, 0 to 1."""
        return len(self) / self.capacity

    @property
    def eligible(self) -> int:
        """Transitions that `sample` can draw."""
        return self._eligible

    def memory_bytes(self) -> int:
        """What it takes when full (see `replay_bytes` for the same before making one)."""
        return replay_bytes(self.spec, self.capacity)

    def add(self, fragment: Fragment) -> None:
        """Take in a fragment; its arrays are copied. Steps that are not valid are left out.

        Raises: ValueError where its shapes do not fit the spec, each other or the capacity.
        """
        steps, ended = self._check(fragment)
        played = int(steps.sum())
        count = played + len(fragment.final_index)
        self._make_room(count)
        begin, self._written = self._written, self._written + count
        self._choices = None
        oldest = self._written - self.capacity  # positions below this one are gone
        self._streams = {number: s for number, s in self._streams.items() if s.end > oldest}

        position = np.full(steps.shape, -1, np.int64)
        position[steps] = np.arange(begin, begin + played)
        t, b = fragment.final_index.T

        stream = self._continued(fragment, max(oldest, 0))
        starts = fragment.first.copy()
        starts[1:] |= ended[:-1] | ~steps[:-1]
        before = np.concatenate([stream.tail[None], position[:-1]])
        before[starts] = -1
        age, whole = _ages(before, starts, stream)

        self._write("frame", begin, fragment.obs[steps] if not steps.all() else _rows(fragment.obs))
        self._write("frame", begin + played, fragment.final_obs)
        for name in ("action", "reward", "terminated", "truncated"):
            self._write(name, begin, getattr(fragment, name)[steps])
        previous = np.concatenate([before[steps], position[t, b]])
        everywhere = np.arange(begin, self._written)
        self._write("previous", begin, np.where(previous >= 0, previous, everywhere) % self.capacity)
        self._write("age", begin, np.minimum(np.concatenate([age[steps], age[t, b] + 1]), self._stack - 1))
        self._write("following", begin, np.full(count, -1))
        self._write("successor", begin, np.full(count, -1))
        linked = previous >= 0
        self._at["following"][previous[linked] % self.capacity] = everywhere[linked] % self.capacity

        # A stack is complete when it reaches back to the episode's start or is all known after a gap.
        complete = steps & (whole | (age >= self._stack - 1))
        self._write("intact", begin, complete[steps])
        pending = self._finish_windows(np.concatenate([stream.pending, position[complete]]))
        self._streams[fragment.stream] = _Stream(
            sequence=fragment.sequence,
            tail=np.where(ended[-1], -1, position[-1]),
            age=age[-1],
            whole=whole[-1],
            pending=pending,
            end=self._written,
        )

    def sample(self, batch_size: int, rng: np.random.Generator, out: Batch | None = None) -> Batch:
        """Draw ``batch_size`` transitions, with replacement, into ``out`` (see `make_batch`) or new arrays.

        Raises: ValueError where nothing is eligible yet.
        """
        if self._eligible == 0:
            raise ValueError("the replay holds no complete transition yet: add fragments before sampling")
        batch = self.make_batch(batch_size) if out is None else out
        slots = self._draw(batch_size, rng)
        at = self._at
        self._observations(slots, batch.s_tm1)
        self._observations(at["successor"][slots], batch.s_t)
        for name, target in (("action", batch.a_tm1), ("return", batch.r_t), ("discount", batch.discount_t)):
            np.take(at[name], slots, axis=0, out=target, mode="clip")
        return batch

    def make_batch(self, batch_size: int) -> Batch:
        """Uninitialised arrays for `sample` to fill again and again."""
        dtype, shape = _fields(self.spec)["frame"]
        stacked = (batch_size, *((self._stack,) if self._stack > 1 else ()), *shape)
        action_dtype, action_shape = _fields(self.spec)["action"]
        return Batch(
            s_tm1=np.empty(stacked, dtype),
            a_tm1=np.empty((batch_size, *action_shape), action_dtype),
            r_t=np.empty(batch_size, np.float32),
            discount_t=np.empty(batch_size, np.float32),
            s_t=np.empty(stacked, dtype),
        )

    def frames(self, limit: int) -> Array:
        """A copy of up to ``limit`` of the frames held, evenly spread [N, *frame_shape]."""
        held = len(self)
        return (
            self._at["frame"][np.linspace(0, held - 1, min(limit, held)).astype(np.int64)]
            if held
            else (self._at["frame"][:0])
        )

    def state(self) -> dict[str, Any]:
        """All it holds, trimmed to what is filled. The arrays are views: use them before the next `add`."""
        return {
            "capacity": self.capacity,
            "n_step": self.n_step,
            "written": self._written,
            "at": {name: array[: len(self)] for name, array in self._at.items()},
            "streams": [{"stream": number, **vars(stream)} for number, stream in self._streams.items()],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what another replay of the same spec, capacity and n gave as `state`; it is copied.

        Raises: ValueError where capacity or n differ.
        """
        for name in ("capacity", "n_step"):
            if state[name] != getattr(self, name):
                raise ValueError(f"the saved replay has {name} {state[name]}, this one {getattr(self, name)}")
        self._written = state["written"]
        self._at["successor"].fill(-1)
        for name, array in self._at.items():
            array[: len(self)] = state["at"][name]
        self._eligible = int(np.count_nonzero(self._at["successor"] >= 0))
        self._choices = None
        self._streams = {}
        for entry in state["streams"]:
            fields = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in entry.items() if k != "stream"}
            self._streams[entry["stream"]] = _Stream(**fields)

    def _check(self, fragment: Fragment) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The steps to keep and those that end an episode, both [T, B]."""
        shape = fragment.first.shape
        expected = (*shape, *self.spec.frame_shape)
        if len(shape) != 2 or fragment.obs.shape != expected:
            raise ValueError(
                f"fragment.obs must be [T, B, *frame_shape] = {list(expected)} for {self.spec.id}, "
                f"got {list(fragment.obs.shape)}"
            )
        steps = fragment.valid
        ended = (fragment.terminated | fragment.truncated) & steps
        finals = fragment.final_index
        if len(finals) != len(fragment.final_obs) or not np.array_equal(finals, np.argwhere(ended)):
            raise ValueError(
                f"fragment.final_index must list every ended step, by t then b, and final_obs its observation: "
                f"{int(ended.sum())} ended, {len(finals)} listed, {len(fragment.final_obs)} observations"
            )
        if int(steps.sum()) + len(finals) > self.capacity:
            raise ValueError(
                f"a fragment of {int(steps.sum())} steps and {len(finals)} final observations does not fit a replay "
                f"of capacity {self.capacity}: use shorter fragments or a larger replay"
            )
        return steps, ended

    def _make_room(self, count: int) -> None:
        """Forget the oldest slots so that ``count`` fit, and every transition whose stack they are part of."""
        excess = len(self) + count - self.capacity
        if excess <= 0:
            return
        at, first = self._at, self._written - len(self)
        slots = np.arange(first, first + excess) % self.capacity
        self._forget(slots)
        for distance in range(1, self._stack):
            slots = at["following"][slots]
            slots = slots[slots >= 0]
            self._forget(slots[at["age"][slots] >= distance])

    def _forget(self, slots: NDArray[np.int64]) -> None:
        at = self._at
        self._eligible -= int(np.count_nonzero(at["successor"][slots] >= 0))
        at["successor"][slots] = -1
        at["intact"][slots] = False

    def _continued(self, fragment: Fragment, oldest: int) -> _Stream:
        """What the fragment goes on from, as far as it is still held at the positions from ``oldest`` on.

        A blank record if this is the stream's first fragment, or one before it is missing.
        """
        at, columns = self._at, fragment.first.shape[1]
        stream = self._streams.get(fragment.stream)
        if stream is None or stream.sequence + 1 != fragment.sequence or len(stream.tail) != columns:
            blank = np.full(columns, -1, np.int64)
            return _Stream(-1, blank, np.zeros_like(blank), np.zeros(columns, np.bool_), blank[:0], 0)
        tail = np.where(stream.tail >= oldest, stream.tail, -1)
        held, cursor = np.zeros(columns, np.int64), tail
        for k in range(1, self._stack):
            slot = cursor % self.capacity
            cursor = cursor - (slot - at["previous"][slot]) % self.capacity
            held += (held == k - 1) & (stream.age >= k) & (cursor >= oldest)
        cut = held < np.minimum(stream.age, self._stack - 1)
        pending = stream.pending[stream.pending >= oldest]
        return replace(
            stream,
            tail=tail,
            age=np.where(cut, held, stream.age),
            whole=stream.whole & ~cut,
            pending=pending[at["intact"][pending % self.capacity]],
        )

    def _write(self, name: str, begin: int, values: Array) -> None:
        """Store ``values`` from position ``begin`` on, in two pieces where the ring wraps."""
        array, start = self._at[name], begin % self.capacity
        head = min(len(values), self.capacity - start)
        array[start : start + head] = values[:head]
        array[: len(values) - head] = values[head:]

    def _finish_windows(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Make eligible the steps at ``position`` whose n-step window is complete; returns the others."""
        at, start = self._at, position % self.capacity
        window = np.empty((self.n_step, len(start)), np.int64)
        cursor, successor = start, start
        going, known = np.ones(len(start), np.bool_), np.ones(len(start), np.bool_)
        for k in range(self.n_step):
            window[k] = cursor
            following = at["following"][cursor]
            known &= following >= 0  # it stays so at an ended step, which its final observation follows
            successor = np.where(going, following, successor)
            going &= known & ~at["terminated"][cursor] & ~at["truncated"][cursor]
            cursor = np.where(going, following, cursor)
        reward = at["reward"][window]
        if self.clip_reward:
            reward = np.clip(reward, -1.0, 1.0)
        r_t, discount_t, _ = n_step_returns(reward, at["terminated"][window], at["truncated"][window], self.discount)
        done = start[known]
        at["return"][done], at["discount"][done] = r_t[known], discount_t[known]
        at["successor"][done] = successor[known]
        self._eligible += len(done)
        return position[~known]

    def _draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Eligible slots, uniformly: by rejection where most are, else from the list of them."""
        successor, held = self._at["successor"], len(self)
        if 2 * self._eligible < held:
            if self._choices is None:
                self._choices = np.flatnonzero(successor[:held] >= 0)
            return self._choices[rng.integers(0, len(self._choices), count)]
        drawn = np.zeros(0, np.int64)
        while len(drawn) < count:
            more = rng.integers(0, held, count)
            drawn = np.concatenate([drawn, more[successor[more] >= 0]])
        return drawn[:count]

    def _observations(self, slots: Array, out: Array) -> None:
        """Rebuild the whole observations at ``slots`` into ``out``."""
        at, stack = self._at, self._stack
        frames = np.empty((len(slots), stack), np.int64)
        frames[:, -1] = slots
        for k in range(stack - 2, -1, -1):
            frames[:, k] = at["previous"][frames[:, k + 1]]
        flat = out.reshape(-1, *self.spec.frame_shape)
        np.take(at["frame"], frames.reshape(-1), axis=0, out=flat, mode="clip")  # "raise" would copy once more
        if self.spec.pad == "zero" and stack > 1:
            age = at["age"][slots]
            for k in range(stack - 1):
                out[age < stack - 1 - k, k] = 0


def _fields(spec: EnvSpec) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """What is kept for each slot: dtype and shape."""
    spaces = {"observation": spec.observation_space, "action": spec.action_space}
    for what, space in spaces.items():
        if space.shape is None or space.dtype is None:
            raise TypeError(f"replay needs a space of one array, but the {what} space of {spec.id} is {space}")
    index, number, flag = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.bool_)
    return {
        "frame": (np.dtype(spec.observation_space.dtype), spec.frame_shape),
        "action": (np.dtype(spec.action_space.dtype), tuple(spec.action_space.shape or ())),
        "reward": (number, ()),
        "terminated": (flag, ()),
        "truncated": (flag, ()),
        "previous": (index, ()),
        "following": (index, ()),
        "age": (np.dtype(np.uint8), ()),
        "intact": (flag, ()),
        "successor": (index, ()),
        "return": (number, ()),
        "discount": (number, ()),
    }


def _rows(array: Array) -> Array:
    """[T, B, ...] as [T * B, ...]."""
    return array.reshape(-1, *array.shape[2:])


def _ages(
    before: NDArray[np.int64], starts: NDArray[np.bool_], stream: _Stream
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each step [T, B]: how many frames before it are linked, and whether they reach its episode's start."""
    steps = np.arange(len(before))[:, None]
    root = np.maximum.accumulate(np.where(before < 0, steps, -1), axis=0)
    whole = np.where(root >= 0, np.take_along_axis(starts, np.maximum(root, 0), axis=0), stream.whole)
    return np.where(root >= 0, steps - root, steps + 1 + stream.age), whole

"""The replay: a ring of frames with links between them, and the n-step transitions that begin at its slots.

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
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.replay.drawing import Drawing, Priorities, Prioritized, Uniform
from rlray.algos.replay.slots import Array, Batch, fields, make_batch, replay_bytes
from rlray.algos.replay.streams import Stream, ages
from rlray.algos.returns import n_step_returns
from rlray.algos.types import PRIORITY, Fragment
from rlray.envs.types import EnvSpec


class NStepReplay:
    """Holds the last ``capacity`` observations of any number of streams and draws n-step transitions from them.

    Guarantees: every eligible transition is drawn with the same probability, or with that of its priority. Eligible is
    a valid step whose n-step window is complete (n further steps are known, or its episode ended) and whose stacked
    frames are all still held. The window stops where the episode ends: at a truncation it bootstraps from the true
    final observation, at a termination not at all. Over a gap (a fragment that never came, a replaced simulator)
    nothing is linked. A frame is copied once, from the fragment to its slot. The ring's pages are touched only when
    they are first written. Not safe for use by several threads at once.

    Args:
        spec: of one environment; says frame shape, stacking and padding.
        capacity: in observations held: one for each step, and one more for the final observation of each episode.
        n_step: n, at least 1.
        discount: gamma.
        clip_reward: clip each reward to [-1, 1] before it is summed. What is stored stays raw.
        priorities: draw by priority, and so; None draws uniformly.

    Raises:
        TypeError: the observation space has no shape and dtype.
        ValueError: a number out of range.
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        n_step: int = 1,
        discount: float = 0.99,
        clip_reward: bool = False,
        priorities: Priorities | None = None,
    ) -> None:
        if not 2 <= capacity < 2**31:
            raise ValueError(f"capacity must lie in 2 ... 2^31 - 1 steps, got {capacity}")
        if n_step < 1:
            raise ValueError(f"n_step must be at least 1, got {n_step}")
        if not 0 <= discount <= 1:
            raise ValueError(f"discount must lie in 0 ... 1, got {discount}")
        self.spec, self.capacity, self.n_step = spec, capacity, n_step
        self.discount, self.clip_reward, self.priorities = discount, clip_reward, priorities
        self._stack = spec.frame_stack
        kept = fields(spec, prioritized=priorities is not None)
        # zeros, unlike full, leaves the pages untouched until they are written
        self._at: dict[str, Array] = {name: np.zeros((capacity, *s), dtype) for name, (dtype, s) in kept.items()}
        self._at["successor"].fill(-1)
        self._drawing: Drawing = Prioritized(priorities, capacity) if priorities else Uniform(self._at["successor"])
        self._written = 0  # slots ever written: the next position
        self._eligible = 0
        self._streams: dict[int, Stream] = {}

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
        return replay_bytes(self.spec, self.capacity, self.priorities is not None)

    def add(self, fragment: Fragment) -> None:
        """Take in a fragment; its arrays are copied. Steps that are not valid are left out.

        By priority, the transition that begins at a step gets what ``extras["priority"]`` [T, B] says there, as soon as
        it is complete; where that is NaN, or there is none, the greatest that any ever had.

        Raises: ValueError where its shapes do not fit the spec, each other or the capacity, or a priority is negative
        or infinite.
        """
        steps, ended = self._check(fragment)
        priority = _given_priority(fragment)[steps] if self.priorities else None
        played = int(steps.sum())
        count = played + len(fragment.final_index)
        self._make_room(count)
        begin, self._written = self._written, self._written + count
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
        age, whole = ages(before, starts, stream)

        self._write_frames(begin, fragment.obs, steps)
        self._write("frame", begin + played, fragment.final_obs)
        for name in ("action", "reward", "terminated", "truncated"):
            self._write(name, begin, getattr(fragment, name)[steps])
        if priority is not None:
            self._write("priority", begin, priority)
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
        self._streams[fragment.stream] = Stream(
            sequence=fragment.sequence,
            tail=np.where(ended[-1], -1, position[-1]),
            age=age[-1],
            whole=whole[-1],
            pending=pending,
            end=self._written,
        )

    def sample(self, batch_size: int, rng: np.random.Generator, out: Batch | None = None, beta: float = 1.0) -> Batch:
        """Draw ``batch_size`` transitions, with replacement, into ``out`` (see `make_batch`) or new arrays.

        By priority, ``beta`` says how far their weights make up for being drawn more or less often than the others:
        1 wholly, 0 not at all.

        Raises: ValueError where nothing is eligible yet.
        """
        if self._eligible == 0:
            raise ValueError("the replay holds no complete transition yet: add fragments before sampling")
        batch = self.make_batch(batch_size) if out is None else out
        slots = self._drawing.draw(batch_size, len(self), rng)
        at = self._at
        self._observations(slots, batch.s_tm1)
        self._observations(at["successor"][slots], batch.s_t)
        for name, target in (("action", batch.a_tm1), ("return", batch.r_t), ("discount", batch.discount_t)):
            np.take(at[name], slots, axis=0, out=target, mode="clip")
        self._drawing.weigh(slots, self._eligible, beta, batch.weight)
        newest = self._written - 1
        np.subtract(newest, (newest - slots) % self.capacity, out=batch.index)
        return batch

    def update(self, index: NDArray[np.int64], priority: Array) -> None:
        """Give the transitions that `sample` drew as ``index`` [B] new priorities [B], >= 0.

        Those that the replay no longer holds are passed over, so that priorities may come late. Where an index stands
        twice, its last priority holds. Without priorities nothing happens.

        Raises: ValueError where a priority is negative, infinite or not a number.
        """
        priority = np.asarray(priority, np.float64)
        _check_priority(priority, "priority")
        slots = index % self.capacity
        held = (index >= self._written - self.capacity) & (index < self._written)
        held &= self._at["successor"][slots] >= 0
        self._drawing.update(slots[held], priority[held])

    def make_batch(self, batch_size: int) -> Batch:
        """Uninitialised arrays for `sample` to fill again and again."""
        return make_batch(self.spec, batch_size)

    def frames(self, limit: int) -> Array:
        """A copy of up to ``limit`` of the frames held, evenly spread [N, *frame_shape]."""
        held = len(self)
        return (
            self._at["frame"][np.linspace(0, held - 1, min(limit, held)).astype(np.int64)]
            if held
            else (self._at["frame"][:0])
        )

    def state(self) -> dict[str, Any]:
        """All it holds, trimmed to what is filled. The arrays are views: use them before the next `add` or `update`."""
        return {
            "settings": self._settings(),
            "written": self._written,
            "at": {name: array[: len(self)] for name, array in self._at.items()},
            "streams": [{"stream": number, **vars(stream)} for number, stream in self._streams.items()],
            "drawing": self._drawing.state(len(self)),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what another replay of the same spec and settings gave as `state`; it is copied.

        Raises: ValueError where the settings differ.
        """
        for name, own in self._settings().items():
            if state["settings"][name] != own:
                raise ValueError(
                    f"the saved replay has {name} {state['settings'][name]}, this one {own}: what it holds was made "
                    f"with the former, so go on with that, or without the saved replay"
                )
        self._written = state["written"]
        self._at["successor"].fill(-1)
        for name, array in self._at.items():
            array[: len(self)] = state["at"][name]
        self._eligible = int(np.count_nonzero(self._at["successor"] >= 0))
        self._drawing.load_state(state["drawing"])
        self._streams = {}
        for entry in state["streams"]:
            kept = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in entry.items() if k != "stream"}
            self._streams[entry["stream"]] = Stream(**kept)

    def _settings(self) -> dict[str, Any]:
        """What decides how the things that it holds were computed."""
        by = self.priorities
        return {
            "capacity": self.capacity,
            "n_step": self.n_step,
            "discount": self.discount,
            "clip_reward": self.clip_reward,
            "alpha": by.alpha if by else None,
            "floor": by.floor if by else None,
        }

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
        gone = slots[at["successor"][slots] >= 0]
        self._eligible -= len(gone)
        self._drawing.leave(gone)
        at["successor"][gone] = -1
        at["intact"][slots] = False

    def _continued(self, fragment: Fragment, oldest: int) -> Stream:
        """What the fragment goes on from, as far as it is still held at the positions from ``oldest`` on.

        A blank record if this is the stream's first fragment, or one before it is missing.
        """
        at, columns = self._at, fragment.first.shape[1]
        stream = self._streams.get(fragment.stream)
        if stream is None or stream.sequence + 1 != fragment.sequence or len(stream.tail) != columns:
            return Stream.blank(columns)
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

    def _write_frames(self, begin: int, obs: Array, steps: NDArray[np.bool_]) -> None:
        """Store those of ``obs`` [T, B, ...] that ``steps`` marks, each copied once."""
        rows = obs.reshape(-1, *obs.shape[2:])
        if steps.all():
            self._write("frame", begin, rows)
            return
        index, start = np.flatnonzero(steps), begin % self.capacity
        head = min(len(index), self.capacity - start)
        for which, to in ((index[:head], start), (index[head:], 0)):
            target = self._at["frame"][to : to + len(which)]
            np.take(rows, which, axis=0, out=target, mode="clip")  # "raise" would copy once more

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
        self._drawing.enter(done, at["priority"][done] if self.priorities else None)
        return position[~known]

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


def _given_priority(fragment: Fragment) -> NDArray[np.float32]:
    """[T, B] float32, NaN where nothing is known."""
    shape, given = fragment.first.shape, fragment.extras.get(PRIORITY)
    if given is None:
        return np.full(shape, np.nan, np.float32)
    if given.shape != shape:
        raise ValueError(f'fragment.extras["{PRIORITY}"] must be [T, B] = {list(shape)}, got {list(given.shape)}')
    _check_priority(given[fragment.valid & ~np.isnan(given)], f'fragment.extras["{PRIORITY}"]')
    return given.astype(np.float32, copy=False)


def _check_priority(priority: Array, name: str) -> None:
    wrong = ~((priority >= 0) & (priority < np.inf))
    if wrong.any():
        raise ValueError(
            f"{name} must be finite and not negative, got {priority[wrong][0]} (and {int(wrong.sum()) - 1} more like "
            f"it): give the absolute TD error, or a loss that cannot be negative"
        )

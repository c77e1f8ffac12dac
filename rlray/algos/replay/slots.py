"""What a replay keeps for each observation, and what it gives out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import Held
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
    weight: NDArray[np.float32]  # [B] of each transition in the loss, 1 where all are equally likely
    index: NDArray[np.int64]  # [B] what `NStepReplay.update` knows each transition by, for as long as it is held


def make_batch(spec: EnvSpec, batch_size: int) -> Batch:
    """Uninitialised arrays for a replay to fill again and again."""
    kept = fields(spec)
    dtype, shape = kept["frame"]
    stacked = (batch_size, *((spec.frame_stack,) if spec.frame_stack > 1 else ()), *shape)
    action_dtype, action_shape = kept["action"]
    return Batch(
        s_tm1=np.empty(stacked, dtype),
        a_tm1=np.empty((batch_size, *action_shape), action_dtype),
        r_t=np.empty(batch_size, np.float32),
        discount_t=np.empty(batch_size, np.float32),
        s_t=np.empty(stacked, dtype),
        weight=np.empty(batch_size, np.float32),
        index=np.empty(batch_size, np.int64),
    )


def replay_bytes(spec: EnvSpec, capacity: int, prioritized: bool = False) -> int:
    """Bytes of memory that an `NStepReplay` of ``capacity`` steps grows to; nothing is allocated."""
    slot = sum(dtype.itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in fields(spec, prioritized).values())
    tree = 16 << (capacity - 1).bit_length() if prioritized else 0
    return capacity * slot + tree


def held(spec: EnvSpec, capacity: int, prioritized: bool) -> list[Held]:
    """The same as an algorithm's `Algorithm.memory` says it, whose setting is called ``replay_capacity``."""
    return [Held("replay", replay_bytes(spec, capacity, prioritized), "replay_capacity", capacity)]


def fields(spec: EnvSpec, prioritized: bool = False) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """What is kept for each slot: dtype and shape. Raises: TypeError where a space is not one array."""
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
        **({"priority": (number, ())} if prioritized else {}),
    }

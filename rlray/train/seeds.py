"""Where every random number of a run comes from.

One ``numpy.random.SeedSequence`` per (run seed, role, number, life), by the spawn keys that ``SeedSequence.spawn``
would give. Two roles, two simulators, or two lives of one simulator therefore never share a stream, and the same
run seed gives the same numbers on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np


class Role(IntEnum):
    """First element of the spawn key."""

    LEARNER = 0
    SIMULATOR = 1
    EVALUATOR = 2
    SEPARATE_EVALUATION = 3  # after the run, by `rlray evaluate`
    CUT = 4  # a simulator whose environments begin anew at a checkpoint
    TRIAL = 5  # by round, attempt and group of trials
    SHARED = 6  # what all tasks of a run read
    SIMULATION = 7  # without learning, by `rlray simulate`
    REPLAY = 8  # in an actor of its own


def sequence(run_seed: int, role: Role, number: int = 0, life: int = 0, *more: int) -> np.random.SeedSequence:
    """The seed sequence of one actor's life, or of what ``more`` tells apart within it."""
    return np.random.SeedSequence(entropy=run_seed, spawn_key=(int(role), number, life, *more))


def integer(of: np.random.SeedSequence) -> int:
    """A seed of 31 bits, for interfaces that take an int (gymnasium, torch, ALE)."""
    return int(of.generate_state(1, np.uint32)[0] >> 1)


def seed_torch(of: np.random.SeedSequence) -> None:
    """Seed torch's own generator of this process, for modules and policies that draw from it."""
    import torch

    torch.manual_seed(integer(of))


def get_torch_state() -> dict[str, Any]:
    """Where torch's generators of this process stand: the CPU's, and those of its GPUs if it uses any."""
    import torch

    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {"cpu": torch.get_rng_state(), "cuda": gpus}


def set_torch_state(state: Mapping[str, Any]) -> None:
    """Go on with torch's random numbers from ``state``. GPUs that are not here are left out."""
    import torch

    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        for gpu, saved in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(saved, gpu)

"""Where every random number of a run comes from.

One ``numpy.random.SeedSequence`` per (run seed, role, number, life), by the spawn keys that ``SeedSequence.spawn``
would give. Two roles, two simulators, or two lives of one simulator therefore never share a stream, and the same
run seed gives the same numbers on every machine.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """First element of the spawn key."""

    LEARNER = 0
    SIMULATOR = 1
    EVALUATOR = 2
    SEPARATE_EVALUATION = 3  # after the run, by `rlray evaluate`


def sequence(run_seed: int, role: Role, number: int = 0, life: int = 0) -> np.random.SeedSequence:
    """The seed sequence of one actor's life."""
    return np.random.SeedSequence(entropy=run_seed, spawn_key=(int(role), number, life))


def integer(of: np.random.SeedSequence) -> int:
    """A seed of 31 bits, for interfaces that take an int (gymnasium, torch, ALE)."""
    return int(of.generate_state(1, np.uint32)[0] >> 1)


def seed_torch(of: np.random.SeedSequence) -> None:
    """Seed torch's own generator of this process, for modules and policies that draw from it."""
    import torch

    torch.manual_seed(integer(of))

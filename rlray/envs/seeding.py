"""One seed becomes many that have nothing to do with each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def env_seeds(seed: int | None, count: int) -> list[int]:
    """``count`` seeds below 2**31, which every emulator and gymnasium environment takes.

    Guarantees: the same ``seed`` gives the same list; a longer list starts with the shorter one; lists of
    neighbouring seeds do not overlap the way ``seed + i`` would. ``None`` asks the operating system.
    """
    words = np.random.SeedSequence(seed).generate_state(count, np.uint32)
    return [int(word) & 0x7FFFFFFF for word in words]


def stream_seeds(seed: int | None, count: int) -> NDArray[np.uint64]:
    """The same with 64 bits each, for our own simulators."""
    return np.random.SeedSequence(seed).generate_state(count, np.uint64).astype(np.uint64, copy=False)


class SeedOnce:
    """The seed that `make_vec` was given: what the first ``reset`` uses if it gets none.

    Later resets without a seed go on with the random numbers that are running.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._used = False

    def take(self, seed: int | None) -> tuple[int | None, bool]:
        """The seed to use, and whether to seed at all; the first time the answer to that is always yes."""
        first, self._used = not self._used, True
        if seed is not None:
            return seed, True
        return (self._seed, True) if first else (None, False)

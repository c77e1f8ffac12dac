"""Curves on a terminal, drawn with braille: two dots across and four down in every character."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of a character, [down, across]


def canvas(
    curves: Sequence[tuple[Floats, Floats]],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    size: tuple[int, int],
) -> tuple[list[str], list[list[int]]]:
    """``curves``, pairs of x and y, as ``size`` (columns, lines) of text, and for each character the curve it shows.

    That is -1 where there is none, and the last one where there are several.
    """
    columns, lines = size
    code = np.zeros((lines, columns), np.int64)
    owner = np.full((lines, columns), -1)
    for number, (x, y) in enumerate(curves):
        across, up = _dots(x, x_range, 2 * columns), _dots(y, y_range, 4 * lines)
        for at in _line(across, up):
            column, down = at[:, 0], 4 * lines - 1 - at[:, 1]
            np.bitwise_or.at(code, (down // 4, column // 2), _DOTS[down % 4, column % 2])
            owner[down // 4, column // 2] = number
    text = ["".join(chr(0x2800 + int(one)) if one else " " for one in row) for row in code]
    return text, [[int(one) for one in row] for row in owner]


def _dots(values: Floats, within: tuple[float, float], count: int) -> NDArray[np.int64]:
    """Which of ``count`` dots from one end of ``within`` to the other each value is."""
    low, high = within
    part = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    return np.clip(np.rint(part * (count - 1)), 0, count - 1).astype(np.int64)


def _line(across: NDArray[np.int64], up: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The dots [K, 2] of every stretch between two neighbours."""
    points = np.stack([across, up], axis=1)
    if len(points) == 1:
        return [points]
    stretches = []
    for begin, end in pairwise(points):
        count = int(np.abs(end - begin).max()) + 1
        stretches.append(np.rint(np.linspace(begin, end, count)).astype(np.int64))
    return stretches

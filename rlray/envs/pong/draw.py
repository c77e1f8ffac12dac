"""Drawing games of Pong: grey frames for learning, by the thousand, and one colour picture for people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlray.envs.pong.game import AGENT_SCORE, AGENT_Y, BALL_X, BALL_Y, HALF, OPPONENT_SCORE, OPPONENT_Y, PADDLE_X

SIZE = 84  # rows and columns of a grey frame, or half of that
PIXEL = 2.0  # field units per pixel: the field of 160 units takes rows and columns 2 to 81
MARGIN = 2

BACKGROUND, WALL, OPPONENT, BALL, AGENT = 87, 170, 140, 236, 147  # grey values, about those of the Atari game

PADDLE_ROWS, PADDLE_COLUMNS = 8, 2  # pixels
BALL_ROWS, BALL_COLUMNS = 2, 2


def _empty_frame() -> NDArray[np.uint8]:
    frame = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    frame[:MARGIN] = frame[-MARGIN:] = WALL
    return frame


_EMPTY = _empty_frame()


def draw_frames(state: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
    """Draw the games ``state`` [10, N] into ``out`` [N, 84, 84], which must be contiguous, or [N, 42, 42].

    Row 0 is the top. Every object covers whole pixels, so a frame shows positions to within 2 units; a pixel of a small
    one is the mean of the four that it stands for, which shows as much. Nothing flickers, so there is no need for the
    maximum over two frames that the Atari preprocessing takes.
    """
    if out.shape[-1] != SIZE:
        large = np.empty((len(out), SIZE, SIZE), np.uint8)
        draw_frames(state, large)
        rows = large[:, ::2].astype(np.uint16) + large[:, 1::2]
        np.right_shift(rows[:, :, ::2] + rows[:, :, 1::2], 2, out=out, casting="unsafe")
        return
    out[...] = _EMPTY
    flat = out.reshape(-1)
    games = np.arange(state.shape[1], dtype=np.intp) * (SIZE * SIZE)
    _stamp(flat, games, _column(-PADDLE_X, PADDLE_COLUMNS), state[OPPONENT_Y], PADDLE_ROWS, PADDLE_COLUMNS, OPPONENT)
    _stamp(flat, games, _column(PADDLE_X, PADDLE_COLUMNS), state[AGENT_Y], PADDLE_ROWS, PADDLE_COLUMNS, AGENT)
    _stamp(flat, games, _column(state[BALL_X], BALL_COLUMNS), state[BALL_Y], BALL_ROWS, BALL_COLUMNS, BALL)


def _column(x: NDArray[np.float32] | float, width: int) -> NDArray[np.intp]:
    """The leftmost column of something ``width`` pixels wide that is centred on ``x``, kept inside the frame."""
    left = np.rint((np.asarray(x) + HALF) / PIXEL + MARGIN - width / 2).astype(np.intp)
    return np.clip(left, 0, SIZE - width)


def _stamp(
    flat: NDArray[np.uint8],
    games: NDArray[np.intp],
    left: NDArray[np.intp],
    y: NDArray[np.float32],
    rows: int,
    columns: int,
    grey: int,
) -> None:
    """Paint a rectangle centred on height ``y`` into every game's frame."""
    top = np.rint((HALF - y) / PIXEL + MARGIN - rows / 2).astype(np.intp)
    np.clip(top, MARGIN, SIZE - MARGIN - rows, out=top)
    corner = games + top * SIZE + left
    shape = (np.arange(rows)[:, None] * SIZE + np.arange(columns)).reshape(-1)
    flat[corner[:, None] + shape] = grey


PICTURE_ROWS, PICTURE_COLUMNS = 210, 160  # one pixel per field unit, as on the Atari
FIELD_TOP = 34  # the first row of the field
GROUND, WHITE, GREEN, ORANGE = (144, 72, 17), (236, 236, 236), (92, 186, 92), (213, 130, 74)
DOT = 4  # rows and columns of one dot of a digit
DIGITS = (  # five rows of three dots each
    "111 101 101 101 111",
    "010 110 010 010 111",
    "111 001 111 100 111",
    "111 001 111 001 111",
    "101 101 111 001 001",
    "111 100 111 001 111",
    "111 100 111 101 111",
    "111 001 001 001 001",
    "111 101 111 101 111",
    "111 101 111 001 111",
)

Colour = tuple[int, int, int]


def draw_picture(state: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The game ``state`` [10] in colour, [210, 160, 3]: the field between its walls, the score above."""
    image = np.full((PICTURE_ROWS, PICTURE_COLUMNS, 3), GROUND, np.uint8)
    field_bottom = FIELD_TOP + int(2 * HALF)
    image[FIELD_TOP - 10 : FIELD_TOP] = image[field_bottom : field_bottom + 10] = WHITE
    _box(image, -PADDLE_X, float(state[OPPONENT_Y]), 4, 16, ORANGE)
    _box(image, PADDLE_X, float(state[AGENT_Y]), 4, 16, GREEN)
    _box(image, float(state[BALL_X]), float(state[BALL_Y]), 2, 4, WHITE)
    _number(image, int(state[OPPONENT_SCORE]), 30, ORANGE)
    _number(image, int(state[AGENT_SCORE]), 102, GREEN)
    return image


def _box(image: NDArray[np.uint8], x: float, y: float, width: int, height: int, colour: Colour) -> None:
    left = int(np.clip(round(x + HALF - width / 2), 0, PICTURE_COLUMNS - width))
    top = FIELD_TOP + int(np.clip(round(HALF - y - height / 2), 0, 2 * HALF - height))
    image[top : top + height, left : left + width] = colour


def _number(image: NDArray[np.uint8], number: int, left: int, colour: Colour) -> None:
    for place, digit in enumerate(f"{number:2d}"):
        if digit != " ":
            dots = np.array([[dot == "1" for dot in row] for row in DIGITS[int(digit)].split()])
            column = left + place * 4 * DOT
            image[2 : 2 + 5 * DOT, column : column + 3 * DOT][np.kron(dots, np.ones((DOT, DOT), np.bool_))] = colour

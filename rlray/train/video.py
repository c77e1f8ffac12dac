"""Pictures to an mp4 file that every player and browser shows (H.264, yuv420p)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_mp4(path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], fps: float = 30.0) -> Path:
    """Write ``frames``, RGB pictures [H, W, 3] of dtype uint8 and of one size, to ``path``; returns the path.

    Frames are taken one at a time, so an iterator needs no memory for all of them. The file appears, or replaces
    an older one, only when it is whole. Odd heights and widths get one more line of the same colours, which the
    format asks for.

    Raises:
        ImportError: the extra with ffmpeg is missing; the message has the pip line.
        ValueError: there is no frame, a frame has another shape or dtype, or ``fps`` is not above 0.
    """
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError('writing a video needs ffmpeg; install it with: pip install "rlray[video]"') from error
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps!r}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.stem}.{secrets.token_hex(4)}.mp4"
    writer: Any = None
    try:
        for picture in _of_even_size(frames):
            if writer is None:
                size = picture.shape[1], picture.shape[0]
                writer = imageio_ffmpeg.write_frames(str(draft), size, fps=fps, macro_block_size=1)
                writer.send(None)
            writer.send(picture)
        if writer is None:
            raise ValueError("a video needs at least one frame, got none")
        writer.close()
        if not draft.is_file():
            raise OSError(f"ffmpeg could not write {draft}; its own message is on stderr")
        draft.replace(path)
    finally:
        if writer is not None:
            writer.close()
        draft.unlink(missing_ok=True)
    return path


def _of_even_size(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Each frame, checked, C-contiguous, with its last line and column doubled where their number is odd."""
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != (shape or frame.shape):
            raise ValueError(
                f"frame {index} must be uint8 of shape {shape or '[H, W, 3]'}, got {frame.dtype} of shape {frame.shape}"
            )
        shape = frame.shape
        lines, columns = shape[0] % 2, shape[1] % 2
        yield np.ascontiguousarray(np.pad(frame, ((0, lines), (0, columns), (0, 0)), mode="edge"))

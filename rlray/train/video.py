"""Pictures to an mp4 file that every player shows (H.264, yuv420p), and to the gif that TensorBoard shows."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

GIF_SECONDS = 30
"""How much of a video TensorBoard shows: its beginning, with `GIF_FPS` pictures a second."""
GIF_FPS = 10
GIF_WIDTH = 240


class Mp4Writer:
    """Takes pictures one by one, so that a long video needs no memory. Use it as a context manager.

    Guarantees: the file appears, or replaces an older one, when the block ends without an error, and is then whole. Odd
    heights and widths get one more line of the same colours, which the format asks for.

    Raises: ImportError where the extra with ffmpeg is missing, with the pip line; ValueError for ``fps`` not above 0.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float = 30.0) -> None:
        self._ffmpeg = need_ffmpeg()
        if not fps > 0:
            raise ValueError(f"fps must be above 0, got {fps!r}")
        self._path, self._fps = Path(path), fps
        self._draft = self._path.parent / f".{self._path.stem}.{secrets.token_hex(4)}.mp4"
        self._frames = 0
        self._shape: tuple[int, ...] | None = None
        self._writer: Any = None

    def add(self, frame: NDArray[np.uint8]) -> None:
        """The next picture: RGB [H, W, 3] of dtype uint8, all of one size. Raises: ValueError for any other."""
        shape = self._shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
            raise ValueError(
                f"frame {self._frames} must be uint8 of shape {self._shape or '[H, W, 3]'}, got {frame.dtype} of shape "
                f"{frame.shape}"
            )
        lines, columns = shape[0] % 2, shape[1] % 2
        picture = np.ascontiguousarray(np.pad(frame, ((0, lines), (0, columns), (0, 0)), mode="edge"))
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = picture.shape[1], picture.shape[0]
            self._writer = self._ffmpeg.write_frames(str(self._draft), size, fps=self._fps, macro_block_size=1)
            self._writer.send(None)
        self._shape = shape
        self._writer.send(picture)
        self._frames += 1

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises: ValueError without any frame; OSError where ffmpeg could not write."""
        try:
            if self._writer is not None:
                self._writer.close()
            if kind is not None:
                return
            if self._writer is None:
                raise ValueError("a video needs at least one frame, got none")
            if not self._draft.is_file():
                raise OSError(f"ffmpeg could not write {self._draft}; its own message is on stderr")
            self._draft.replace(self._path)
        finally:
            self._draft.unlink(missing_ok=True)


class Recording:
    """A video that may be wanted. Use it as a context manager.

    What goes wrong with its file (a full disk) ends nothing else: `trouble` tells it.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """``path``: of the video; None: none is wanted. Raises: ImportError as `Mp4Writer`."""
        self._target = None if path is None else str(path)
        self._writer = None if path is None else Mp4Writer(path)
        self.path: str | None = None  # of the video, once it is whole
        self.gif: bytes | None = None  # of its beginning
        self.trouble: str | None = None  # why there is none

    @property
    def wanted(self) -> bool:
        """Whether there is to be one, and nothing has gone wrong yet."""
        return self._writer is not None

    def add(self, frame: NDArray[np.uint8]) -> None:
        """The next picture, as `Mp4Writer.add`."""
        if self._writer is not None:
            try:
                self._writer.add(frame)
            except OSError as error:
                self._give_up(error)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        try:
            self._writer.__exit__(kind, error, trace)
            if kind is None and self._target is not None:
                self.gif, self.path = gif_of(self._target), self._target
        except OSError as failed:
            self._give_up(failed)

    def _give_up(self, error: OSError) -> None:
        writer, self._writer = self._writer, None
        self.trouble = f"there is no video {self._target}: {error}"
        if writer is not None:
            with suppress(OSError):
                writer.__exit__(OSError, error, None)


def write_mp4(path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], fps: float = 30.0) -> Path:
    """Write ``frames`` to ``path``, taken one at a time; returns the path. Guarantees and errors as `Mp4Writer`."""
    with Mp4Writer(path, fps) as writer:
        for frame in frames:
            writer.add(frame)
    return Path(path)


def gif_of(video: str | os.PathLike[str]) -> bytes:
    """A small gif of the beginning of an mp4 file: what TensorBoard can show.

    Raises: OSError where ffmpeg cannot make it.
    """
    shrink = f"fps={GIF_FPS},scale='min({GIF_WIDTH},iw)':-1:flags=area"
    colours = "split[a][b];[a]palettegen[p];[b][p]paletteuse"
    command = [need_ffmpeg().get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-t", str(GIF_SECONDS)]
    command += ["-i", str(video), "-vf", f"{shrink},{colours}", "-f", "gif", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise OSError(f"ffmpeg could not make a gif of {video}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def need_ffmpeg() -> ModuleType:
    """The module that brings ffmpeg. Raises: ImportError where the extra is missing, with the pip line."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError('writing a video needs ffmpeg; install it with: pip install "rlray[video]"') from error
    module: ModuleType = imageio_ffmpeg
    return module

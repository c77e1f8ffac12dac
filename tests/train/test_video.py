"""Videos, encoded by the real ffmpeg and decoded again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray.train.video import gif_of, write_mp4

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason='needs pip install "rlray[video]"')


def read(path: Path) -> tuple[str, list[np.ndarray[Any, Any]]]:
    """What ffmpeg says about the video stream, and its pictures."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    about = re.search(r"Video: (.*)", done.stderr.decode())
    assert about is not None
    size = re.search(r" (\d{2,})x(\d+)", about[1])
    assert size is not None
    return about[1], list(np.frombuffer(done.stdout, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3))


def pictures(count: int = 12, height: int = 64, width: int = 48) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Each of one colour, its upper left quarter black, brighter with time."""
    for index in range(count):
        picture = np.full((height, width, 3), (20 * index, 100, 30), np.uint8)
        picture[: height // 2, : width // 2] = 0
        yield picture


def test_frames_come_back(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "deep" / "a.mp4", pictures(), fps=15)
    about, frames = read(path)
    assert about.startswith("h264")
    assert "yuv420p" in about
    assert " 15 fps" in about
    assert len(frames) == 12
    for original, frame in zip(pictures(), frames, strict=True):
        assert np.abs(frame.astype(int) - original).mean() < 6
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_odd_sizes_get_one_more_line_and_any_memory_order_will_do(tmp_path: Path) -> None:
    frames = [np.asfortranarray(frame) for frame in pictures(5, 63, 47)]
    about, decoded = read(write_mp4(tmp_path / "a.mp4", frames))
    assert " 48x64" in about
    assert np.abs(decoded[3][:63, :47].astype(int) - frames[3]).mean() < 8


def test_an_older_video_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "a.mp4", pictures(3))
    before = path.read_bytes()

    def breaks() -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        yield from pictures(2)
        raise RuntimeError("the environment broke")

    with pytest.raises(RuntimeError, match="the environment broke"):
        write_mp4(path, breaks())
    assert path.read_bytes() == before
    write_mp4(path, pictures(9))
    assert len(read(path)[1]) == 9
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_gif_of_the_beginning(tmp_path: Path) -> None:
    """Ten pictures a second, smaller, in the same colours; later ones are left out."""
    path = write_mp4(tmp_path / "a.mp4", (picture for _ in range(80) for picture in pictures(12, 200, 480)), fps=30)
    gif = gif_of(path)
    assert gif.startswith(b"GIF89a")
    (tmp_path / "a.gif").write_bytes(gif)
    about, frames = read(tmp_path / "a.gif")
    assert " 240x100" in about
    assert len(frames) == 300, "30 of 32 seconds"
    assert np.abs(frames[1][60:, 130:].astype(int) - np.array((60, 100, 30))).mean() < 12
    with pytest.raises(OSError, match="could not make a gif of"):
        gif_of(tmp_path / "nothing.mp4")


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], 30, "a video needs at least one frame, got none"),
        ([np.zeros((4, 4, 3), np.float32)], 30, r"frame 0 must be uint8 of shape \[H, W, 3\], got float32"),
        ([np.zeros((4, 4), np.uint8)], 30, r"frame 0 must be uint8 of shape \[H, W, 3\], got uint8 of shape \(4, 4\)"),
        ([*pictures(2), np.zeros((4, 4, 3), np.uint8)], 30, r"frame 2 must be uint8 of shape \(64, 48, 3\), got"),
        (pictures(), 0, "fps must be above 0, got 0"),
    ],
)
def test_what_is_refused(tmp_path: Path, frames: Any, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / "a.mp4", frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # what a failed import leaves
    with pytest.raises(ImportError, match=r'pip install "rlray\[video\]"'):
        write_mp4(tmp_path / "a.mp4", pictures())

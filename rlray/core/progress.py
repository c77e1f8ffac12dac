"""How far a long ``map`` is: told to a function, or shown on stderr, on a terminal in a line that stays in place."""

from __future__ import annotations

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

Report = Callable[[int, "int | None"], object]
"""What is told how many items are done, and of how many; None if nobody knows."""

EVERY = 0.1  # seconds between two reports at least
_SHORT = 1.0  # seconds of work that nobody needs to see
_LINE_EVERY = 10.0  # seconds between two lines where there is no terminal
_RATE_OVER = 30.0  # seconds from which the rate follows


def progress_of(progress: bool | Report, name: str, items: Any) -> Progress | None:
    """What the argument ``progress`` of a map asks for. Raises TypeError if it is something else."""
    if progress is False:
        return None
    total = len(items) if hasattr(items, "__len__") else None
    if progress is True:
        return ShownProgress(name, total)
    if not callable(progress):
        raise TypeError(
            f"progress of {name}.map() is True, False, or a function that is called with (items done, items in all or "
            f"None), got {progress!r}"
        )
    return ToldProgress(total, progress)


@contextmanager
def telling(progress: Progress | None) -> Iterator[None]:
    """The last state is told at the end, also when what is in here raises or is abandoned."""
    ended = False
    try:
        yield
        ended = True
    finally:
        if progress is not None:
            progress.close(ended)


class Progress(ABC):
    """Counts, and tells how far things are: ten times a second at most, from the thread that calls, and at the end."""

    def __init__(self, total: int | None) -> None:
        self.total, self.done = total, 0
        self._next = 0.0
        self._closed = False

    def update(self, done: int) -> None:
        """So many items are done."""
        self.done = done
        now = time.monotonic()
        if now >= self._next and not self._closed:
            self._next = now + EVERY
            self._tell(now)

    def close(self, ended: bool) -> None:
        """There will be no more: all items are done, or nobody wants the others. Calling it twice is harmless."""
        if not self._closed:
            self._closed = True
            self._end(ended)

    @abstractmethod
    def _tell(self, now: float) -> None:
        """Tell how far things are."""

    @abstractmethod
    def _end(self, ended: bool) -> None:
        """Tell it for the last time."""


class ToldProgress(Progress):
    """Calls a function when there is something new. What that raises, `update` raises too."""

    def __init__(self, total: int | None, report: Report) -> None:
        super().__init__(total)
        self._report = report
        self._told = -1

    def _tell(self, now: float) -> None:
        self._end(False)

    def _end(self, ended: bool) -> None:
        if self.done != self._told:
            self._told = self.done
            self._report(self.done, self.total)


class StatusLine:
    """A line at the bottom of the terminal, with the cursor at its beginning, that makes way for other text.

    Until it is closed, ``sys.stdout`` and ``sys.stderr``, as far as they are the terminal, are streams that erase the
    line before they write, and bring it back after the end of a line. What is written otherwise goes over it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._text = ""
        self._inside = False  # a line of other text has begun and not ended
        self._out = sys.stderr
        self._streams = {name: _Above(getattr(sys, name), self) for name in ("stdout", "stderr") if is_terminal(name)}
        for name, stream in self._streams.items():
            setattr(sys, name, stream)

    def draw(self, text: str) -> None:
        """Show ``text``, as much of it as there is room for, instead of what was shown before."""
        with self._lock:
            self._text = text[: self._width()]
            if not self._inside:
                _write(self._out, f"\r\x1b[K{self._text}\r")

    def write(self, stream: TextIO, text: str) -> int:
        """Write other text to a stream of the terminal."""
        with self._lock:
            if self._text and not self._inside:
                _write(self._out, "\r\x1b[K")
            written = stream.write(text)
            if text:
                self._inside = not text.endswith("\n")
            if self._text and not self._inside:
                stream.flush()
                _write(self._out, f"{self._text}\r")
            return written

    def close(self, text: str) -> None:
        """Leave ``text`` behind on a line of its own, and the streams as they were."""
        with self._lock:
            self._text = ""
            _write(self._out, f"\n{text}\n" if self._inside else f"\r\x1b[K{text}\n")
            self._inside = False
        for name, stream in self._streams.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.stream)

    def _width(self) -> int:
        """Characters that fit on a line of the terminal without moving to the next."""
        try:
            return max(20, os.get_terminal_size(self._out.fileno()).columns - 1)
        except (ValueError, OSError):
            return 79


class _Above:
    """A stream of the terminal, which writes above the status line."""

    def __init__(self, stream: TextIO, line: StatusLine) -> None:
        self.stream, self._line = stream, line

    def write(self, text: str) -> int:
        return self._line.write(self.stream, text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class ShownProgress(Progress):
    """Shows how far things are, if they take more than a second: on a terminal in place, elsewhere a line now and then.

    Only one is shown in place at a time; others give lines now and then above it.
    """

    def __init__(self, name: str, total: int | None) -> None:
        super().__init__(total)
        self._name = name
        self._began = time.monotonic()
        self._line: StatusLine | None = None
        self._line_at = self._began + _LINE_EVERY
        self._seen = deque([(self._began, 0)])  # (when, how many were done), oldest first

    def _tell(self, now: float) -> None:
        if now - self._seen[-1][0] >= 1.0:
            self._seen.append((now, self.done))
            while now - self._seen[0][0] > _RATE_OVER:
                self._seen.popleft()
        if now - self._began < _SHORT:
            return
        if self._line is None and is_terminal("stderr") and not isinstance(sys.stderr, _Above):
            self._line = StatusLine()
        if self._line is not None:
            self._line.draw(self._text(now))
        elif now >= self._line_at:
            self._line_at = now + _LINE_EVERY
            _write(sys.stderr, f"{self._text(now)}\n")

    def _end(self, ended: bool) -> None:
        seconds = time.monotonic() - self._began
        if ended or self.done == self.total:
            how = f" in {_duration(seconds)}, {_rate(self.done / seconds)}"
        else:
            how = f", stopped after {_duration(seconds)}"
        text = f"{self._name}: {self._share()}{how}"
        if self._line is not None:
            self._line.close(text)
        elif seconds >= _SHORT:
            _write(sys.stderr, f"{text}\n")

    def _share(self) -> str:
        if self.total is None:
            return f"{self.done:,}"
        percent = 100 * self.done // self.total if self.total else 100
        return f"{self.done:,}/{self.total:,} ({percent}%)"

    def _text(self, now: float) -> str:
        since, before = self._seen[0]
        rate = (self.done - before) / max(now - since, 1e-6)
        text = f"{self._name}: {self._share()}, {_rate(rate)}"
        if self.total is not None and rate > 0:
            text += f", {_duration(max(0, self.total - self.done) / rate)} left"
        return text


def is_terminal(name: str) -> bool:
    """Whether ``sys.stdout`` or ``sys.stderr`` is a terminal on which a line can stay in place."""
    try:
        return bool(getattr(sys, name).isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # there is none, or it was closed
        return False


def _write(stream: TextIO, text: str) -> None:
    with suppress(AttributeError, ValueError, OSError):  # there is no stderr, or nobody reads it
        stream.write(text)
        stream.flush()


def _rate(per_second: float) -> str:
    if per_second >= 10:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 0.1 else f"{per_second * 60:.1f}/min"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

"""How processes end: in words, by whose hand, and making an end of what one has left behind."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

_CRASH = "Fatal Python error"
_FRAMES = 10
_ROUNDS = 10  # looks for what was started meanwhile


def how_it_ended(exit_code: int | None) -> str:
    """What became of a process, in words: ``subprocess`` has exit codes of this kind."""
    if exit_code is None:
        return "has ended"
    if exit_code < 0:
        try:
            return f"was killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"was killed by signal {-exit_code}"
    return f"exited with code {exit_code}"


def crash_report(path: str) -> list[str]:
    """What `faulthandler` has written to a file about a crash: its kind, and the innermost functions of the program."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return []
    _, found, report = text.rpartition(_CRASH)
    frames = [line for line in report.splitlines() if line.startswith("  File ")]
    theirs = list(takewhile(lambda line: f"{os.sep}rlray{os.sep}core{os.sep}" not in line, frames))
    return [found + report.splitlines()[0], *(theirs or frames)[:_FRAMES]] if found else []


class OutOfMemory:
    """Whether the kernel has killed processes because memory ran out, as far as it tells."""

    def __init__(self) -> None:
        self._known = _oom_kills()

    def has_killed(self) -> bool:
        """Since the last time that the answer was yes, or since the start."""
        count = _oom_kills()
        more, self._known = count > self._known, count
        return more


def _oom_kills() -> int:
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def end_session(leader: int) -> None:
    """Kill every process of a session, whoever is its parent now. Where there is no /proc, nothing is found."""
    for _ in range(_ROUNDS):
        members = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _session(entry) == leader]
        if not members:
            return
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session(entry: Path) -> int:
    """The session of a process that is alive; 0 for any other."""
    try:
        state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(session)

"""How processes end: in words, and making an end of what one has left behind."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

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

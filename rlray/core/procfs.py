"""What the system says of a process, which need not answer for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessUse:
    """One process at one moment."""

    state: str  # a letter, as `ps` has it: R runs, S sleeps, D waits for a disk, T is stopped, Z has ended
    start: str  # when it started, in the system's own terms: tells it from a later one with its pid
    cpu_seconds: float
    resident_bytes: int


def process_use(pid: int) -> ProcessUse | None:
    """What a process uses; None if there is none, or if the system does not tell like that (macOS)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessUse(
        state=fields[0],
        start=fields[19],
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
        resident_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )

"""Memory of processes, read from /proc: proportional set size, and the peak of a driver with all that it started.

python benchmarks/memory.py PID: samples the family of PID until stdin ends, then prints its peaks as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL = 0.25  # seconds between two samples


def rollup(pid: int) -> dict[str, int]:
    """Bytes by kind ("Pss", "Rss", ...) of one process; pages shared by n processes count 1/n in its Pss."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}


def family(pid: int) -> list[int]:
    """``pid`` and all that came of it."""
    parents = dict(_parents())
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # gone meanwhile
                continue


def total(pids: list[int]) -> dict[str, int]:
    """Sums of Pss and Rss over processes; those that are gone count nothing."""
    sums = {"Pss": 0, "Rss": 0}
    for pid in pids:
        try:
            seen = rollup(pid)
        except OSError:
            continue
        sums = {kind: amount + seen[kind] for kind, amount in sums.items()}
    return sums


@contextmanager
def peak_of_family() -> Iterator[dict[str, int]]:
    """Peaks of Pss and Rss, summed over this process and its descendants, in the dictionary when the block ends.

    Another process samples, so that what is measured keeps its interpreter to itself.
    """
    command = [sys.executable, __file__, str(os.getpid())]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    peaks: dict[str, int] = {}
    try:
        yield peaks
    finally:
        peaks.update(json.loads(watcher.communicate()[0]))


def main() -> None:
    """Sample until whoever asked closes our stdin."""
    pid, ended = int(sys.argv[1]), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    peaks = {"Pss": 0, "Rss": 0}
    while True:
        last = ended.wait(INTERVAL)
        now = total([member for member in family(pid) if member != os.getpid()])
        peaks = {kind: max(peaks[kind], now[kind]) for kind in peaks}
        if last:
            break
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()

"""The processes of a run as /proc shows them: which are workers, what they hold open, and killing some at random."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Seen(NamedTuple):
    """A process at one moment."""

    pid: int
    parent: int
    start: int  # ticks since the system's start
    state: str


def look(pid: int) -> Seen | None:
    """The process of that number; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Seen(pid, int(fields[1]), int(fields[19]), fields[0])


def children(pid: int) -> list[Seen]:
    """The living children of a process, oldest first."""
    every = [look(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(
        (seen for seen in every if seen is not None and seen.parent == pid and seen.state not in "ZX"),
        key=lambda seen: (seen.start, seen.pid),
    )


def zygote_of(driver: int) -> int:
    """The process that a driver has started."""
    for child in children(driver):
        with suppress(OSError):
            if b"rlray.core.local.zygote" in Path(f"/proc/{child.pid}/cmdline").read_bytes():
                return child.pid
    raise LookupError(f"process {driver} has no runtime")


def node_of(driver: int) -> int:
    """The scheduler's process: what the zygote forked first."""
    found = children(zygote_of(driver))
    if not found:
        raise LookupError(f"process {driver} has no node")
    return found[0].pid


def workers_of(driver: int) -> list[int]:
    """The worker processes of a driver, idle ones and actors too."""
    return [child.pid for child in children(zygote_of(driver))[1:]]


def portrait(pid: int) -> str:
    """What can be told of a process that should not be there any more: what it is, what it does, whose child it is."""
    seen = look(pid)
    if seen is None:
        return f"process {pid} is gone"
    parent = look(seen.parent)
    line = _read(pid, "cmdline").replace("\0", " ").strip()
    status = dict(one.split(":\t", 1) for one in _read(pid, "status").splitlines() if ":\t" in one)
    ran, waited, _ = (int(one) / 1e9 for one in (_read(pid, "schedstat") or "0 0 0").split())
    age = float(Path("/proc/uptime").read_text().split()[0]) - seen.start / os.sysconf("SC_CLK_TCK")
    facts = {
        "what": _role(pid, line), "state": seen.state, "in": _read(pid, "wchan") or "0",
        "seconds old": f"{age:.2f}", "seconds run": f"{ran:.2f}", "seconds kept from running": f"{waited:.2f}",
        "threads": status.get("Threads"), "signals pending": f"{status.get('SigPnd')} {status.get('ShdPnd')}",
        "parent": f"{seen.parent} ({'gone' if parent is None else parent.state})", "command": line[:200],
    }  # fmt: skip
    return f"process {pid}: " + ", ".join(f"{name} {value}" for name, value in facts.items())


def _role(pid: int, command: str) -> str:
    """Which of a run's processes it is: workers lead a process group, the zygote a session."""
    if "rlray.core.local.zygote" not in command:
        return "program"
    with suppress(ProcessLookupError):
        if os.getsid(pid) == pid:
            return "zygote"
        if os.getpgid(pid) == pid:
            return "worker"
    return "node, or just forked"


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def descriptors(pid: int) -> int:
    """How many files, sockets and the like a process holds open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    """Bytes of a process's own memory: anonymous pages, without what it shares as a file."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


class Killer(threading.Thread):
    """SIGKILLs workers of this process's run, one at random every ``pause`` seconds on average, until ``most`` died."""

    def __init__(self, seed: str, most: int, pause: float) -> None:
        super().__init__(name="killer", daemon=True)
        self.kills = 0
        self._rng, self._most, self._pause = random.Random(seed), most, pause
        self._node = node_of(os.getpid())

    def run(self) -> None:
        while self.kills < self._most:
            threading.Event().wait(self._rng.expovariate(1 / self._pause))
            workers = [pid for pid in workers_of(os.getpid()) if pid != self._node]
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(self._rng.choice(workers), signal.SIGKILL)
                    self.kills += 1

"""The case of soak.py in which strangers call at every socket of a run, while it computes."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import descriptors, node_of, resident, workers_of

ATTACKS = 100_000
CALLERS = 2  # processes that attack at once
KEPT = 200  # connections that each of them leaves open
QUIET = 10.0  # seconds without attacks, to compare with

HELLO = b"rlr1"  # what a connection opens with; then 32 bytes of secret and 4 of the caller's number
KINDS = ("nothing", "half a hello", "wrong secret", "slowly", "random bytes", "pickle", "gigabytes announced", "http")


class Bomb:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


def openings(kind: str, rng: random.Random, bomb: bytes) -> list[bytes]:
    """What one stranger says, piece by piece."""
    wrong = HELLO + rng.randbytes(32) + (1).to_bytes(4, "little")
    frame = len(bomb).to_bytes(4, "little") + bomb
    return {
        "nothing": [],
        "half a hello": [wrong[: rng.randrange(1, len(wrong))]],
        "wrong secret": [wrong + frame],
        "slowly": [bytes([byte]) for byte in wrong] + [frame],
        "random bytes": [rng.randbytes(rng.randrange(1, 5000))],
        "pickle": [bomb],
        "gigabytes announced": [b"\xff" * 8 + bytes(100)],
        "http": [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    }[kind]


def attack(directory: Path, count: int, seed: int, marker: str) -> None:
    """In a process of its own: stand at the door ``count`` times, at any socket that is there."""
    rng, bomb = random.Random(seed), pickle.dumps(Bomb(marker))
    kept: deque[socket.socket] = deque()
    places: list[Path] = []
    reached = 0
    while reached < count:
        if reached % 100 == 0:
            places = [*directory.glob("*.sock")]
        stranger = socket.socket(socket.AF_UNIX)
        kept.append(stranger)
        try:
            stranger.connect(str(rng.choice(places)))
        except OSError:  # that process has ended
            places = [*directory.glob("*.sock")]
            continue
        reached += 1
        stranger.settimeout(1)
        with contextlib.suppress(OSError):  # it is cut off
            for piece in openings(rng.choice(KINDS), rng, bomb):
                stranger.sendall(piece)
        if len(kept) > KEPT:
            kept.popleft().close()


def strangers(scale: float) -> dict[str, Any]:
    """100,000 strangers of all kinds call at every socket during a stream of tasks, actors and large values."""
    import rlray

    lines: list[str] = []
    logging.getLogger("rlray").addHandler(handler := _Collector(lines))
    with tempfile.TemporaryDirectory() as logs:
        rlray.init(num_cpus=2, object_store_memory=1 << 28, log_dir=logs)
        directory = Path(rlray.core.engine.current().settings.directory)  # type: ignore[attr-defined]
        marker = str(directory / "unpickled")
        counts: Counter[str] = Counter({"tasks": 0, "calls": 0, "values": 0, "bytes": 0, "lost": 0, "wrong": 0})
        work = _stream(rlray, counts)
        next(work)
        rlray.get(rlray.remote(lambda: print("what workers print has its way to the driver")).remote())
        time.sleep(0.5)
        before = _node_alone()
        quiet = _rate(work, counts, lambda since: since < max(2.0, QUIET * scale))
        each = max(1, round(ATTACKS * scale / CALLERS))
        command = [sys.executable, __file__, str(directory), str(each)]
        callers = [subprocess.Popen([*command, str(seed), marker]) for seed in range(CALLERS)]
        begun = time.monotonic()
        attacked = _rate(work, counts, lambda _: any(caller.poll() is None for caller in callers))
        seconds = time.monotonic() - begun
        next(work)
        work.close()
        after = _node_alone()
        exploded = Path(marker).exists()
        rlray.shutdown()
        for file in Path(logs).iterdir():
            lines += file.read_text(errors="replace").splitlines()
    logging.getLogger("rlray").removeHandler(handler)
    return {
        "attacks": each * CALLERS,
        **counts,
        "wrong: pickles of strangers loaded": int(exploded),
        "wrong: attackers that failed": sum(caller.returncode != 0 for caller in callers),
        "lines in all logs": sum("turned away" in line for line in lines),
        "attacks/s": round(each * CALLERS / seconds, 1),
        "tasks/s without attacks": round(quiet, 1),
        "tasks/s during attacks": round(attacked, 1),
        "left: descriptors of the node": max(0, after[0] - before[0]),
        "MB of the node, before → after": f"{before[1] // 1_000_000} → {after[1] // 1_000_000}",
    }


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


def _node_alone() -> tuple[int, int]:
    """Descriptors and bytes of the node when no worker lives."""
    node = node_of(os.getpid())
    while workers := workers_of(os.getpid()):
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    time.sleep(0.5)
    return descriptors(node), resident(node)


def _stream(rlray: Any, counts: Counter[str]) -> Any:
    """Rounds of work, endlessly; what has no result after two minutes is lost."""

    @rlray.remote
    def square(x: int) -> int:
        return x * x

    @rlray.remote
    class Keeper:
        def keep(self, data: bytes) -> int:
            return len(data)

    while True:
        yield None
        keeper, fresh = Keeper.remote(), Keeper.remote()  # processes that nobody has called yet
        large = rlray.put(bytes(1_000_000))
        tasks = [square.remote(i) for i in range(1000)]
        calls = [keeper.keep.remote(large), fresh.keep.remote(large), fresh.keep.remote(b"")]
        lost = rlray.wait([*tasks, *calls], num_returns=len(tasks) + len(calls), timeout=120)[1]
        counts["lost"] += len(lost)
        if not lost:
            counts["wrong"] += rlray.get(tasks) != [i * i for i in range(1000)]
            counts["wrong"] += rlray.get(calls) != [1_000_000, 1_000_000, 0]
        counts["tasks"] += len(tasks)
        counts["calls"] += len(calls)
        counts["values"] += 1
        counts["bytes"] += 1_000_000


def _rate(work: Any, counts: Counter[str], going_on: Callable[[float], bool]) -> float:
    """Do rounds of work as long as ``going_on(seconds since the first)``; returns tasks per second."""
    begun, done = time.monotonic(), counts["tasks"]
    while going_on(time.monotonic() - begun):
        next(work)
    return (counts["tasks"] - done) / (time.monotonic() - begun)


CASES: dict[str, Callable[[float], dict[str, Any]]] = {"strangers": strangers}

if __name__ == "__main__":
    place, many, number, mark = sys.argv[1:]
    attack(Path(place), int(many), int(number), mark)

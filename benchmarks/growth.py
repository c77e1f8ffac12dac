"""Whether what a run holds grows with its work: samples of memory, descriptors and threads, and their slopes."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from processes import descriptors, node_of, resident, workers_of, zygote_of

import rlray
from rlray.core.engine import current

KINDS = ("driver", "zygote", "node", "largest worker")
WARM = 0.2  # the part of the work that is not looked at: caches fill, pools reach their size
NOISE = 2_000_000  # bytes from the first to the last sample that allocators explain
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; blocks of 1 MB may come and go at the heap's end


class Growth:
    """Samples what the processes of this run hold, and says at the end how it grew with the work.

    ``unit`` is what is counted ("tasks"); slopes are told for ``per`` of those.
    """

    def __init__(self, unit: str, per: int) -> None:
        self._unit, self._per = unit, per
        self._samples: list[tuple[int, dict[str, float]]] = []

    def sample(self, done: int) -> None:
        """Note what the processes hold after so much work; not what this one has free, and malloc keeps for later."""
        gc.collect()
        if _TRIM is not None:
            _TRIM(0)
        self._samples.append((done, holdings()))

    def counts(self) -> dict[str, Any]:
        """What was held after the warm-up and at the end, and the slope of memory: bytes for ``per`` units of work."""
        warm = self._warm()
        (_, first), (_, last) = warm[0], warm[-1]
        found: dict[str, Any] = {"samples": len(self._samples), "leaked: kinds of process that grew": self._leaks()}
        for kind in KINDS:
            name = f"{kind}: memory"
            found[f"{kind}, MB"] = f"{first[name] / 1e6:.1f} → {last[name] / 1e6:.1f}"
            found[f"{kind}, bytes per {self._per:,} {self._unit}"] = round(self._slope(name) * self._per)
        for what in ("descriptors", "threads"):
            before, after = ([f"{seen[f'{kind}: {what}']:g}" for kind in KINDS] for seen in (first, last))
            found[f"{what}: {', '.join(KINDS)}"] = f"{', '.join(before)} → {', '.join(after)}"
        for name in ("workers", "driver: Python objects", "driver: values known", "store: bytes taken"):
            found[name] = f"{first[name]:,.0f} → {last[name]:,.0f}"
        return found

    def _leaks(self) -> int:
        """How many kinds of process grew all along by more than noise."""
        work = self._samples[-1][0] - self._warm()[0][0]
        return sum(self._slope(f"{kind}: memory") * work > NOISE for kind in KINDS)

    def _slope(self, name: str) -> float:
        """Growth per unit of work: of the line through the samples after the warm-up that errs least."""
        points = [(done, seen[name]) for done, seen in self._warm()]
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0

    def _warm(self) -> list[tuple[int, dict[str, float]]]:
        start = self._samples[-1][0] * WARM
        return [sample for sample in self._samples if sample[0] >= start]


def holdings() -> dict[str, float]:
    """What the processes of this run hold at this moment; of several workers, the one that holds the most."""
    driver = os.getpid()
    workers = workers_of(driver)
    found: dict[str, float] = {}
    for kind, pids in zip(KINDS, ([driver], [zygote_of(driver)], [node_of(driver)], workers), strict=True):
        for what, look in (("memory", resident), ("descriptors", descriptors), ("threads", threads)):
            found[f"{kind}: {what}"] = max(_of_living(look, pids), default=0)
    client: Any = current()
    found["driver: Python objects"] = sys.getallocatedblocks()
    found["driver: values known"] = len(client.references.entries)
    found["workers"] = len(workers)
    total, free = rlray.cluster_resources(), rlray.available_resources()
    found["store: bytes taken"] = total["object_store_memory"] - free["object_store_memory"]
    return found


def _of_living(look: Callable[[int], int], pids: Iterable[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            found.append(look(pid))
        except OSError:  # it has ended meanwhile
            continue
    return found


def threads(pid: int) -> int:
    """How many threads a process has."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())

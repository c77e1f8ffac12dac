"""What a program measures of itself in this process: counters, gauges and histograms, by name and tags.

They belong to the process, as in Ray: they are there before `init` and after `shutdown`, whoever makes a metric of the
same name again goes on counting where the first one is, and a forked child begins at zero. `snapshot` is what a
process tells of them, and `rlray.core.prometheus` puts those of several processes together.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from typing import Literal, TypedDict

Kind = Literal["counter", "gauge", "histogram"]
Tags = tuple[tuple[str, str], ...]
"""Keys and values, in the order of the keys."""


class Told(TypedDict):
    """What a process tells of one metric: plain data."""

    name: str
    kind: Kind
    help: str
    boundaries: tuple[float, ...]  # of a histogram's buckets, ascending; the last bucket has none
    values: list[tuple[Tags, float]]  # of a counter or a gauge
    buckets: list[tuple[Tags, tuple[int, ...], float]]  # of a histogram: how many fell into each bucket, and their sum


class Values:
    """The values of one metric. Any thread may record."""

    def __init__(self, name: str, kind: Kind, text: str, boundaries: tuple[float, ...]) -> None:
        self.name, self.kind, self.text, self.boundaries = name, kind, text, boundaries
        self.clear()

    def clear(self) -> None:
        """Begin at zero, whatever other threads may have been about to do when this process was forked."""
        self._lock = threading.Lock()
        self._values: dict[Tags, float] = {}
        self._buckets: dict[Tags, tuple[list[int], list[float]]] = {}  # counts, and the sum

    def add(self, tags: Tags, amount: float) -> None:
        """Count up."""
        with self._lock:
            self._values[tags] = self._values.get(tags, 0.0) + amount

    def set(self, tags: Tags, value: float) -> None:
        """Be this from now on."""
        with self._lock:
            self._values[tags] = value

    def observe(self, tags: Tags, value: float) -> None:
        """Put ``value`` into its bucket, the first whose boundary is not below it."""
        with self._lock:
            found = self._buckets.get(tags)
            if found is None:
                found = self._buckets[tags] = [0] * (len(self.boundaries) + 1), [0.0]
            counts, total = found
            counts[bisect_left(self.boundaries, value)] += 1
            total[0] += value

    def told(self) -> Told:
        """All of it, as of one moment."""
        with self._lock:
            values = list(self._values.items())
            buckets = [(tags, tuple(counts), total[0]) for tags, (counts, total) in self._buckets.items()]
        return Told(
            name=self.name, kind=self.kind, help=self.text, boundaries=self.boundaries, values=values, buckets=buckets
        )


class Registry:
    """The metrics of one process, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: dict[str, Values] = {}

    def metric(self, name: str, kind: Kind, text: str, boundaries: tuple[float, ...] = ()) -> Values:
        """The values of that name, which are made if there are none.

        Raises: ValueError if there are some of another kind, or with other boundaries.
        """
        with self._lock:
            found = self._metrics.get(name)
            if found is None:
                found = self._metrics[name] = Values(name, kind, text, boundaries)
            elif found.kind != kind:
                raise ValueError(
                    f"metric {name!r} is a {found.kind} in this process and cannot be a {kind} too; use another name"
                )
            elif found.boundaries != boundaries:
                raise ValueError(
                    f"histogram {name!r} has the boundaries {list(found.boundaries)} in this process, and cannot have "
                    f"{list(boundaries)} too; use the same ones, or another name"
                )
            found.text = found.text or text
            return found

    def snapshot(self) -> list[Told]:
        """What has been recorded so far, as plain data; metrics without a value are left out."""
        with self._lock:
            metrics = list(self._metrics.values())
        told = [metric.told() for metric in metrics]
        return [one for one in told if one["values"] or one["buckets"]]

    def clear(self) -> None:
        """Begin at zero, in a forked child."""
        self._lock = threading.Lock()
        for metric in self._metrics.values():
            metric.clear()


registry = Registry()
"""That of this process."""


def snapshot() -> list[Told]:
    """What has been recorded in this process so far; see `Registry.snapshot`."""
    return registry.snapshot()


os.register_at_fork(after_in_child=registry.clear)

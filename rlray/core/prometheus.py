"""Prometheus' text format, version 0.0.4, and what several processes have measured put together for it.

Counters and histograms of all processes add up. A gauge has a value in each process, told apart by the label ``pid``,
unless its own tags have one of that name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from rlray.core.metrics import Kind, Tags, Told


class Sample(NamedTuple):
    """One number."""

    name: str  # of the metric
    kind: Kind
    help: str
    labels: Mapping[str, str]
    value: float
    suffix: str = ""  # of a histogram's numbers: _bucket, _sum, _count


def render(samples: Iterable[Sample]) -> str:
    """Samples in Prometheus' text format, those of a name together, the names in the order of their first samples."""
    lines: dict[str, list[str]] = {}
    for one in samples:
        help_ = one.help.replace("\\", "\\\\").replace("\n", "\\n")
        head = [f"# HELP {one.name} {help_}", f"# TYPE {one.name} {one.kind}"]
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in one.labels.items())
        series = f"{one.name}{one.suffix}{{{labels}}}" if labels else f"{one.name}{one.suffix}"
        lines.setdefault(one.name, head).append(f"{series} {_number(one.value)}")
    return "".join(f"{line}\n" for block in lines.values() for line in block)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def merged(snapshots: Mapping[int, Sequence[Told]]) -> list[Sample]:
    """What processes have told, by pid, as samples.

    A name that stands for one thing in a process and for another elsewhere (another kind of metric, other boundaries)
    means what it means in the process with the lowest pid; the others' values are left out, as Prometheus would refuse
    the whole text.
    """
    metrics: dict[str, list[tuple[int, Told]]] = {}
    for pid, told in sorted(snapshots.items()):
        for one in told:
            alike = metrics.setdefault(_full_name(one), [])
            if not alike or (alike[0][1]["kind"], alike[0][1]["boundaries"]) == (one["kind"], one["boundaries"]):
                alike.append((pid, one))
    return [sample for name in sorted(metrics) for sample in _samples(name, metrics[name])]


def _full_name(one: Told) -> str:
    """The name of a counter ends in ``_total``."""
    ends = one["kind"] != "counter" or one["name"].endswith("_total")
    return one["name"] if ends else f"{one['name']}_total"


def _samples(name: str, parts: Sequence[tuple[int, Told]]) -> Iterator[Sample]:
    """Those of one metric, from what each process has told of it."""
    kind = parts[0][1]["kind"]
    text = next((one["help"] for _, one in parts if one["help"]), "")
    if kind == "histogram":
        for tags, counts, total in _summed(parts):
            labels = dict(tags)
            bounds = [*(_number(float(bound)) for bound in parts[0][1]["boundaries"]), "+Inf"]
            for bound, count in zip(bounds, accumulate(counts), strict=True):
                yield Sample(name, kind, text, {**labels, "le": bound}, count, "_bucket")
            yield Sample(name, kind, text, labels, total, "_sum")
            yield Sample(name, kind, text, labels, sum(counts), "_count")
        return
    values: dict[Tags, float] = {}
    for pid, one in parts:
        for tags, value in one["values"]:
            if kind == "counter":
                values[tags] = values.get(tags, 0.0) + value
            else:
                values[tags if "pid" in dict(tags) else (*tags, ("pid", str(pid)))] = value
    for tags, value in sorted(values.items()):
        yield Sample(name, kind, text, dict(tags), value)


def _summed(parts: Sequence[tuple[int, Told]]) -> Iterator[tuple[Tags, list[int], float]]:
    """Histograms of all processes: counts by bucket, and the sum of the values, for each set of tags."""
    found: dict[Tags, tuple[list[int], list[float]]] = {}
    for _, one in parts:
        for tags, counts, total in one["buckets"]:
            if tags in found:
                sums, totals = found[tags]
                sums[:] = map(sum, zip(sums, counts, strict=True))
                totals.append(total)
            else:
                found[tags] = list(counts), [total]
    for tags, (sums, totals) in sorted(found.items()):
        yield tags, sums, math.fsum(totals)

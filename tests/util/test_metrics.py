"""``rlray.util.metrics``: what is recorded, by whom and under which tags, and how Prometheus reads it."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import random
import re
import threading
from collections import Counter as Count
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.core.metrics import Registry, Told, registry, snapshot
from rlray.core.prometheus import Sample, merged, render
from rlray.util.metrics import Counter, Gauge, Histogram

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test uses: metrics belong to the process."""
    return f"test_{next(_numbers)}"


def told(name: str) -> Told:
    [one] = [one for one in snapshot() if one["name"] == name]
    return one


def values(name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return dict(told(name)["values"])


# -- recording ---------------------------------------------------------------------------------------------------------


def test_a_counter_adds_up_by_tags(name: str) -> None:
    counter = Counter(name, description="Things.", tag_keys=("colour", "size")).set_default_tags({"size": "big"})
    counter.inc(tags={"colour": "red"})
    counter.inc(2.5, {"colour": "red"})
    counter.inc(1, {"size": "small", "colour": "red"})
    big, small = (("colour", "red"), ("size", "big")), (("colour", "red"), ("size", "small"))
    assert values(name) == {big: 3.5, small: 1.0}
    assert counter.info == {
        "name": name,
        "description": "Things.",
        "tag_keys": ("colour", "size"),
        "default_tags": {"size": "big"},
    }


def test_a_gauge_keeps_the_last_value(name: str) -> None:
    gauge = Gauge(name)
    for value in (1, -2.5, np.float32(0.5), None):
        gauge.set(value)
    assert values(name) == {(): 0.5}
    gauge.set(math.inf)
    assert values(name) == {(): math.inf}


def test_a_histogram_counts_up_to_and_with_each_boundary(name: str) -> None:
    histogram = Histogram(name, boundaries=[0.1, 1, 10], tag_keys=("who",))
    for value in (0.05, 0.1, 0.5, 1, np.int64(2), 11, -3):
        histogram.observe(value, {"who": "me"})
    [(tags, counts, total)] = told(name)["buckets"]
    assert tags == (("who", "me"),)
    assert counts == (3, 2, 1, 1)
    assert total == pytest.approx(11.65)
    assert histogram.info["boundaries"] == [0.1, 1, 10]


def test_a_metric_without_a_value_is_not_told(name: str) -> None:
    Counter(name)
    assert name not in [one["name"] for one in snapshot()]


def test_the_same_name_is_the_same_metric(name: str) -> None:
    """A task makes its metric at each call, and may run where another one has."""
    for _ in range(3):
        Counter(name, "Calls.").inc()
    Counter(name).inc()
    assert told(name) | {"values": values(name)} == {
        "name": name,
        "kind": "counter",
        "help": "Calls.",
        "boundaries": (),
        "values": {(): 4.0},
        "buckets": [],
    }


def test_many_threads_lose_nothing(name: str) -> None:
    counter, histogram = Counter(name, tag_keys=("odd",)), Histogram(f"{name}_h", boundaries=[1.5])

    def work() -> None:
        for number in range(2_000):
            counter.inc(tags={"odd": str(number % 2)})
            histogram.observe(number % 3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(name) == {(("odd", "0"),): 8_000.0, (("odd", "1"),): 8_000.0}
    [(_, counts, total)] = told(f"{name}_h")["buckets"]
    assert counts == (8 * 1_334, 8 * 666)
    assert total == 8 * (667 + 2 * 666)


def test_a_snapshot_is_plain_data_and_a_copy(name: str) -> None:
    counter, histogram = Counter(name), Histogram(f"{name}_h", boundaries=[1])
    counter.inc()
    histogram.observe(1)
    before = pickle.dumps(snapshot())
    assert b"rlray" not in before
    taken = snapshot()
    counter.inc()
    histogram.observe(1)
    assert pickle.loads(before) == taken


def test_a_forked_child_begins_at_zero(name: str) -> None:
    counter = Counter(name)
    counter.inc(5)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            counter.inc(2)
            os.write(writing, repr(values(name)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "{(): 2.0}"
    os.waitpid(pid, 0)
    assert values(name) == {(): 5.0}


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Counter(""), ValueError, "Empty name is not allowed"),
        (lambda: Counter(3), TypeError, "must be str, got <class 'int'>"),  # type: ignore[arg-type]
        (lambda: Counter("rlray_x"), ValueError, "runtime's own, got 'rlray_x'; use another"),
        (lambda: Gauge("x", tag_keys=["a"]), TypeError, "tuple type, got: <class 'list'>"),  # type: ignore[arg-type]
        (lambda: Gauge("x", tag_keys="a"), TypeError, "with the comma"),  # type: ignore[arg-type]
        (lambda: Gauge("x", tag_keys=(1,)), TypeError, "must be str, got <class 'int'>"),  # type: ignore[arg-type]
        (lambda: Gauge("x", tag_keys=("a-b",)), ValueError, "'a-b' of metric 'x' is not allowed: use letters"),
        (lambda: Gauge("x", tag_keys=("__a",)), ValueError, "not allowed"),
        (lambda: Histogram("x", boundaries=[1], tag_keys=("le",)), ValueError, "not 'le' in a histogram"),
        (lambda: Histogram("x"), ValueError, r'boundaries argument should be provided .*Histogram\("name"'),
        (lambda: Histogram("x", boundaries=[]), ValueError, "should be provided"),
        (lambda: Histogram("x", boundaries=[1, 0]), ValueError, "index 1, .* Use positive values"),
        (lambda: Histogram("x", boundaries=[1, math.inf]), ValueError, "index 1"),
        (lambda: Histogram("x", boundaries=[2, 1]), ValueError, "index 1, .* Use ascending values"),
    ],
)
def test_what_a_metric_is_made_with(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("record", "error", "text"),
    [
        (lambda c, g, h: c.inc("1"), TypeError, "must be int or float, got <class 'str'>"),
        (lambda c, g, h: c.inc(0), ValueError, "must be >0, got 0.0; .* use a Gauge"),
        (lambda c, g, h: c.inc(-1), ValueError, "must be >0"),
        (lambda c, g, h: c.inc(math.nan), ValueError, "must be >0, got nan"),
        (lambda c, g, h: c.inc(math.inf), ValueError, "must be >0, got inf"),
        (lambda c, g, h: g.set("1"), TypeError, "must be int or float"),
        (lambda c, g, h: h.observe("1"), TypeError, "must be int or float"),
        (lambda c, g, h: h.observe(math.nan), ValueError, "must be finite, got nan"),
        (lambda c, g, h: c.inc(), ValueError, r"Missing value for tag key\(s\): a,b\. Give it with tags="),
        (lambda c, g, h: c.inc(1, {"b": "x"}), ValueError, r"Missing value for tag key\(s\): a\."),
        (lambda c, g, h: c.inc(1, {"c": "x"}), ValueError, r"Unrecognized tag key c\. .*tag_keys=\('a', 'b'\)"),
        (lambda c, g, h: c.inc(1, {"a": 1, "b": "x"}), TypeError, "must be str, got <class 'int'> for 'a'"),
        (lambda c, g, h: c.set_default_tags({"c": "x"}), ValueError, "Unrecognized tag key c"),
        (lambda c, g, h: c.set_default_tags({"a": 1}), TypeError, "must be str"),
    ],
)
def test_what_is_recorded(name: str, record: Any, error: type[Exception], text: str) -> None:
    metrics = Counter(name, tag_keys=("a", "b")), Gauge(f"{name}_g"), Histogram(f"{name}_h", boundaries=[1])
    with pytest.raises(error, match=text):
        record(*metrics)
    assert not [one for one in snapshot() if one["name"].startswith(name)], "nothing was recorded"


def test_one_name_for_two_things(name: str) -> None:
    Counter(name)
    with pytest.raises(ValueError, match=f"metric {name!r} is a counter in this process and cannot be a gauge"):
        Gauge(name)
    Histogram(f"{name}_h", boundaries=[1, 2])
    Histogram(f"{name}_h", boundaries=(1.0, 2.0))
    with pytest.raises(
        ValueError, match=r"has the boundaries \[1\.0, 2\.0\] in this process, and cannot have \[1\.0\]"
    ):
        Histogram(f"{name}_h", boundaries=[1])


@pytest.mark.parametrize("odd", ["my-metric", "1st", "with space", "ünïcode"])
def test_a_name_that_prometheus_refuses_gives_a_warning_and_records_nothing(odd: str) -> None:
    before = snapshot()
    with pytest.warns(UserWarning, match=f"Invalid metric name: {odd}") as caught:
        metrics = Counter(odd), Gauge(odd), Histogram(odd, boundaries=[1])
    assert {warning.filename for warning in caught} == {__file__}
    metrics[0].inc()
    metrics[1].set(1)
    metrics[2].observe(1)
    with pytest.raises(ValueError, match=">0"):
        metrics[0].inc(0)
    assert snapshot() == before


# -- travelling --------------------------------------------------------------------------------------------------------


def test_a_metric_travels_with_its_default_tags(name: str) -> None:
    counter = Counter(name, "Text.", ("a", "b")).set_default_tags({"a": "x"})
    histogram = Histogram(f"{name}_h", "Text.", [1.0, 2.0], ("a",)).set_default_tags({"a": "y"})
    gauge = Gauge(f"{name}_g")
    for metric in (counter, histogram, gauge):
        again = pickle.loads(pickle.dumps(metric))
        assert type(again) is type(metric)
        assert again.info == metric.info


@pytest.fixture
def runtime() -> Iterator[None]:
    rlray.init(num_cpus=2)
    yield
    rlray.shutdown()


@pytest.mark.usefixtures("runtime")
def test_processes_count_for_themselves_and_add_up(name: str) -> None:
    counter, gauge = Counter(name, tag_keys=("who",)), Gauge(f"{name}_g")
    histogram = Histogram(f"{name}_h", boundaries=[1, 10])

    @rlray.remote
    class Worker:
        def work(self, number: int) -> tuple[int, list[Told]]:
            counter.inc(number, {"who": "worker"})
            gauge.set(number)
            histogram.observe(number)
            return os.getpid(), snapshot()

    workers = [Worker.remote() for _ in range(2)]
    counter.inc(100, {"who": "driver"})
    snapshots = dict(rlray.get([worker.work.remote(5 * index + 1) for index, worker in enumerate(workers)]))
    assert len(snapshots) == 2
    found = parse(render(merged({**snapshots, os.getpid(): snapshot()})))
    assert found[f'{name}_total{{who="worker"}}'] == 7
    assert found[f'{name}_total{{who="driver"}}'] == 100
    assert sorted(found[f'{name}_g{{pid="{pid}"}}'] for pid in snapshots) == [1, 6]
    assert found[f'{name}_h_bucket{{le="1.0"}}'] == 1
    assert found[f'{name}_h_bucket{{le="10.0"}}'] == found[f'{name}_h_bucket{{le="+Inf"}}'] == 2
    assert (found[f"{name}_h_sum"], found[f"{name}_h_count"]) == (7, 2)


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_metrics_outlive_a_runtime(name: str, engine: str) -> None:
    counter = Counter(name)
    for _ in range(2):
        rlray.init(num_cpus=1, engine=engine)
        counter.inc()
        rlray.get(rlray.remote(lambda: counter.inc()).remote())
        rlray.shutdown()
    assert values(name) == {(): 4.0 if engine == "inline" else 2.0}


# -- the text ----------------------------------------------------------------------------------------------------------

SERIES = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'(?:\{(?P<labels>[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*")*)\})?'
    r" (?P<value>[+-]?(?:[0-9.]+(?:e[+-]?[0-9]+)?|Inf)|NaN)"
)


def parse(text: str) -> dict[str, float]:
    """Series and values, by a reader that forgives nothing: it checks what the format asks of each kind of metric."""
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    buckets: dict[str, list[tuple[str, float]]] = {}
    current = kind = ""
    assert text == "" or text.endswith("\n")
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            current = line.split(" ", 3)[2]
            assert current not in kinds, f"{current} stands twice"
            assert re.fullmatch(r"(?:[^\\]|\\\\|\\n)*", line), line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current
            assert kind in ("counter", "gauge", "histogram")
            kinds[name] = kind
        else:
            match = SERIES.fullmatch(line)
            assert match, line
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert match["name"] in [f"{current}{suffix}" for suffix in suffixes], line
            assert kind != "counter" or current.endswith("_total"), line
            series = line.rpartition(" ")[0]
            assert series not in found, f"twice: {line}"
            found[series] = float(match["value"])
            if match["name"] == f"{current}_bucket":
                [bound] = re.findall(r'le="([^"]*)"', match["labels"])
                buckets.setdefault(series.replace(f'le="{bound}"', ""), []).append((bound, float(match["value"])))
    for series, rows in buckets.items():
        bounds, counts = [float(bound) for bound, _ in rows], [count for _, count in rows]
        assert bounds == sorted(bounds), series
        assert bounds[-1] == math.inf, series
        assert counts == sorted(counts), f"{series} is cumulative"
    return found


def test_the_whole_text() -> None:
    own = Registry()
    own.metric("requests", "counter", "Requests\nserved \\ in all.").add((("path", '/a"b\\c\n'),), 3)
    own.metric("done_total", "counter", "").add((), 1)
    own.metric("level", "gauge", "Level.").set((), -0.5)
    times = own.metric("seconds", "histogram", "Time.", (0.5, 1.0))
    for value in (0.25, 0.5, 3):
        times.observe((("who", "me"),), value)
    text = render(merged({12: own.snapshot()}))
    assert (
        text
        == """\
# HELP done_total \n# TYPE done_total counter
done_total 1.0
# HELP level Level.
# TYPE level gauge
level{pid="12"} -0.5
# HELP requests_total Requests\\nserved \\\\ in all.
# TYPE requests_total counter
requests_total{path="/a\\"b\\\\c\\n"} 3.0
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{who="me",le="0.5"} 2
seconds_bucket{who="me",le="1.0"} 2
seconds_bucket{who="me",le="+Inf"} 3
seconds_sum{who="me"} 3.75
seconds_count{who="me"} 3
"""
    )
    assert len(parse(text)) == 8
    assert render([]) == ""


def test_numbers_that_are_none() -> None:
    samples = [
        Sample(f"x{index}", "gauge", "", {}, value)
        for index, value in enumerate([math.nan, math.inf, -math.inf, 1e300])
    ]
    assert [line for line in render(samples).splitlines() if line[0] != "#"] == [
        "x0 NaN",
        "x1 +Inf",
        "x2 -Inf",
        "x3 1e+300",
    ]


def test_a_gauge_with_a_tag_pid_keeps_that(name: str) -> None:
    own = Registry()
    own.metric(name, "gauge", "").set((("pid", "mine"),), 1)
    assert f'{name}{{pid="mine"}} 1\n' in render(merged({7: own.snapshot()}))


def test_a_name_that_means_different_things_in_different_processes(name: str) -> None:
    first, second, third = Registry(), Registry(), Registry()
    first.metric(name, "histogram", "", (1.0,)).observe((), 1)
    second.metric(name, "histogram", "", (2.0,)).observe((), 1)
    second.metric("other_total", "counter", "").add((), 1)
    third.metric(name, "gauge", "").set((), 1)
    third.metric("other_total", "gauge", "").set((), 1)
    found = parse(render(merged({3: third.snapshot(), 2: second.snapshot(), 1: first.snapshot()})))
    assert found == {
        f'{name}_bucket{{le="1.0"}}': 1,
        f'{name}_bucket{{le="+Inf"}}': 1,
        f"{name}_sum": 1,
        f"{name}_count": 1,
        "other_total": 1,
    }


@pytest.mark.parametrize("seed", range(5))
def test_random_processes_against_a_plain_sum(seed: int) -> None:
    rng = random.Random(seed)
    bounds = (1.0, 2.0, 5.0)
    counted, observed, last = Count[str](), dict[str, list[float]](), dict[str, float]()
    snapshots = {}
    for pid in rng.sample(range(100), 4):
        own = Registry()
        for _ in range(200):
            tag, value = rng.choice("abc"), rng.choice((0.5, 1.0, 1.5, 2.0, 7.0))
            own.metric("c", "counter", "").add((("t", tag),), value)
            own.metric("g", "gauge", "").set((("t", tag),), value)
            own.metric("h", "histogram", "", bounds).observe((("t", tag),), value)
            counted[tag] += value  # type: ignore[assignment]
            observed.setdefault(tag, []).append(value)
            last[f'g{{t="{tag}",pid="{pid}"}}'] = value
        snapshots[pid] = own.snapshot()
    expected = {**last, **{f'c_total{{t="{tag}"}}': total for tag, total in counted.items()}}
    for tag, seen in observed.items():
        for bound in (*bounds, math.inf):
            text = "+Inf" if bound == math.inf else str(bound)
            expected[f'h_bucket{{t="{tag}",le="{text}"}}'] = sum(value <= bound for value in seen)
        expected |= {f'h_sum{{t="{tag}"}}': sum(seen), f'h_count{{t="{tag}"}}': len(seen)}
    assert parse(render(merged(snapshots))) == expected


def test_the_registry_of_this_process_is_the_one_that_is_told(name: str) -> None:
    Counter(name).inc()
    assert name in [one["name"] for one in registry.snapshot()]


def test_the_metrics_of_every_process_of_a_run_come_together() -> None:
    """Counters add up over processes, and the runtime's own are there too."""
    import rlray
    from rlray.util.metrics import prometheus_text

    @rlray.remote
    def play(frames: int) -> int:
        Counter("played_frames", "Frames played.", tag_keys=("game",)).inc(frames, {"game": "pong"})
        return frames

    rlray.init(num_cpus=2)
    try:
        rlray.get([play.remote(n) for n in range(1, 21)])
        text = prometheus_text()
    finally:
        rlray.shutdown()
    assert 'played_frames_total{game="pong"} 210' in text
    assert 'rlray_tasks_finished_total{name="play"} 20\n' in text

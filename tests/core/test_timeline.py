"""The timeline: which spans there are, whether they are true, and whether the file is one that Perfetto opens."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.core.local import recorder
from rlray.core.timeline import NO_TASK, Kind, Span, Track, trace, write
from rlray.exceptions import WorkerCrashedError
from tests.support import run_driver, wait_until

Event = Mapping[str, Any]


def check(events: Sequence[Event]) -> list[Event]:
    """Fail unless this is a trace in Chrome's Trace Event Format that can be drawn; returns its spans.

    Spans of a row must not overlap, except that one lies within the other: a viewer would draw them over each other.
    """
    rows: dict[tuple[int, int], list[Event]] = {}
    named: dict[str, set[Any]] = {"process_name": set(), "thread_name": set()}
    for event in events:
        assert event["ph"] in ("X", "M"), event
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            if event["name"] in named:
                assert isinstance(event["args"]["name"], str)
                place = event["pid"] if event["name"] == "process_name" else (event["pid"], event["tid"])
                assert place not in named[event["name"]], f"named twice: {event}"
                named[event["name"]].add(place)
            continue
        for key in ("ts", "dur"):
            assert isinstance(event[key], float | int)
            assert event[key] >= 0, event
        assert isinstance(event["cat"], str)
        rows.setdefault((event["pid"], event["tid"]), []).append(event)
    assert set(rows) == named["thread_name"]
    assert {pid for pid, _ in rows} == named["process_name"]
    for row in rows.values():
        around: list[tuple[float, Event]] = []
        for event in sorted(row, key=lambda one: (one["ts"], -one["dur"])):
            end = round((event["ts"] + event["dur"]) * 1000)
            while around and around[-1][0] <= round(event["ts"] * 1000):
                around.pop()
            assert not around or end <= around[-1][0], f"{event} overlaps {around[-1][1]}"
            around.append((end, event))
    return [event for event in events if event["ph"] == "X"]


def spans_of(name: str) -> list[Event]:
    """The spans of that name in a timeline taken now."""
    events = rlray.timeline()
    assert events is not None
    return [event for event in check(events) if event["name"] == name]


def within(inner: Event, outer: Event) -> bool:
    same = (inner["pid"], inner["tid"]) == (outer["pid"], outer["tid"])
    ends = inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 0.001
    return same and outer["ts"] <= inner["ts"] + 0.001 and ends


@rlray.remote
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@rlray.remote
class Napper:
    def nap(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()


@rlray.remote
class AsyncNapper:
    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.mark.every_engine
@pytest.mark.differs("ray", "it is looked into with Ray's own tools")
@pytest.mark.usefixtures("cluster")
class TestSpans:
    def test_a_task_and_how_long_it_took(self) -> None:
        began = time.perf_counter()
        rlray.get(nap.options(name="a-task").remote(0.05))
        took = time.perf_counter() - began
        [span] = spans_of("a-task")
        assert span["cat"] == "task"
        assert 0.05e6 <= span["dur"] <= took * 1e6
        assert len(span["args"]["task_id"]) >= 20

    def test_a_call_that_fails(self) -> None:
        @rlray.remote
        def fails() -> None:
            time.sleep(0.005)
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            rlray.get(fails.options(name="a-failure").remote())
        [span] = spans_of("a-failure")
        assert "failed" in span["cat"]

    def test_methods_and_constructors(self) -> None:
        @rlray.remote
        class Slow:
            def __init__(self) -> None:
                time.sleep(0.01)

            def work(self) -> None:
                time.sleep(0.01)

        slow = Slow.options(name="timed").remote()
        rlray.get(slow.work.remote())
        assert len(spans_of("Slow.work")) == 1
        assert len(spans_of("Slow.__init__")) == 1

    def test_calls_that_run_at_the_same_time_lie_in_rows_apart(self) -> None:
        threaded = Napper.options(max_concurrency=3, name="threads").remote()
        coroutines = AsyncNapper.options(name="coroutines").remote()
        rlray.get([threaded.nap.remote(0.1) for _ in range(3)])
        rlray.get([coroutines.nap.remote(0.1) for _ in range(5)])
        assert len({span["tid"] for span in spans_of("Napper.nap")[-3:]}) == 3
        assert len({(span["pid"], span["tid"]) for span in spans_of("AsyncNapper.nap")}) == 5

    def test_profile_in_the_driver_and_in_a_task(self) -> None:
        @rlray.remote
        def work() -> None:
            with rlray.util.profile("inner"), rlray.util.profile("innermost"):
                time.sleep(0.01)
            with rlray.util.profile("too short"):
                pass

        rlray.get(work.options(name="profiled").remote())
        with rlray.util.profile("outer"):
            time.sleep(0.01)
        events = rlray.timeline()
        assert events is not None
        by_name = {event["name"]: event for event in check(events)}
        assert "too short" not in by_name
        assert by_name["outer"]["cat"] == "profile"
        assert within(by_name["inner"], by_name["profiled"])
        assert within(by_name["innermost"], by_name["inner"])

    def test_profile_takes_a_name(self) -> None:
        with pytest.raises(TypeError, match="profile\\(\\) takes a name, got int 3"), rlray.util.profile(3):
            pass

    def test_the_file_is_the_same_as_the_events(self, tmp_path: Path) -> None:
        rlray.get(nap.options(name="to-a-file").remote(0.003))
        file = tmp_path / "trace.json"
        assert rlray.timeline(file) is None
        whole = json.loads(file.read_text())
        assert whole["displayTimeUnit"] == "ms"
        assert "to-a-file" in {event["name"] for event in check(whole["traceEvents"])}
        assert os.listdir(tmp_path) == ["trace.json"]

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            rlray.timeline(tmp_path / "nowhere" / "trace.json")


@pytest.mark.usefixtures("cluster")
class TestProcesses:
    def test_waits_lie_within_the_call_that_waits(self) -> None:
        @rlray.remote
        def outer() -> None:
            rlray.get(nap.options(name="inner-call").remote(0.05))
            rlray.wait([nap.remote(0.02)])

        rlray.get(outer.options(name="waiting").remote())
        events = rlray.timeline()
        assert events is not None
        spans = check(events)
        [call] = [one for one in spans if one["name"] == "waiting"]
        inside = [one["name"] for one in spans if one["cat"] == "waiting" and within(one, call)]
        assert inside == ["get", "wait"]
        [inner] = [one for one in spans if one["name"] == "inner-call"]
        assert inner["pid"] != call["pid"]
        [wait] = [one for one in spans if one["name"] == "get" and within(one, call)]
        assert call["ts"] <= inner["ts"], "two processes' clocks differ"
        assert inner["ts"] + inner["dur"] <= wait["ts"] + wait["dur"]

    def test_a_call_that_is_not_over(self) -> None:
        ref = nap.options(name="under-way").remote(1.0)
        found = wait_until(lambda: [one for one in spans_of("under-way") if one["dur"] > 0.1e6])
        assert [one["cat"] for one in found] == ["task,running"]
        rlray.get(ref)
        assert [one["cat"] for one in spans_of("under-way")] == ["task"]

    def test_a_killed_workers_spans_survive(self) -> None:
        @rlray.remote(max_retries=0)
        def two(seconds: float) -> None:
            with rlray.util.profile("before the end"):
                time.sleep(0.01)
            time.sleep(seconds)
            with rlray.util.profile("later"):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(WorkerCrashedError):
            rlray.get(two.remote(1.2))
        assert len(spans_of("before the end")) == 1

    def test_names_of_processes(self) -> None:
        named = Napper.options(name="called").remote()
        pid = rlray.get(named.nap.remote(0.01))
        other = rlray.get(nap.remote(0.01))
        with rlray.util.profile("of the driver"):
            time.sleep(0.002)
        events = rlray.timeline()
        assert events is not None
        names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
        assert f"Napper 'called' pid={pid}" in names
        assert f"worker pid={other}" in names
        assert f"driver pid={os.getpid()}" in names

    def test_short_calls_are_not_noted(self) -> None:
        quick = rlray.remote(lambda: 1).options(name="too-quick")
        rlray.get([quick.remote() for _ in range(200)])
        assert len(spans_of("too-quick")) < 100, "a few may have been held up"


@pytest.mark.parametrize("engine", ["local", "inline"])
def test_with_timeline_every_call_is_noted(engine: str, tmp_path: Path) -> None:
    code = """
import sys, rlray
rlray.init(num_cpus=2, timeline=True, engine=sys.argv[1])

@rlray.remote
class Quick:
    def call(self):
        return 1

actor = Quick.remote()
quick = rlray.remote(lambda: 1).options(name="quick")
rlray.get([*(quick.remote() for _ in range(500)), *(actor.call.remote() for _ in range(300))])
rlray.timeline(sys.argv[2])
"""
    run_driver(code, engine, str(tmp_path / "trace.json"))
    spans = check(json.loads((tmp_path / "trace.json").read_text())["traceEvents"])
    counts = Counter(span["name"] for span in spans)
    assert (counts["quick"], counts["Quick.call"]) == (500, 300)


def test_a_full_disk_is_a_warning_and_nothing_else() -> None:
    """Every process finds its file to be on a full disk."""
    code = """
import os, time, glob, tempfile, rlray

rlray.init(num_cpus=1, timeline=True)
[run] = glob.glob(tempfile.gettempdir() + "/rlray-*/run.json")
spans = os.path.dirname(run) + "/spans"
os.makedirs(spans, exist_ok=True)
for process in range(20):
    if not os.path.exists(f"{spans}/{process}.spans"):
        os.symlink("/dev/full", f"{spans}/{process}.spans")
f = rlray.remote(lambda x: x)
for _ in range(5):
    assert rlray.get([f.remote(i) for i in range(500)]) == list(range(500))
    time.sleep(0.3)
"""
    output = run_driver(code)
    assert "the timeline of this process ends here" in output
    assert "No space left on device" in output
    assert "Traceback" not in output


# -- the ring of one process -----------------------------------------------------------------------------------------


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[recorder.Recorder]:
    """A recorder that keeps 1,000 spans and 50 names."""
    monkeypatch.setattr(recorder, "_MOST", 1000)
    monkeypatch.setattr(recorder, "_MOST_NAMES", 50)
    one = recorder.Recorder(str(tmp_path / "spans"), 7, everything=True)
    yield one
    one.close()


def kept(tmp_path: Path) -> Track:
    [track] = recorder.read(tmp_path / "spans")
    return track


def test_the_ring_keeps_the_latest(ring: recorder.Recorder, tmp_path: Path) -> None:
    for count in range(2345):
        ring.add(1.0 + count, 0.5, "call", Kind.CALL, count.to_bytes(10, "big"))
        if count == 500:
            ring.flush()
            assert not kept(tmp_path).full
    ring.flush()
    track = kept(tmp_path)
    assert track.full
    assert sorted(span.began for span in track.spans) == [1.0 + count for count in range(1345, 2345)]
    assert {int.from_bytes(span.task, "big") for span in track.spans} == set(range(1345, 2345))
    check(trace([track]))


def test_threads_that_note_at_the_same_time_lose_nothing(ring: recorder.Recorder, tmp_path: Path) -> None:
    def work(thread: int) -> None:
        for count in range(200):
            task = (1000 * thread + count).to_bytes(10, "big")
            if count % 2:
                ring.notes.extend((1.0 + count, 0.5, task, f"thread {thread}", Kind.CALL))
            else:
                ring.add(1.0 + count, 0.5, f"thread {thread}", Kind.WAITING, task)
            if count % 30 == 0:
                ring.look()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ring.flush()
    found = {(int.from_bytes(span.task, "big"), span.name, span.kind) for span in kept(tmp_path).spans}
    kinds = (Kind.WAITING, Kind.CALL)
    assert found == {(1000 * i + j, f"thread {i}", kinds[j % 2]) for i in range(4) for j in range(200)}


def test_many_names_share_the_last(ring: recorder.Recorder, tmp_path: Path) -> None:
    for count in range(200):
        ring.add(1.0 + count, 0.5, f"name {count}", Kind.CALL, NO_TASK)
    ring.flush()
    names = Counter(span.name for span in kept(tmp_path).spans)
    assert names.pop("(other names)") == 150
    assert names == Counter(f"name {count}" for count in range(50))


def test_methods_are_told_from_what_ran_before_the_process_became_an_actor(
    ring: recorder.Recorder, tmp_path: Path
) -> None:
    ring.add(time.perf_counter(), 0.0, "task", Kind.CALL, NO_TASK)
    ring.flush()
    ring.become("Player 'one'", b"\1" * 12)
    ring.add(time.perf_counter(), 0.0, "Player.play", Kind.CALL, NO_TASK)
    ring.flush()
    track = kept(tmp_path)
    assert (track.process, track.pid, track.label, track.actor) == (7, os.getpid(), "Player 'one'", "01" * 12)
    assert {span.name: span.method for span in track.spans} == {"task": False, "Player.play": True}


def test_files_are_private(ring: recorder.Recorder, tmp_path: Path) -> None:
    ring.add(1.0, 0.5, "call", Kind.CALL, NO_TASK)
    ring.flush()
    assert (tmp_path / "spans").stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "spans").iterdir()] == [0o600, 0o600]


def test_after_close_nothing_is_written(ring: recorder.Recorder, tmp_path: Path) -> None:
    ring.add(1.0, 0.5, "call", Kind.CALL, NO_TASK)
    ring.flush()
    ring.close()
    ring.add(2.0, 0.5, "call", Kind.CALL, NO_TASK)
    ring.flush()
    assert len(kept(tmp_path).spans) == 1


# -- rows ------------------------------------------------------------------------------------------------------------


def test_rows_never_overlap_whatever_happened() -> None:
    """Random calls, waits and profiles, with what killed processes leave out: waits without their call."""
    rng = random.Random(7)
    spans = []
    for number in range(3000):
        task = number.to_bytes(10, "big")
        began, seconds = rng.random() * 30, rng.random() * 0.2
        if rng.random() < 0.8:
            spans.append(Span(began, seconds, task, "call", rng.choice([Kind.CALL, Kind.FAILED, Kind.RUNNING])))
        for _ in range(rng.randrange(3)):
            at = rng.random()
            length = seconds * (1 - at) * rng.random()
            kind = rng.choice([Kind.WAITING, Kind.PROFILE])
            spans.append(Span(began + at * seconds, length, rng.choice([task, task, NO_TASK]), kind.name, kind))
    rng.shuffle(spans)
    drawn = check(trace([Track(1, 1, "one", spans[::2]), Track(2, 2, "two", spans[1::2])]))
    assert len(drawn) == len(spans)
    lengths = sorted(round(span.seconds * 1e6, 3) for span in spans)
    assert sorted(span["dur"] for span in drawn) == pytest.approx(lengths, abs=0.005), "none is cut to fit"


def test_a_trace_of_nothing(tmp_path: Path) -> None:
    assert trace([]) == []
    write([], tmp_path / "empty.json")
    assert json.loads((tmp_path / "empty.json").read_text())["traceEvents"] == []

"""The benchmarks as programs: with little work each writes its table, data and picture, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY, Driver, still_running

BENCHMARKS = REPOSITORY / "benchmarks"


def run(name: str, out: Path, *arguments: str, code: int = 0) -> str:
    """The output of a benchmark that ends with ``code``."""
    words = (str(BENCHMARKS / name), "--quick", "--peer-python", "none", "--out", str(out), *arguments)
    with Driver(*words, python=()) as driver:
        output = driver.finish(100)
        assert driver.process.returncode == code, output
        assert not still_running(driver.family(), 2.0)
    return output


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def rows(page: Path) -> list[list[str]]:
    """The cells of the table of a page, without its head."""
    lines = [line.strip("| \n").split(" | ") for line in page.read_text().splitlines() if line.startswith("|")]
    assert len({len(line) for line in [lines[0], *lines[2:]]}) == 1, lines
    return lines[2:]


def assert_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert path.stat().st_size > 5000


def test_core(tmp_path: Path) -> None:
    run("core.py", tmp_path, "--only", "put of small", "memory per idle")
    data = read(tmp_path / "core.json")
    assert data["versions"]["Ray"] == "left out: not asked for (--peer-python none)"
    put, memory = data["rows"]
    assert put["case"] == "put of small objects"
    assert put["rlray"]["median"] > 0
    assert len(put["rlray"]["samples"]) == 2
    assert put["met"] is None, "there is nothing to compare with"
    assert len(memory["rlray"]["samples"]) == 4
    assert 1 < memory["rlray"]["median"] < 1000
    table = rows(tmp_path / "core.md")
    assert [line[0] for line in table] == ["put of small objects", "memory per idle worker"]
    assert [line[4] for line in table] == ["≥ 50 × Ray", "≤ Ray / 3"]
    assert "not a measurement" in (tmp_path / "core.md").read_text()
    assert_picture(tmp_path / "core.png")


def test_core_goes_on_after_a_case_that_fails(tmp_path: Path) -> None:
    run("core.py", tmp_path, "--only", "tasks sync", "put of small", "--timeout", "0.01", code=1)
    found = [row["rlray"] for row in read(tmp_path / "core.json")["rows"]]
    assert found == [{"error": "did not end within 0.01 s"}] * 2
    assert "- tasks sync, rlray: failed: did not end within 0.01 s\n" in (tmp_path / "core.md").read_text()
    assert_picture(tmp_path / "core.png")


def test_core_names_its_cases_when_none_is_meant(tmp_path: Path) -> None:
    assert "no such case; there are: init + first task, tasks sync" in run("core.py", tmp_path, "--only", "?", code=2)


def test_core_scaling(tmp_path: Path) -> None:
    run("core_scaling.py", tmp_path, "--only", "tasks", "nested", "--budget", "0")
    few, many, driver, worker = read(tmp_path / "core_scaling.json")["points"]
    assert [(point["curve"], point["at"]) for point in (few, driver, worker)] == [
        ("tasks", 100), ("nested", 0), ("nested", 1),
    ]  # fmt: skip
    assert all(point["rate"] > 0 for point in (few, driver, worker))
    assert many["left_out"].startswith("would take about "), "more than the budget of 0 s"
    assert len(rows(tmp_path / "core_scaling.md")) == 4
    assert_picture(tmp_path / "core_scaling.png")


@pytest.mark.parametrize(
    ("unit", "goal", "mine", "theirs", "ratio", "met", "text"),
    [
        ("/s", (10, "Ray"), 50.0, 5.0, 10.0, True, "≥ 10 × Ray"),
        ("/s", (10, "Ray"), 49.0, 5.0, 9.8, False, "≥ 10 × Ray"),
        ("s", (20, "Ray"), 0.5, 5.0, 10.0, False, "≤ Ray / 20"),
        ("MB", (3, "Ray"), 10.0, 30.0, 3.0, True, "≤ Ray / 3"),
        ("GB", (1.5, ""), 3.0, None, 0.5, False, "≤ 1.5 GB"),
        ("/s", (2_000_000, ""), 3e6, None, 1.5, True, "≥ 2,000,000 /s"),
        ("GB/s", (0.9, "numpy copy"), 7.2, 1.0, 0.9, True, "≥ 0.9 × numpy copy"),
        ("/s", (10, "Ray"), 50.0, None, None, None, "≥ 10 × Ray"),
    ],
)
def test_goals(
    monkeypatch: pytest.MonkeyPatch, unit: str, goal: Any, mine: float, theirs: Any, ratio: Any, met: Any, text: str
) -> None:
    """The ratio says how many times better, also where less is better; the numpy copy here did 8 GB/s."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from case import Case, Goal
    from core import judge

    row: dict[str, Any] = {"rlray": {"median": mine, "notes": {"numpy copy": 8.0}}}
    row["Ray"] = {"left_out": "a reason"} if theirs is None else {"median": theirs}
    judge(row, Case("one", unit, lambda run: [], Goal(*goal)))
    assert row["ratio"] == (None if ratio is None else pytest.approx(ratio))
    assert row["met"] is met
    assert row["goal"] == text


# A stand-in for the two files of Ray that ray_perf.py runs: they import and print what Ray's do.
HELPERS = """
import ray

def timeit(name, fn, multiplier=1, warmup_time_sec=10):
    fn()
    print(name, "per second", round(1234.567 * multiplier, 2), "+-", warmup_time_sec)
    return [(name, 1234.567, 0.0)]
"""
PERF = """
import ray
from ray._private.ray_client_microbenchmark import main as client_main
from ray._private.ray_microbenchmark_helpers import timeit

@ray.remote(num_cpus=0)
class Actor:
    def put(self):
        return ray.get(ray.put(b"ok"))

def main(results=None):
    results = results or []
    assert ray._raylet.OPTIMIZED
    ray.init()
    actor = Actor._remote()
    def call():
        assert ray.get(actor.put.remote()) == b"ok"
    def fails():
        raise OSError("no more of this")
    def dies():
        import os
        os._exit(1)
    results += timeit("calls", call)
    results += timeit("failing calls", fails)
    results += timeit("deadly calls", dies)
    results += timeit("calls of gigabytes", call, 2)
    ray.shutdown()
    ray.init(resources={"custom": 100})
    client_main(results)
    ray.shutdown()

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that stands for the installed package ray."""
    private = tmp_path / "ray" / "_private"
    private.mkdir(parents=True)
    (private / "ray_microbenchmark_helpers.py").write_text(HELPERS)
    (private / "ray_perf.py").write_text(PERF)
    return private.parent


def test_ray_perf(package: Path, tmp_path: Path) -> None:
    """Rows after one that fails, and after one that kills the process, are there."""
    run("ray_perf.py", tmp_path, "--ray-package", str(package), code=1)
    calls, failing, deadly, gigabytes = read(tmp_path / "ray_perf.json")["rows"]
    assert calls["row"] == "calls"
    assert calls["rlray"]["median"] > 0
    assert failing["rlray"] == {"error": "OSError: no more of this"}
    assert deadly["rlray"]["error"].startswith("the process ended there")
    assert gigabytes["rlray"]["median"] > 0
    assert gigabytes["exempt"]
    table = rows(tmp_path / "ray_perf.md")
    assert [line[0] for line in table] == ["calls", "failing calls", "deadly calls", "calls of gigabytes"]
    assert [line[5] for line in table] == ["–", "–", "–", "exempt"]


def test_ray_perf_says_what_it_needs(tmp_path: Path) -> None:
    assert "Ray's files are needed: not asked for" in run("ray_perf.py", tmp_path, code=2)


def test_rl_keeps_the_rows_of_other_cases(tmp_path: Path) -> None:
    run("rl.py", tmp_path, "--only", "replay of 1 M")
    (memory,) = read(tmp_path / "rl.json")["rows"]
    assert memory["sides"]["rlray"]["notes"] == {"full": 1.0}
    assert memory["met"] is True
    run("rl.py", tmp_path, "--only", "bundled Pong")
    data = read(tmp_path / "rl.json")
    assert data["rows"][1] == memory
    assert data["versions"]["SB3"] == "left out: not asked for"
    table = rows(tmp_path / "rl.md")
    assert [line[0] for line in table] == ["bundled Pong, state observations", "replay of 1 M frames of 84×84"]
    assert [line[4] for line in table] == ["≥ 20,000,000 steps/s", "≤ 7.5 GB"]


@pytest.mark.parametrize(
    ("goal", "unit", "mine", "peers", "met"),
    [
        ((0.95, "the best peer"), "steps/s", 96.0, {"A": 50.0, "B": 100.0}, True),
        ((0.95, "the best peer"), "steps/s", 94.0, {"A": 50.0, "B": 100.0}, False),
        ((3, "A"), "steps/s", 94.0, {"B": 10.0}, None),
        ((0.7, "random actions"), "steps/s", 6.0, {}, False),
        ((5, ""), "%", 4.0, {}, True),
        ((20, ""), "steps/s", 19.0, {}, False),
    ],
)
def test_rl_goals(
    monkeypatch: pytest.MonkeyPatch, goal: Any, unit: str, mine: float, peers: dict[str, float], met: bool | None
) -> None:
    """A goal may be a figure, a multiple of a peer's or of the case's own note; random actions did 10 here."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from case import Case, Goal
    from rl import judge

    sides: dict[str, Any] = {"rlray": {"median": mine, "notes": {"random actions": 10.0}}}
    sides |= {name: {"median": value} for name, value in peers.items()}
    row: dict[str, Any] = {"sides": sides}
    judge(row, Case("one", unit, lambda run: [], Goal(*goal)))
    assert row.get("met") is met
    assert row["times"] == {name: pytest.approx(mine / value) for name, value in peers.items()}

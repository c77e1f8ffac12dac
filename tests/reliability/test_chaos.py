"""The long runs of benchmarks/soak.py in which processes die, made short: nothing is lost, wrong or left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY, Driver, needs_proc

pytestmark = needs_proc
SOAK = REPOSITORY / "benchmarks" / "soak.py"


def soak(out: Path, case: str, scale: float) -> dict[str, Any]:
    """The counts of a case; `soak.py` itself fails if one that must be 0 is not."""
    with Driver(str(SOAK), case, "--scale", str(scale), "--out", str(out), python=()) as driver:
        output = driver.finish(110)
        assert driver.process.returncode == 0, output
    return dict(json.loads((out / "reliability.json").read_text())["cases"][case]["counts"])


def test_workers_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    counts = soak(tmp_path, "chaos", 0.05)
    assert counts["kills"] == 50
    for what in ("tasks", "items", "calls", "actors", "values", "bytes"):
        assert counts[what] > 0, f"no {what} were under way: {counts}"
    nothing = ("lost", "wrong", "unexpected", "hung threads", "left: bytes of the store", "left at the end: processes")
    for what in nothing:
        assert counts[what] == 0, counts


def test_drivers_ended_at_random_leave_nothing(tmp_path: Path) -> None:
    counts = soak(tmp_path, "driver_deaths", 0.05)
    assert counts["drivers"] == 20
    assert sum(counts[ending] for ending in ("SIGKILL", "SIGTERM", "SIGINT", "os._exit", "raise", "return")) > 5
    for what in ("hung", "left by drivers: processes", "left by drivers: files"):
        assert counts[what] == 0, counts


@pytest.mark.parametrize("bad", ["lost", "wrong results", "left: files"])
def test_what_must_be_zero_fails_the_run_and_stands_out(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SOAK.parent))
    import soak as program

    about = {"what": "", "command": "", "date": "", "machine": "", "commit": ""}
    good = {**about, "counts": {"tasks": 1_000_000, bad: 0}}
    assert program.wrong(good) == []
    assert "| 1,000,000 |" in program.page({"cases": {"toy": good}})
    assert "**" not in program.page({"cases": {"toy": good}})
    worse = {**about, "counts": {"tasks": 1_000_000, bad: 3}}
    assert program.wrong(worse) == [f"{bad} = 3"]
    assert "**3**" in program.page({"cases": {"toy": worse}})
    assert program.wrong({**about, "error": "died"}) == ["died"]

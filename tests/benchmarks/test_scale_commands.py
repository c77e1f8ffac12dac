"""The scaling model as a program: with little work it calibrates, compares, predicts and draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.test_reports import BENCHMARKS, assert_picture, read, run


def call(out: Path, what: str, *arguments: str) -> str:
    return run("scale_model.py", out, what, *arguments)


@pytest.mark.timeout(300)
def test_calibrate_compare_predict(tmp_path: Path) -> None:
    for parts in (("local",), ("flow", "sleep"), ("rest",)):
        call(tmp_path, "calibrate", "--only", *parts)
    made = read(tmp_path / "scale_model.json")["calibration"]
    assert set(made["engines"]) == {"local"}
    assert 0 < made["engines"]["local"]["wait"]["10"] < made["engines"]["local"]["wait"]["1000"]
    assert all(point["seconds"] > 0 for point in made["flow"])
    assert made["rest"] >= 0, "0 where the machine was slower while the parts were measured than while the whole was"
    sleep = made["workloads"]["sleep"]
    assert sleep["play"]["wait"] >= 0.02
    assert sleep["update"]["wait"] >= 0.01
    assert (sleep["steps"], sleep["weights_bytes"]) == (1, 4000)

    call(tmp_path, "check")
    (row,) = read(tmp_path / "scale_model.json")["check"]["rows"]
    assert (row["workload"], row["simulators"]) == ("sleep", 1)
    assert 0 < row["measured"]["steps_per_second"] <= 50, "20 ms each"
    assert 0 < row["predicted"]["steps_per_second"] <= 50
    assert 0 < row["measured"]["had"] <= 1

    found = read(tmp_path / "scale_model.json")
    found["calibration"]["workloads"]["pong_ppo"] = {**sleep, "steps": 512}
    (tmp_path / "scale_model.json").write_text(json.dumps(found))
    nodes = {
        "workload": "sleep", "engine": "local", "nodes": [[0], [1, 1]], "cores": 2, "others": 0.0,
        "bytes_per_second": 1.25e9, "latency": 2e-4,
        "measured": {"steps_per_second": 90.0, "policy_lag": 3.0, "learner_busy": 0.9},
    }  # fmt: skip
    (tmp_path / "scale_nodes.json").write_text(json.dumps([nodes]))
    call(tmp_path, "predict")
    rows = read(tmp_path / "scale_model.json")["predictions"]["rows"]
    assert [(row["case"], row["nodes"], row["gpu"]) for row in rows] == [
        ("ppo", 1, "2018"), ("ppo", 10, "2018"), ("ppo", 1, "fast"), ("ppo", 10, "fast"),
    ]  # fmt: skip
    page = (tmp_path / "scale_model.md").read_text()
    assert "| sleep, local, 2 nodes | 3 |" in page
    assert "### PPO on Pong, 3 epochs" in page
    assert_picture(tmp_path / "scale_model.png")


def test_predictions_need_a_calibration(tmp_path: Path) -> None:
    output = run("scale_model.py", tmp_path, "predict", code=2)
    assert "run `calibrate` first" in output


def test_bookkeeping_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from scale_workloads import fit_flow

    points = [
        {"count": count, "idle": idle, "seconds": 1e-5 + 2e-7 * (count - idle) + 3e-7 * idle}
        for count, idle in ((10, 0), (100, 0), (1000, 0), (100, 50), (1000, 500))
    ]
    assert fit_flow(points) == pytest.approx({"base": 1e-5, "per_ref": 2e-7, "per_idle": 3e-7})

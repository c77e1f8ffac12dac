"""Curves of runs with different seeds, their pictures, and the table that compares them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray import cli
from rlray.cli.braille import canvas
from rlray.cli.curves import POINTS, band, grouped, read_runs
from rlray.config import RunConfig
from rlray.train.metrics import MetricsWriter
from rlray.train.run_folder import RunFolder

EVAL, STD = "eval/return_mean", "eval/return_std"
Rows = Sequence[tuple[int, Mapping[str, float]]]


def make(folder: Path, rows: Rows, name: str = "toy", seed: int = 1, **hyperparameters: Any) -> Path:
    """A run folder with these records."""
    values = {
        "name": name,
        "seed": seed,
        "env": "CartPole-v1",
        "algo": "dqn",
        "hyperparameters": hyperparameters,
        "stop": {"steps": 1000},
        "run_dir": str(folder),
    }
    run = RunFolder.create(RunConfig.from_dict(values))
    with MetricsWriter(run, run.load_config()) as writer:
        for step, numbers in rows:
            writer.write(step, numbers)
    return run.path


def evaluations(*values: float, every: int = 100) -> Rows:
    return [(every * number, {EVAL: value}) for number, value in enumerate(values, start=1)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of one configuration, and one of another."""
    make(tmp_path, evaluations(1, 5, 9), seed=1)
    make(tmp_path, evaluations(3, 5, 5, 30), seed=2)
    make(tmp_path, evaluations(20), "other", n_step=3)
    return tmp_path


def test_runs_that_differ_in_their_seed_are_one_group(runs: Path) -> None:
    two, one = sorted(grouped(read_runs([runs])), key=lambda group: len(group.runs), reverse=True)
    assert (two.label, one.label) == ("toy (2 runs)", "other")
    assert two.differing == {"hyperparameters.n_step": 1}
    assert one.differing == {"hyperparameters.n_step": 3}
    found = band(two, EVAL, "steps")
    assert found is not None
    assert found.x.tolist() == [100, 200, 300, 400]
    assert found.mean.tolist() == [2, 5, 7, 30], "where one has ended, the other goes on alone"
    assert (found.high - found.mean).tolist() == [1, 0, 2, 0]
    assert (found.mean - found.low).tolist() == [1, 0, 2, 0]
    spread = band(two, EVAL, "steps", "range")
    assert spread is not None
    assert (spread.low.tolist(), spread.high.tolist()) == ([1, 5, 5, 30], [3, 5, 9, 30])
    assert band(one, "learner/loss", "steps") is None


def test_between_two_records_a_value_lies_on_the_line(tmp_path: Path) -> None:
    first = make(tmp_path, evaluations(0, 10, every=100), seed=1)
    second = make(tmp_path, evaluations(4, every=150), seed=2)
    (group,) = grouped(read_runs([first, second]))
    found = band(group, EVAL, "steps")
    assert found is not None
    assert found.x.tolist() == [100, 150, 200]
    assert found.mean.tolist() == [0, 4.5, 10]


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    for seed in (1, 2):
        make(tmp_path, [(7 * number + seed, {EVAL: 2.0 * number}) for number in range(500)], seed=seed)
    (group,) = grouped(read_runs([tmp_path]))
    found = band(group, EVAL, "steps")
    assert found is not None
    assert found.x.size == POINTS
    assert np.abs(found.mean - (found.x - 1.5) * 2 / 7).max() < 0.5


def test_one_run_has_the_deviation_that_was_recorded(tmp_path: Path) -> None:
    rows = [(100, {EVAL: 5.0, STD: 2.0}), (200, {EVAL: 6.0, STD: 1.0})]
    (group,) = grouped(read_runs([make(tmp_path, rows)]))
    found = band(group, EVAL, "steps")
    assert found is not None
    assert (found.low.tolist(), found.high.tolist()) == ([3, 5], [7, 7])


def test_names_that_do_not_tell_groups_apart_get_what_is_different(tmp_path: Path) -> None:
    for n_step in (1, 3):
        make(tmp_path, evaluations(1), n_step=n_step, network={"kind": "mlp", "hidden": [2] * (30 * n_step)})
    labels = [group.label for group in grouped(read_runs([tmp_path]))]
    assert sorted(label[:13] for label in labels) == ["toy hidden=[2", "toy hidden=[2"]
    assert all(len(label) == 70 for label in labels)


def test_seconds_leave_out_the_time_between_an_end_and_a_resume(tmp_path: Path) -> None:
    path = make(tmp_path, [])
    rows = ["step,time,time/seconds,eval/return_mean", "10,1010,10,", "10,1012,,1", "20,5000,20,", "15,5003,,2"]
    (path / "metrics.csv").write_text("\n".join([*rows, "30,9999,"]))  # the last row was cut short
    (run,) = read_runs([path])
    series = run.series[EVAL]
    assert (series.steps.tolist(), series.seconds.tolist(), series.values.tolist()) == ([10, 15], [12, 23], [1, 2])
    assert (run.steps, run.seconds) == (20, 23)


def test_a_copy_of_two_files_is_enough(tmp_path: Path) -> None:
    path = make(tmp_path / "runs", evaluations(1))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "metrics.csv"):
        (copy / name).write_bytes((path / name).read_bytes())
    (run,) = read_runs([copy])
    assert run.series[EVAL].values.tolist() == [1]
    assert len(list(copy.iterdir())) == 2


def test_a_picture(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason='needs pip install "rlray[plot]"')
    from matplotlib.image import imread

    sizes = []
    for axes in (["steps"], ["steps", "seconds"]):
        out = tmp_path / "new" / f"{len(axes)}.png"
        words = [word for axis in axes for word in ("--x", axis)]
        assert cli.main(["plot", str(runs), "--out", str(out), "--title", "Two groups", *words]) == 0
        assert capsys.readouterr().out == f"{out}\n"
        picture = imread(out)
        sizes.append(picture.shape[:2])
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20, "curves in colours"
    assert sizes[1][1] == 2 * sizes[0][1]


def test_curves_in_the_terminal(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No colours where nobody sees them, and then a panel for each group, on the same scales."""
    assert cli.main(["plot", str(runs), "--tag", EVAL]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count(EVAL) == 2
    assert "━━ toy (2 runs): 30 at the end" in out
    assert "━━ other: 20 at the end" in out
    assert len(re.findall(r"^ *30 ┤", out, re.MULTILINE)) == len(re.findall(r"^ *2 ┤", out, re.MULTILINE)) == 2
    assert out.count("└100 ") == out.count(" 400 agent steps") == 2
    assert re.search("[\u2801-\u28ff]", out)


def test_without_matplotlib_the_message_says_what_to_install(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["plot", str(runs), "--out", "a.png"]) == 1
    assert 'pip install "rlray[plot]"' in capsys.readouterr().err
    assert cli.main(["plot", str(runs)]) == 0


@pytest.mark.parametrize("command", ["plot", "compare"])
def test_what_is_not_there(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.main([command, str(runs), "--tag", "eval/retrun"]) == 2
    assert "no run has recorded 'eval/retrun'; they have: eval/return_mean" in capsys.readouterr().err
    assert cli.main([command, str(tmp_path / "nothing")]) == 2
    assert "no run folder at" in capsys.readouterr().err
    assert cli.main([command, str(make(tmp_path / "fresh", []))]) == 2
    assert "none of the runs has recorded anything yet" in capsys.readouterr().err


def lit(text: list[str]) -> set[tuple[int, int]]:
    """The dots (across, up) of a canvas."""
    bits = {
        0x01: (0, 0),
        0x08: (1, 0),
        0x02: (0, 1),
        0x10: (1, 1),
        0x04: (0, 2),
        0x20: (1, 2),
        0x40: (0, 3),
        0x80: (1, 3),
    }
    found = set()
    for line, row in enumerate(text):
        for column, letter in enumerate(row):
            code = 0 if letter == " " else ord(letter) - 0x2800
            found |= {
                (2 * column + across, 4 * (len(text) - line) - 1 - down)
                for bit, (across, down) in bits.items()
                if code & bit
            }
    return found


def test_dots_of_braille() -> None:
    line = (np.array([0.0, 7.0]), np.array([0.0, 7.0]))
    text, who = canvas([line], (0, 7), (0, 7), (4, 2))
    assert lit(text) == {(dot, dot) for dot in range(8)}
    assert who == [[-1, -1, 0, 0], [0, 0, -1, -1]]
    point, level = (np.array([7.0]), np.array([0.0])), (np.array([0.0, 7.0]), np.array([3.0, 3.0]))
    text, who = canvas([level, point], (0, 7), (0, 7), (4, 2))
    assert lit(text) == {(dot, 3) for dot in range(8)} | {(7, 0)}
    assert who == [[-1] * 4, [0, 0, 0, 1]]
    assert lit(canvas([level], (0, 7), (3, 3), (4, 2))[0]) == {(dot, 4) for dot in range(8)}, "in the middle"


def test_the_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(runs), "--reach", "8"]) == 0
    said, head, *lines = capsys.readouterr().out.splitlines()
    assert said.startswith("eval/return_mean; mean ± std")
    titles = ["runs", "n", "final", "best", "steps", "time", "reached", "steps to it", "time to it", "n_step"]
    assert re.split(r"  +", head) == titles
    rows = {cells[0]: cells[1:] for cells in (re.split(r"  +", line) for line in lines)}
    assert rows["toy"][:4] == ["2", "19.5 ± 10.5", "19.5 ± 10.5", "350 ± 50"]
    assert rows["toy"][5:7] + rows["toy"][8:] == ["2/2", "350 ± 50", "1"]
    assert rows["other"][:4] == ["1", "20", "20", "100"]
    assert rows["other"][5:7] + rows["other"][8:] == ["1/1", "100", "3"]


def test_the_same_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, evaluations(1, 50, 9), seed=1)
    make(tmp_path, evaluations(3, 5), seed=2)
    assert cli.main(["compare", str(tmp_path), "--reach", "10", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)
    figures = [group[key] for key in ("seeds", "final", "best", "steps", "steps_to_reach")]
    found = {seed: numbers for seed, *numbers in zip(*figures, strict=True)}
    assert found == {1: [9.0, 50.0, 300.0, 200.0], 2: [5.0, 5.0, 200.0, None]}
    assert cli.main(["compare", str(tmp_path), "--reach", "10"]) == 0
    assert re.search(r"1/2 +200 ", capsys.readouterr().out)

"""Videos and histograms of the evaluations of a run, in its folder and as TensorBoard reads them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlray
from rlray import cli
from rlray.train.evaluator import EvalResult
from rlray.train.histograms import Histogram, of_evaluation
from rlray.train.metrics import MetricsWriter
from rlray.train.run_folder import RunFolder
from tests.support import REPOSITORY
from tests.train.conftest import toy_config
from tests.train.test_evaluator import WEIGHTS, make
from tests.train.test_metrics import events
from tests.train.test_run_folder import config as folder_config

EVAL = {"every": 400, "episodes": 3, "final_episodes": 4, "video": True}


def reader(run_dir: str | Path) -> EventAccumulator:
    found = EventAccumulator(str(Path(run_dir) / "events"), size_guidance={"images": 0, "histograms": 0, "scalars": 0})
    found.Reload()
    return found


def test_every_evaluation_of_a_run_has_its_video(runtime: None, tmp_path: Path) -> None:
    """Beside the training: mode async, an actor of its own."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason='needs pip install "rlray[video]"')
    settings = {"length": 7, "sleep": 0.001}
    result = rlray.train(toy_config(run_dir=str(tmp_path), mode="async", eval=EVAL, env_settings=settings))
    found = reader(result.run_dir)
    steps = [event.step for event in found.Scalars("eval/return_mean")]
    assert len(steps) >= 2
    assert steps[-1] >= 800
    videos = sorted(os.listdir(Path(result.run_dir) / "videos"))
    assert videos == [f"step_{step:09d}.mp4" for step in steps]
    for name in videos:
        frames, _ = ffmpeg.count_frames_and_secs(str(Path(result.run_dir) / "videos" / name))
        assert frames == 7, "the greedy policy walks straight to the end"
    assert [event.step for event in found.Images("eval/video")] == steps
    first = found.Images("eval/video")[0]
    assert first.encoded_image_string.startswith(b"GIF89a")
    assert (first.width, first.height) == (16, 16)
    last = found.Histograms("eval/actions")[-1]
    assert last.step == steps[-1]
    assert (last.histogram_value.num, last.histogram_value.sum) == (28, 28), "action 1, four times seven steps"
    assert found.Histograms("eval/lengths")[0].histogram_value.max == 7
    assert found.Histograms("weights/ballast")[0].histogram_value.num == 100_000
    assert result.evaluation is not None
    assert result.evaluation.video == str(Path(result.run_dir).absolute() / "videos" / videos[-1])


def test_every_evaluation_has_the_gradients_of_its_moment_and_the_run_its_end(runtime: None, tmp_path: Path) -> None:
    hyperparameters = {"network": {"kind": "mlp", "hidden": [8]}, "batch_size": 8, "warmup_steps": 100}
    config = toy_config(
        run_dir=str(tmp_path),
        algo="dqn",
        hyperparameters={**hyperparameters, "replay_capacity": 500, "max_grad_norm": 1e-3},
        eval={"every": 400, "episodes": 1, "final_episodes": 1},
    )
    result = rlray.train(config)
    found = reader(result.run_dir)
    tags = set(found.Tags()["histograms"])
    of_arrays = {tag.partition("/")[2] for tag in tags if tag.startswith("weights/")}
    assert {f"gradients/{name}" for name in of_arrays if not name.startswith("input.")} <= tags
    shown = [found.Histograms(tag) for tag in tags if tag.startswith("gradients/")]
    steps = [event.step for event in found.Scalars("eval/return_mean")]
    assert steps == [400, 800]
    for each in shown:
        assert [event.step for event in each] == steps
    for squares in zip(*([event.histogram_value.sum_squares for event in each] for each in shown), strict=True):
        assert 0 < sum(squares) <= 1.01e-6, "after clipping; a bias of one number has no histogram"
    content = found.PluginTagToContent("hparams")
    assert "_hparams_/session_end_info" in content


@pytest.mark.parametrize("in_the_way", ["videos", "videos/a.mp4"])
def test_a_video_that_cannot_be_written_costs_nothing_else(tmp_path: Path, in_the_way: str) -> None:
    """At its first picture, or when it is whole."""
    pytest.importorskip("imageio_ffmpeg", reason='needs pip install "rlray[video]"')
    if in_the_way == "videos":
        (tmp_path / "videos").write_text("no folder")
    else:
        (tmp_path / in_the_way).mkdir(parents=True)
    result = make("Corridor").evaluate(WEIGHTS, 2, 0, str(tmp_path / "videos" / "a.mp4"))
    assert result.returns == [1.0, 1.0]
    assert (result.video, result.gif) == (None, None)
    assert result.trouble is not None
    assert result.trouble.startswith(f"there is no video {tmp_path / 'videos' / 'a.mp4'}: ")


BAD = """\
env: tests.train.toys:ShortOrLong
algo: tests.train.toys:ALGORITHM
stop: {steps: 100}
eval: {video: true}
"""


def test_what_cannot_be_drawn_is_refused_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    (tmp_path / "bad.yaml").write_text(BAD)
    pytest.importorskip("imageio_ffmpeg", reason='needs pip install "rlray[video]"')
    assert cli.main(["train", "--config", "bad.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("bad.yaml:4: eval.video: true needs an environment that can be drawn")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert cli.main(["train", "--config", "bad.yaml"]) == 1
    assert 'pip install "rlray[video]"' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert cli.main(["train", "--config", "bad.yaml", "eval.video=false", "wandb.project=toys"]) == 1
    assert "pip install wandb" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["bad.yaml"]


def test_a_histogram_counts(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(3, 2, (50, 20))
    one = Histogram.of(numbers)
    assert one is not None
    counts, edges = np.histogram(numbers, 50)
    assert (one.counts, one.edges) == (counts.tolist(), edges[1:].tolist())
    assert (one.low, one.high) == (numbers.min(), numbers.max())
    assert (one.total, one.squares) == (pytest.approx(numbers.sum()), pytest.approx((numbers**2).sum()))
    assert Histogram.of(np.zeros(0)) is None
    assert Histogram.of(np.array([1.0, np.nan])) is None
    folder = RunFolder.create(folder_config(tmp_path))
    with MetricsWriter(folder, folder.load_config()) as writer:
        position = writer.position()
        writer.write_evaluation(7, EvalResult([1.0], [1], histograms={"weights/a": one}))
    (event,) = events(folder).Histograms("weights/a")
    value = event.histogram_value
    assert (event.step, value.num, value.min, value.max) == (7, 1000, one.low, one.high)
    assert (list(value.bucket_limit), list(value.bucket)) == (one.edges, one.counts)
    with MetricsWriter(folder, folder.load_config(), resume=True) as writer:
        writer.rewind(position, 5)
    assert events(folder).Tags()["histograms"] == [], "withdrawn like everything after a checkpoint"


def test_actions_of_any_kind() -> None:
    from gymnasium import spaces

    weights: dict[str, Any] = {"w": np.ones((2, 3), np.float32), "scalar": np.array(1.0), "count": np.arange(4)}
    acted = [np.array([0, 2, 2]), np.array([2, 0, 2])]
    found = of_evaluation(weights, spaces.Discrete(4), acted, [1.0, 2.0], [3, 4])
    assert sorted(found) == ["eval/actions", "eval/lengths", "eval/returns", "weights/w"]
    assert found["eval/actions"].counts == [2, 0, 4, 0]
    box = of_evaluation({}, spaces.Box(-1, 1, (2,)), [np.array([[0.5, -1.0], [0.25, -1.0]])], [1.0], [3])
    assert (box["eval/actions/0"].low, box["eval/actions/0"].high) == (0.25, 0.5)
    assert (box["eval/actions/1"].low, box["eval/actions/1"].high) == (-1.0, -1.0)

"""Metrics as TensorBoard and a CSV reader find them in the files."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups, plugin_data_pb2

from rlray.train.metrics import MetricsWriter, flat
from rlray.train.run_folder import RunFolder
from tests.train.test_run_folder import config


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(config(tmp_path))


def events(folder: RunFolder) -> EventAccumulator:
    reader = EventAccumulator(str(folder.events))
    reader.Reload()
    return reader


def scalars(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, as TensorBoard shows them."""
    reader = events(folder)
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def table(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """The same from the table."""
    found: dict[str, list[tuple[int, float]]] = {}
    with folder.metrics_file.open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            assert float(row.pop("time")) > 1.7e9
            for tag, value in row.items():
                if value != "":
                    found.setdefault(tag, []).append((step, float(value)))
    return found


def rounded(found: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(step, float(np.float32(value))) for step, value in points] for tag, points in found.items()}


def test_both_files_hold_what_was_written(folder: RunFolder) -> None:
    rng = random.Random(0)
    tags = ["train/return_mean", "eval/return_mean", "learner/loss", "time/steps_per_second", "odd, 'tag'"]
    expected: dict[str, list[tuple[int, float]]] = {}
    with MetricsWriter(folder, folder.load_config()) as writer:
        for step in range(0, 20_000, 100):
            values = {tag: rng.choice([rng.gauss(0, 9), 1e-30, 0, 3]) for tag in rng.sample(tags, rng.randrange(4))}
            writer.write(step, values)
            for tag, value in values.items():
                expected.setdefault(tag, []).append((step, value))
    assert table(folder) == expected
    assert scalars(folder) == rounded(expected)


def test_an_evaluation_may_be_reported_late(folder: RunFolder) -> None:
    with MetricsWriter(folder, folder.load_config()) as writer:
        writer.write(100, {"train/return_mean": 1})
        writer.write(300, {"train/return_mean": 2})
        writer.write(200, {"eval/return_mean": 3})
        writer.write(400, {"train/return_mean": 4})
    expected = {"train/return_mean": [(100, 1), (300, 2), (400, 4)], "eval/return_mean": [(200, 3)]}
    assert table(folder) == scalars(folder) == expected


def test_numbers_of_all_kinds(folder: RunFolder) -> None:
    with MetricsWriter(folder, folder.load_config()) as writer:
        writer.write(1, {"a": np.float32(0.5), "b": np.int64(3), "c": math.inf, "d": math.nan, "e": np.array(2.0)})
    found = {tag: points[0][1] for tag, points in table(folder).items()}
    assert math.isnan(found.pop("d"))
    assert found == {"a": 0.5, "b": 3.0, "c": math.inf, "e": 2.0}


@pytest.mark.parametrize(
    ("step", "values", "error", "message"),
    [
        (-1, {"a": 1.0}, ValueError, "step must not be negative, got -1"),
        (1, {"a": "high"}, TypeError, "metric 'a' must be a number, got 'high'"),
        (1, {"a": None}, TypeError, "metric 'a' must be a number, got None"),
        (1, {"": 1.0}, TypeError, "a metric's tag must be a text"),
    ],
)
def test_what_is_refused(folder: RunFolder, step: int, values: Any, error: type[Exception], message: str) -> None:
    with MetricsWriter(folder, folder.load_config()) as writer:
        with pytest.raises(error, match=message):
            writer.write(step, values)
        writer.write(0, {})
    assert table(folder) == scalars(folder) == {}


def test_hyperparameters_are_written_once(folder: RunFolder) -> None:
    with MetricsWriter(folder, folder.load_config()) as writer:
        position = writer.position()
    with MetricsWriter(folder, folder.load_config(), resume=True) as writer:
        writer.rewind(position, 5)
    content = events(folder).PluginTagToContent("hparams")
    assert sorted(content) == ["_hparams_/experiment", "_hparams_/session_start_info"]
    data = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    shown = data.session_start_info.hparams
    assert shown["hyperparameters.learning_rate"].number_value == 1e-3
    assert shown["hyperparameters.network.hidden"].string_value == "[64, 64]"
    assert shown["stop.minutes"].string_value == "None"
    assert shown["env"].string_value == "CartPole-v1"
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    assert [metric.name.tag for metric in experiment.metric_infos] == ["eval/return_mean", "train/return_mean"]
    assert len(list(folder.events.iterdir())) == 2


def sessions(folder: RunFolder) -> list[Any]:
    """What TensorBoard's own table of hyperparameters shows of runs."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder.events))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder.events))
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=10,
        allowed_statuses=api_pb2.Status.values(),
        col_params=[api_pb2.ColParams(metric={"tag": "eval/return_mean"})],
    )
    backend = backend_context.Context(TBContext(data_provider=provider))
    groups = list_session_groups.Handler(RequestContext(), backend, "", request).run().session_groups
    return [session for group in groups for session in group.sessions]


@pytest.mark.parametrize("how", ["success", "unknown", "failure"])
def test_the_end_of_a_run_and_what_it_came_to_are_in_the_table_of_hyperparameters(folder: RunFolder, how: Any) -> None:
    began = time.time()
    with contextlib.suppress(ZeroDivisionError), MetricsWriter(folder, folder.load_config()) as writer:
        writer.write(100, {"eval/return_mean": 1.0})
        position = writer.position()
        writer.write(200, {"eval/return_mean": 2.5})
        if how == "failure":
            raise ZeroDivisionError
        writer.end(how)
    (session,) = sessions(folder)
    assert api_pb2.Status.Name(session.status) == f"STATUS_{how.upper()}"
    assert began - 1 < session.start_time_secs <= session.end_time_secs <= time.time()
    shown = {value.name.tag: (value.value, value.training_step) for value in session.metric_values}
    assert shown == {"eval/return_mean": (2.5, 200)}
    with MetricsWriter(folder, folder.load_config(), resume=True) as writer:
        writer.rewind(position, 100)
        (session,) = sessions(folder)
        assert api_pb2.Status.Name(session.status) == "STATUS_UNKNOWN", "it goes on: its end is withdrawn"
        assert session.end_time_secs == 0


def test_a_resumed_run_withdraws_what_came_after_its_checkpoint(folder: RunFolder) -> None:
    """Also what came late for a step before it, which the step does not show."""
    with MetricsWriter(folder, folder.load_config()) as writer:
        for step in (0, 100, 200):
            writer.write(step, {"a": step, "b": -step})
        position = writer.position()
        writer.write(300, {"a": 300, "b": -300})
        writer.write(150, {"a": 150})
    with MetricsWriter(folder, folder.load_config(), resume=True) as writer:
        writer.rewind(position, 200)
        writer.write(250, {"a": 7, "c": 1})
    expected = {"a": [(0, 0), (100, 100), (200, 200), (250, 7)], "b": [(0, 0), (100, -100), (200, -200)]}
    assert table(folder) == scalars(folder) == {**expected, "c": [(250, 1)]}
    for file in folder.events.iterdir():
        list(EventFileLoader(str(file)).Load())  # no file was cut in the middle of a record


def test_a_run_that_falls_back_on_its_way(folder: RunFolder) -> None:
    """Twice to the same place, where a file was begun in between; and then to the beginning."""
    with MetricsWriter(folder, folder.load_config()) as writer:
        writer.write(1, {"a": 1})
        position = writer.position()
        for value in (2, 3):
            writer.write(2, {"a": value})
            writer.rewind(position, 1)
        writer.write(2, {"a": 4})
        assert table(folder) == scalars(folder) == {"a": [(1, 1), (2, 4)]}
        writer.rewind(None, 0)
        writer.write(1, {"a": 5})
    assert table(folder)["a"] == scalars(folder)["a"] == [(1, 5)]
    assert events(folder).PluginTagToContent("hparams")


WRITER = """
import itertools, sys
from rlray.train.metrics import MetricsWriter
from rlray.train.run_folder import RunFolder
folder = RunFolder.open(sys.argv[1])
writer = MetricsWriter(folder, folder.load_config())
for step in itertools.count():
    writer.write(step, {"a": step, f"tag/{step // 7}": 0.1})
    print(step, flush=True)
"""


def test_a_killed_run_loses_nothing(folder: RunFolder) -> None:
    for _ in range(3):
        for old in folder.events.iterdir():
            old.unlink()
        folder.metrics_file.unlink(missing_ok=True)
        command = [sys.executable, "-c", WRITER, str(folder.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            last = max(int(run.stdout.readline()) for _ in range(50))
            run.send_signal(signal.SIGKILL)
            last = max([last, *map(int, run.stdout.read().split())])
        for found in (scalars(folder)["a"], table(folder)["a"]):
            assert found[: last + 1] == [(step, step) for step in range(last + 1)]


def test_half_a_row_is_dropped(folder: RunFolder) -> None:
    with MetricsWriter(folder, folder.load_config()) as writer:
        writer.write(1, {"a": 1, "b": 1})
        writer.write(2, {"a": 2, "b": 2})
        position = writer.position()
    os.truncate(folder.metrics_file, folder.metrics_file.stat().st_size - 3)
    with MetricsWriter(folder, folder.load_config(), resume=True) as writer:
        writer.rewind(position, 2)
        writer.write(3, {"a": 3})
    assert table(folder) == {"a": [(1, 1), (3, 3)], "b": [(1, 1)]}


def test_flat() -> None:
    nested = {"a": 1, "b": {"c": True, "d": {"e": [1, 2]}}, "f": None, "g": "x", "h": {}}
    assert dict(flat(nested)) == {"a": 1, "b.c": True, "b.d.e": "[1, 2]", "f": "None", "g": "x"}


def test_the_driver_needs_no_torch_for_it() -> None:
    code = "import sys, rlray.train.metrics; assert not {'torch', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

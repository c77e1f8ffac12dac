"""What a run reports: to TensorBoard and to a table. `docs/metrics.md` lists the tags."""

from __future__ import annotations

import contextlib
import csv
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

from rlray.config import RunConfig
from rlray.train.evaluator import EvalResult
from rlray.train.histograms import Histogram
from rlray.train.run_folder import RunFolder

HPARAMS_METRICS = ("eval/return_mean", "train/return_mean")
"""What TensorBoard's table of hyperparameters shows beside them."""


class MetricsWriter:
    """Writes scalars on one axis, the run's agent steps, to TensorBoard's events and to ``metrics.csv``.

    What `write` was given is in the files when it returns, so that a killed run loses nothing. Use it as a context
    manager, which also writes down that a run failed, or call `close`.

    Args:
        folder: the run's.
        config: its settings, shown by TensorBoard as hyperparameters.
        resume: whether the run goes on in this folder. Nothing is written then until `rewind` was called.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, resume: bool = False) -> None:
        self._folder, self._config = folder, config
        self._table = _Table(folder.metrics_file)
        self._events: EventFileWriter | None = None
        if not resume:
            self._open_events()
            self._write_hparams()

    def position(self) -> dict[str, Any]:
        """Where both files end now, for `rewind`."""
        return {"rows": self._table.rows, "events": {file.name: file.stat().st_size for file in self._event_files()}}

    def rewind(self, position: Mapping[str, Any] | None, step: int) -> None:
        """Withdraw what was written after ``position``, or everything where that is None; ``step`` is where the run is.

        The table loses its rows, TensorBoard's files are cut; one that runs meanwhile is told to forget later steps.
        """
        if self._events is not None:
            self._events.close()
        ends = {} if position is None else position["events"]
        for file in self._event_files():
            if file.name not in ends:
                file.unlink()
            elif file.stat().st_size > ends[file.name]:
                os.truncate(file, ends[file.name])
        self._table.keep(0 if position is None else position["rows"])
        self._open_events()
        if position is None:
            self._write_hparams()
        start = SessionLog(status=SessionLog.START)
        self._write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Report ``values`` by tag for the moment after ``step`` agent steps. None of them, no entry."""
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        numbers = {tag: _number(tag, value) for tag, value in values.items()}
        if not numbers:
            return
        now = time.time()
        scalars = [Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
        self._write_event(Event(wall_time=now, step=step, summary=Summary(value=scalars)))
        self._table.write(step, now, numbers)

    def write_evaluation(self, step: int, result: EvalResult) -> None:
        """What TensorBoard shows of an evaluation besides numbers: histograms, and the video as ``eval/video``."""
        values = [Summary.Value(tag=tag, histo=_histogram(one)) for tag, one in result.histograms.items()]
        if result.gif is not None:
            width, height = (int.from_bytes(result.gif[at : at + 2], "little") for at in (6, 8))
            picture = Summary.Image(encoded_image_string=result.gif, width=width, height=height, colorspace=3)
            values.append(Summary.Value(tag="eval/video", image=picture))
        self._write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def end(self, status: Literal["success", "failure", "unknown"]) -> None:
        """Write down how the run has ended, for TensorBoard's table of hyperparameters; a resume withdraws it."""
        number = api_pb2.Status.Value(f"STATUS_{status.upper()}")
        now = time.time()
        ended = plugin_data_pb2.SessionEndInfo(status=number, end_time_secs=now)
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
        self._write_event(Event(wall_time=now, step=0, summary=Summary(value=[value])))

    def close(self) -> None:
        """Close both files. Calling it twice is harmless."""
        if self._events is not None:
            self._events.close()
        self._table.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._events is not None:
            with contextlib.suppress(OSError):  # of a full disk, say: the error that ends the run says more
                self.end("failure")
        self.close()

    def _open_events(self) -> None:
        """A new file that comes after the others: TensorBoard reads them in the order of their names, whole seconds."""
        while any(int(time.time()) == _second_of(file) for file in self._event_files()):
            time.sleep(0.05)
        self._events = EventFileWriter(str(self._folder.events))
        self._events.flush()

    def _event_files(self) -> list[Path]:
        return sorted(self._folder.events.glob("events.out.tfevents.*"))

    def _write_event(self, event: Event) -> None:
        assert self._events is not None, "a run that goes on must rewind before it writes"
        self._events.add_event(event)
        self._events.flush()

    def _write_hparams(self) -> None:
        settings = dict(flat(self._config.model_dump(mode="json")))
        metrics = [hparams.Metric(tag) for tag in HPARAMS_METRICS]
        names = [hparams.HParam(name) for name in settings]
        for summary in (hparams.hparams_config_pb(names, metrics), hparams.hparams_pb(settings, self._config.name)):
            self._write_event(Event(wall_time=time.time(), step=0, summary=summary))


def _histogram(of: Histogram) -> HistogramProto:
    return HistogramProto(
        min=of.low,
        max=of.high,
        num=sum(of.counts),
        sum=of.total,
        sum_squares=of.squares,
        bucket_limit=of.edges,
        bucket=of.counts,
    )


def _second_of(file: Path) -> int:
    """When an event file was begun, in seconds since 1970, as its name says."""
    second = file.name.split(".")[3]
    return int(second) if second.isdigit() else 0


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, bool | int | float | str]]:
    """Nested settings as dotted keys and plain values; lists and None as text, mappings in a list by their index."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield from flat(dict(zip(map(str, range(len(value))), value, strict=True)), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, (bool, int, float, str)) else str(value)


class _Table:
    """``metrics.csv``: a row per report; a column per tag, added when the tag first appears; empty where not reported.

    The first columns are ``step`` and ``time`` (seconds since 1970).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns = ["step", "time"]
        self._file: TextIO | None = None
        self.rows = 0
        self._rewrite(self._read() if path.exists() else [])

    def keep(self, rows: int) -> None:
        """Only the first ``rows`` rows stay."""
        self._rewrite(self._read()[:rows])

    def write(self, step: int, now: float, numbers: Mapping[str, float]) -> None:
        fresh = [tag for tag in numbers if tag not in self._columns]
        if fresh:
            rows = self._read()
            self._columns += fresh
            self._rewrite(rows)
        assert self._file is not None
        self._rows.writerow({"step": step, "time": f"{now:.3f}", **numbers})
        self._file.flush()
        self.rows += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> list[dict[str, str]]:
        """The rows so far; the last one is left out if a kill cut it short."""
        text = self._path.read_text(encoding="utf-8")
        reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines(), restval="")
        rows = list(reader)
        self._columns = list(reader.fieldnames or self._columns)
        return rows

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Replace the file in one piece, so that a kill leaves the old one or the new one."""
        self.close()
        draft = self._path.with_name(f".{self._path.name}.tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(self._path)
        self.rows = len(rows)
        self._file = self._path.open("a", newline="", encoding="utf-8")
        self._rows = self._writer(self._file)

    def _writer(self, file: TextIO) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self._columns, restval="", lineterminator="\n")


def _number(tag: str, value: float) -> float:
    if not isinstance(tag, str) or not tag:
        raise TypeError(f"a metric's tag must be a text, such as 'train/return_mean', got {tag!r}")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metric {tag!r} must be a number, got {value!r}") from error

"""What a run reports: to TensorBoard and to a table. `docs/metrics.md` lists the tags."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import summary_v2 as hparams  # type: ignore[import-untyped]
from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

from rlray.config import RunConfig
from rlray.train.run_folder import RunFolder

HPARAMS_METRICS = ("eval/return_mean", "train/return_mean")
"""What TensorBoard's table of hyperparameters shows beside them."""


class MetricsWriter:
    """Writes scalars on one axis, the run's agent steps, to TensorBoard's events and to ``metrics.csv``.

    What `write` was given is in the files when it returns, so that a killed run loses nothing. Use it as a context
    manager, or call `close`.

    Args:
        folder: the run's.
        config: its settings, shown by TensorBoard as hyperparameters; written for a new run only.
        resume_step: the agent steps of the checkpoint from which the run goes on. What was written for later
            steps is withdrawn: TensorBoard no longer shows it, the table no longer has it. None for a new run.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, resume_step: int | None = None) -> None:
        self._table = _Table(folder.metrics_file, resume_step)
        self._events = EventFileWriter(str(folder.events))
        if resume_step is None:
            self._write_hparams(config)
        else:
            start = SessionLog(status=SessionLog.START)
            self._events.add_event(Event(wall_time=time.time(), step=resume_step + 1, session_log=start))
        self._events.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Report ``values`` by tag for the moment after ``step`` agent steps. None of them, no entry."""
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        numbers = {tag: _number(tag, value) for tag, value in values.items()}
        if not numbers:
            return
        now = time.time()
        scalars = [Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
        self._events.add_event(Event(wall_time=now, step=step, summary=Summary(value=scalars)))
        self._events.flush()
        self._table.write(step, now, numbers)

    def close(self) -> None:
        """Close both files. Calling it twice is harmless."""
        self._events.close()
        self._table.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_hparams(self, config: RunConfig) -> None:
        settings = dict(flat(config.model_dump(mode="json")))
        metrics = [hparams.Metric(tag) for tag in HPARAMS_METRICS]
        names = [hparams.HParam(name) for name in settings]
        for summary in (hparams.hparams_config_pb(names, metrics), hparams.hparams_pb(settings, config.name)):
            self._events.add_event(Event(wall_time=time.time(), step=0, summary=summary))


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, bool | int | float | str]]:
    """Nested settings as dotted keys and plain values; lists and None as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, (bool, int, float, str)) else str(value)


class _Table:
    """``metrics.csv``: a row per report; a column per tag, added when the tag first appears; empty where not reported.

    The first columns are ``step`` and ``time`` (seconds since 1970).
    """

    def __init__(self, path: Path, resume_step: int | None) -> None:
        self._path = path
        self._columns = ["step", "time"]
        self._file: TextIO | None = None
        rows = self._read() if path.exists() else []
        self._rewrite([row for row in rows if resume_step is None or int(row["step"]) <= resume_step])

    def write(self, step: int, now: float, numbers: Mapping[str, float]) -> None:
        fresh = [tag for tag in numbers if tag not in self._columns]
        if fresh:
            rows = self._read()
            self._columns += fresh
            self._rewrite(rows)
        assert self._file is not None
        self._rows.writerow({"step": step, "time": f"{now:.3f}", **numbers})
        self._file.flush()

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

    def _rewrite(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Replace the file in one piece, so that a kill leaves the old one or the new one."""
        self.close()
        draft = self._path.with_name(f".{self._path.name}.tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(self._path)
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

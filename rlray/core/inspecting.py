"""Looking into the run of this process: what it does now, and where the time went."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlray.core import engine as engines
from rlray.core.state import View
from rlray.core.timeline import NOTABLE, trace, write


def _engine() -> engines.Engine:
    if not engines.running():
        raise RuntimeError("there is no run to look into; call init() first")
    return engines.current()


def look(kind: str, ended: bool = False, **options: Any) -> View:
    """What every process of the run says; with ``ended`` also what was noted of calls that have ended.

    Raises: RuntimeError if the runtime is not up.
    """
    engine = _engine()
    report = engine.inspect(kind, **options)
    return View(report, engine.tracks() if ended else ())


def timeline(filename: str | os.PathLike[str] | None = None) -> list[dict[str, Any]] | None:
    """Where the time went, as a trace that https://ui.perfetto.dev and chrome://tracing open.

    Without preparation there is every call of a task or method, and every wait in `get` and `wait`, of a millisecond or
    more; with ``init(timeline=True)`` all of them. Of each process the latest 262,144 are kept. Call it before
    `shutdown`. Spans of your own come from `rlray.util.profile`.

    Returns the events, or None if they were written to ``filename``.

    Raises: RuntimeError if the runtime is not up; OSError if the file cannot be written.
    """
    events = trace(_engine().tracks())
    if filename is None:
        return events
    write(events, filename)
    return None


def metrics_text() -> str:
    """What the run measures of itself, in Prometheus' text format. Raises: RuntimeError if the runtime is not up."""
    from rlray.core import samples

    return samples.metrics_text(look("metrics"))


@contextmanager
def profile(name: str) -> Iterator[None]:
    """Note what happens in the ``with`` block as a span of the timeline, if it takes a millisecond or more.

    Raises: TypeError for a name that is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"profile() takes a name, got {type(name).__name__} {name!r}")
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        engine = engines.peek()
        if engine is not None and seconds >= NOTABLE:
            engine.note(began, seconds, name)

"""The processes of a run, as its reports show them on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlray.cli.text import duration, some
from rlray.core.procfs import process_use
from rlray.core.state import View, WorkerState

_MOST = 3  # names in a row


def processes(view: View) -> list[dict[str, Any]]:
    """What each living process is and does: those that do not answer first, then those that do something."""
    rows = [_process(view, worker) for worker in view.workers() if worker.is_alive]
    return sorted(rows, key=lambda row: (row["answers"], not (row["runs"] or row["waits"]), row["pid"]))


def _process(view: View, worker: WorkerState) -> dict[str, Any]:
    number = int(worker.worker_id, 16)
    return {
        "pid": worker.pid,
        "what": view.label(number),
        "state": worker.state,
        "answers": worker.answers,
        "stopped": not worker.answers and is_stopped(worker.pid),
        "runs": _runs(view, number),
        "waits": [
            {key: wait[key] for key in ("what", "count", "names", "seconds")}
            for wait in view.processes.get(number, {}).get("waits", ())
        ],
        "blocked": worker.blocked,
        "restarts": next((row.num_restarts for row in view.actors() if row.actor_id == worker.actor_id), 0),
    }


def _runs(view: View, process: int) -> list[dict[str, Any]]:
    """What a process runs; of one that does not answer, the call that it was sent first, as its caller tells."""
    found = [{"name": call.name, "seconds": call.seconds} for call in view.running() if call.process == process]
    if not found and process in view.report["silent"]:
        sent = (row for part in view.processes.values() for row in part.get("tasks", ()) if row["worker"] == process)
        found = [{"name": row["name"], "seconds": None} for row in sent][:1]
    return found


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped, by a signal or a debugger."""
    use = process_use(pid)
    return use is not None and use.state in "Tt"


def does(row: dict[str, Any]) -> str:
    """What a process does, in words."""
    return ", ".join(_does(row)) or "idle"


def _does(row: dict[str, Any]) -> Iterator[str]:
    if not row["answers"]:
        yield "does not answer" + (" (stopped)" if row["stopped"] else "")
    calls = [
        f"was sent {call['name']}" if call["seconds"] is None else f"{call['name']} {duration(call['seconds'])}"
        for call in row["runs"]
    ]
    if calls:
        yield some(calls, _MOST)
    for wait in row["waits"][:_MOST]:
        yield waits(wait)
    if row["state"] in ("starting", "setting up", "dying"):
        yield row["state"]
    if row["blocked"]:
        yield "has lent its CPUs"
    if row["restarts"]:
        yield f"restarted {row['restarts']} times" if row["restarts"] > 1 else "restarted once"


def waits(wait: dict[str, Any]) -> str:
    """What a thread waits for, in words."""
    names = f" of {some(wait['names'], _MOST)}" if wait["names"] else ""
    values = f"{wait['count']} values" if wait["count"] != 1 else "a value"
    return f"waits {duration(wait['seconds'])} in {wait['what']} for {values}{names}"

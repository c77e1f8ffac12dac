"""``rlray memory``: who holds the memory of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlray.cli.processes import is_stopped
from rlray.cli.text import size, some, table
from rlray.core.local.visit import Run
from rlray.core.state import View

_MOST_HOLDERS = 5
_COLUMNS = {
    "holds": "bytes of the store that it got from the node",
    "in_memory": "values that it owns there",
    "on_disk": "values that it owns, spilled",
    "in_messages": "small values that it owns",
    "arrays": "living arrays of rlray.empty()",
    "warm": "free, but kept for its next values",
    "reads": "values of which it has a view",
}


def memory(run: Run, view: View) -> dict[str, Any]:
    """All of it, as plain data."""
    store = view.node["store"]
    return {
        "run": run.name,
        "driver_pid": run.driver_pid,
        "store": {key: store[key] for key in ("capacity", "used", "spilled")},
        "processes": [_process(view, process, store) for process in _living(view)],
        "waiting_for_room": [
            {"pid": view.pid(process), "what": view.label(process), "bytes": count}
            for process, count in store["waiting"].items()
        ],
        "makers": _makers(view),
        "values": [
            {
                "object_id": row.object_id,
                "bytes": row.object_size,
                "where": row.where,
                "made_by": row.call_site,
                "owner_pid": row.pid,
                "held_by": [f"{holder.how} (pid {holder.pid})" for holder in row.holders],
            }
            for row in view.objects()
            if row.object_size
        ],
    }


def _makers(view: View) -> list[dict[str, Any]]:
    """By what made them, and where they are: how many values, and their bytes. Most bytes first."""
    found: dict[tuple[str, str], list[int]] = {}
    for maker, where, count, bytes_ in view.made():
        total = found.setdefault((maker, where), [0, 0])
        total[0] += count
        total[1] += bytes_
    rows = [
        {"made_by": maker, "where": where, "values": count, "bytes": bytes_}
        for (maker, where), (count, bytes_) in found.items()
        if bytes_
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def _living(view: View) -> list[int]:
    held = view.node["store"]["held"]
    numbers = [int(worker.worker_id, 16) for worker in view.workers() if worker.is_alive]
    ended = [process for process in held if process not in numbers]
    return sorted([*numbers, *ended], key=lambda process: -held.get(process, 0))


def _process(view: View, process: int, store: Mapping[str, Any]) -> dict[str, Any]:
    part = view.processes.get(process, {})
    owned: dict[str, int] = {}
    for _, where, _, count in part.get("totals", ()):
        owned[where] = owned.get(where, 0) + count
    pid = view.pid(process)
    return {
        "pid": pid,
        "what": view.label(process),
        "answers": process not in view.report["silent"],
        "stopped": pid is not None and process in view.report["silent"] and is_stopped(pid),
        "holds": store["held"].get(process, 0),
        "in_memory": owned.get("memory", 0),
        "on_disk": owned.get("disk", 0),
        "in_messages": owned.get("message", 0) + owned.get("error", 0),
        "arrays": part.get("arrays", 0),
        "warm": part.get("warm", 0),
        "reads": part.get("read", 0),
    }


def memory_lines(told: Mapping[str, Any], top: int) -> Iterator[str]:
    """All of it, for people."""
    store = told["store"]
    yield f"run {told['run']}, driver pid {told['driver_pid']}"
    yield from table(
        [("store", f"{size(store['used'])} of {size(store['capacity'])}, {size(store['spilled'])} spilled to disk")]
    )
    rows = [row for row in told["processes"] if not row["answers"] or any(row[key] for key in _COLUMNS)]
    shown = [key for key in _COLUMNS if any(row[key] for row in rows)]
    yield from table(
        [
            ("processes", *(key.replace("_", " ") for key in shown)),
            *((f"  {_what(row)}", *(size(row[key]) if row[key] else "" for key in shown)) for row in rows),
        ],
        right=range(1, len(shown) + 1),
        indent="",
    )
    yield from table((key.replace("_", " "), _COLUMNS[key]) for key in shown)
    if told["waiting_for_room"]:
        yield "waiting for room"
        yield from table((str(row["pid"]), row["what"], size(row["bytes"])) for row in told["waiting_for_room"])
    if told["makers"]:
        yield "made by"
        yield from table(
            (
                (size(row["bytes"]), row["where"], f"{row['values']:,} ×", row["made_by"] or "(small values)")
                for row in told["makers"][:top]
            ),
            right=[0, 2],
        )
    if told["values"]:
        yield f"the {min(top, len(told['values']))} largest values"
        yield from _value_lines(told["values"][:top])


def _what(row: Mapping[str, Any]) -> str:
    silent = " (stopped)" if row["stopped"] else " (does not answer)"
    pid = f", pid {row['pid']}" if row["pid"] else ""
    return f"{row['what']}{pid}{'' if row['answers'] else silent}"


def _value_lines(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    lines = table(
        [(size(row["bytes"]), row["where"], row["made_by"] or "?", f"owner pid {row['owner_pid']}") for row in rows],
        right=[0],
    )
    for row, line in zip(rows, lines, strict=True):
        yield line
        holders = some(row["held_by"], _MOST_HOLDERS) or "nobody but messages under way"
        yield from table([(holders,)], indent="      ")

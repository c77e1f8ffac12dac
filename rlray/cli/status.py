"""``rlray status``: what a run does at this moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rlray.cli.processes import does, processes
from rlray.cli.text import amount, amounts, duration, size, some, table
from rlray.core.local.visit import Run
from rlray.core.state import View

_MOST_PROCESSES = 40  # lines
_MOST_TASKS = 25
_MOST_DEATHS = 5
_MOST_PIDS = 8
_WAITING = {
    "PENDING_ARGS_AVAIL": "arguments",
    "PENDING_NODE_ASSIGNMENT": "worker",
    "SUBMITTED_TO_WORKER": "sent",
    "RUNNING": "running",
    "FINISHED": "finished",
    "FAILED": "failed",
}

_HEADS = {"arguments": "need args", "worker": "need worker"}


def status(run: Run, view: View) -> dict[str, Any]:
    """All of it, as plain data."""
    node, store = view.node, view.node["store"]
    return {
        "run": run.name,
        "driver_pid": run.driver_pid,
        "program": run.program,
        "up_seconds": time.time() - run.started,
        "logs": run.log_directory,
        "resources": {name: {"total": total, "free": node["free"].get(name, 0.0)} for name, total in _total(view)},
        "store": {key: store[key] for key in ("capacity", "used", "spilled")},
        "processes": processes(view),
        "tasks": _tasks(view),
        "actors": _actors(view),
        "waiting": _waiting(view),
        "deaths": node["deaths"],
        "last_deaths": [
            {"pid": pid, "how": " ".join(how.split())} for _, pid, how in list(node["dead"])[-_MOST_DEATHS:]
        ],
    }


def _total(view: View) -> Iterator[tuple[str, float]]:
    return ((name, total) for name, total in view.node["total"].items() if total)


def _tasks(view: View) -> list[dict[str, Any]]:
    """By name: how many calls are where, and how long one takes. Those with most to do first."""
    seconds: Counter[str] = Counter()
    for part in view.processes.values():
        for name, (_, took) in part.get("finished", {}).items():
            seconds[name] += took
    rows = []
    for name, states in view.task_counts().items():
        row = {word: states.get(state, 0) for state, word in _WAITING.items()}
        finished = row["finished"]
        rows.append({"name": name, **row, "mean_seconds": seconds[name] / finished if finished else None})
    return sorted(rows, key=lambda row: (-row["running"], -row["sent"] - row["worker"] - row["arguments"], row["name"]))


def _actors(view: View) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for actor in view.actors():
        states = found.setdefault(actor.class_name, {})
        states[actor.state] = states.get(actor.state, 0) + 1
    return found


def _waiting(view: View) -> list[dict[str, Any]]:
    """What waits for resources: tasks that want more workers, actors and placement groups that have no place yet."""
    free: Mapping[str, float] = view.node["free"]
    asked: Counter[tuple[str, tuple[tuple[str, float], ...], str]] = Counter()
    for client, resources, count, group in view.node["demand"]:
        if count:
            asked[f"tasks of {view.label(client)}", tuple(resources.items()), group.hex()] += count
    for one in view.node["actors"]:
        if one["state"] in ("pending", "restarting") and one["worker"] is None and not one["waits"]:
            asked[f"actor {one['class_name']}", tuple(one["resources"].items()), one["group"].hex()] += 1
    for group in view.groups():
        if group.state == "PENDING":
            bundles: Counter[str] = Counter()
            for bundle in group.bundles:
                bundles.update(bundle)
            asked[f"placement group {group.name}".rstrip(), tuple(bundles.items()), ""] += 1
    return [
        {
            "what": what,
            "count": count,
            "resources": dict(resources),
            "group": group or None,
            "short_of": [] if group else [name for name, value in resources if value > free.get(name, 0.0) + 1e-9],
        }
        for (what, resources, group), count in asked.items()
    ]


def status_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """All of it, for people."""
    yield f"run {told['run']}, driver pid {told['driver_pid']}, up {duration(told['up_seconds'])}"
    used = [
        f"{name} {size(one['total'] - one['free'])} of {size(one['total'])}"
        if name == "memory"
        else f"{name} {amount(one['total'] - one['free'])} of {amount(one['total'])}"
        for name, one in told["resources"].items()
    ]
    store = told["store"]
    yield from table(
        [
            ("program", told["program"]),
            ("in use", ", ".join(used) or "nothing"),
            ("store", f"{size(store['used'])} of {size(store['capacity'])}, {size(store['spilled'])} spilled to disk"),
            ("logs", told["logs"]),
        ]
    )
    yield from _process_lines(told["processes"])
    yield from _task_lines(told["tasks"])
    if told["actors"]:
        yield "actors"
        yield from table(
            (name, ", ".join(f"{count} {state.lower()}" for state, count in states.items()))
            for name, states in sorted(told["actors"].items())
        )
    if told["waiting"]:
        yield "waiting for resources"
        yield from table(_waiting_row(row, told["resources"]) for row in told["waiting"])
    if told["deaths"]:
        yield f"processes that have ended: {told['deaths']}"
        yield from table([(row["how"],) for row in told["last_deaths"]])


def _process_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "processes"
    idle: dict[str, list[str]] = {}
    busy = []
    for row in rows:
        words = does(row)
        if words == "idle" and row["what"] != "driver":
            idle.setdefault(row["what"], []).append(str(row["pid"]))
        else:
            busy.append((str(row["pid"]), row["what"], words))
    if len(busy) > _MOST_PROCESSES:
        busy[_MOST_PROCESSES:] = [("", f"and {len(busy) - _MOST_PROCESSES} more", "")]
    yield from table(busy, right=[0])
    if idle:
        yield from table((f"idle: {len(pids)} × {what}", some(pids, _MOST_PIDS)) for what, pids in sorted(idle.items()))


def _task_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    heads = [word for word in _WAITING.values() if any(row[word] for row in rows)]
    shown = [
        [f"  {row['name']}", *(str(row[word] or "") for word in heads), _mean(row["mean_seconds"])]
        for row in rows[:_MOST_TASKS]
    ]
    if len(rows) > _MOST_TASKS:
        shown.append([f"  and {len(rows) - _MOST_TASKS} more names", *[""] * len(heads), ""])
    head = [_HEADS.get(word, word) for word in heads]
    yield from table([["tasks", *head, "mean"], *shown], right=range(1, len(heads) + 2), indent="")


def _mean(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _waiting_row(row: Mapping[str, Any], resources: Mapping[str, Mapping[str, float]]) -> tuple[str, str, str]:
    many = row["count"] > 1
    asked = amounts(row["resources"])
    if row["what"].startswith("tasks of"):
        who, what = (
            row["what"],
            f"want {row['count']} more workers with {asked}" if many else f"want a worker with {asked}",
        )
    else:
        who, what = (
            (f"{row['count']} × {row['what']}", f"need {asked} each") if many else (row["what"], f"needs {asked}")
        )
    if row["group"] is not None:
        why = f"in placement group {row['group']}"
    elif row["short_of"]:
        free = {name: resources[name]["free"] if name in resources else 0.0 for name in row["short_of"]}
        why = f"free: {amounts(free)}"
    else:
        why = "is being placed"
    return who, what, why

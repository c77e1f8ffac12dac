"""Finding calls that wait for each other for ever.

A call that runs and waits for values without a timeout needs all that are missing. A value needs the call that makes
it; a call that has not begun needs its arguments, and if it is one of an actor that runs one call at a time, the end of
the one there, which may be the constructor. A coroutine that waits in ``get`` holds up the others of its actor:
those need its end. A circle among these can only be broken from outside.

Processes report at different moments. That does no harm: what a call needs once, it needs until that has ended, and so
none of the calls of a circle, each seen before its end, can have been the first to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlray.core.state import Report, View

_TASK_BYTES = 10  # of an object's id name the task that makes it


class Deadlocks:
    """The calls of a run that wait for each other, made from a report of "tasks"."""

    def __init__(self, report: Report) -> None:
        self._view = View(report)
        self._tasks: dict[bytes, Mapping[str, Any]] = {}
        self._where: dict[bytes, int] = {}  # running calls -> process
        self._names: dict[bytes, str] = {}  # of running calls
        self._waits: dict[bytes, Mapping[str, Any]] = {}
        self._serial: dict[int, bytes] = {}  # processes of actors that run one call at a time -> what they run
        self._held_up: dict[int, Mapping[str, Any] | None] = {}  # processes with coroutines -> what holds up all
        self._home: dict[bytes, int] = {one["id"]: one["worker"] for one in report["node"]["actors"]}
        for process, part in report["processes"].items():
            self._tasks |= {row["id"]: row for row in part.get("tasks", ())}
            running, waits = part.get("running", ()), part.get("waits", ())
            self._where |= {row["id"]: process for row in running}
            self._names |= {row["id"]: row["name"] for row in running}
            self._waits |= {row["task"]: row for row in waits if row["task"]}
            if part.get("concurrency") == "serial" and len(running) == 1:
                self._serial[process] = running[0]["id"]
            if part.get("concurrency") == "coroutines":
                self._held_up[process] = next((row for row in waits if row["on_main"]), None)

    def _needs(self, task: bytes) -> Iterator[bytes]:
        """The calls whose end ``task`` waits for."""
        if task in self._where:
            yield from _needed(self._waits.get(task))
            yield from self._holding_up(self._where[task], task)
            return
        row = self._tasks.get(task)
        if row is None:
            return
        yield from (one[:_TASK_BYTES] for one in row["missing"])
        home = self._home.get(row["actor"]) if row["actor"] is not None else None
        if home in self._serial:
            yield self._serial[home]
        yield from self._holding_up(home, task)

    def _holding_up(self, process: int | None, task: bytes) -> Iterator[bytes]:
        """The coroutine that keeps all others of its process waiting, and so ``task``; or what it waits for."""
        wait = self._held_up.get(process) if process is not None else None
        if wait is not None and wait["task"] is None:
            yield from _needed(wait)
        elif wait is not None and wait["task"] != task:
            yield wait["task"]

    def of(self, task: bytes) -> str | None:
        """In words, the circle of calls that ``task`` waits in, if there is one."""
        circle = self._circle(task)
        return None if circle is None else " waits for ".join(map(self._describe, [*circle, circle[0]]))

    def _describe(self, task: bytes) -> str:
        """A call, for people."""
        if task in self._where:
            process = self._where[task]
            return f"{self._names[task]} (running in {self._view.label(process)}, pid {self._view.pid(process)})"
        return f"{self._tasks[task]['name']} (not begun)"

    def _circle(self, start: bytes) -> list[bytes] | None:
        """Calls that wait for each other in a circle through ``start``."""
        path, seen = [start], {start}
        stack = [self._needs(start)]
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                path.pop()
            elif following == start:
                return path
            elif following not in seen:
                seen.add(following)
                path.append(following)
                stack.append(self._needs(following))
        return None


def _needed(wait: Mapping[str, Any] | None) -> Iterator[bytes]:
    """What a wait is for, if nothing else can end it."""
    if wait is not None and wait["for_ever"] and wait["needs_all"]:
        yield from (one[:_TASK_BYTES] for one in wait["missing"])

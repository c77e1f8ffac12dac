"""``rlray stack``: where the code of a run's program is at this moment, in every thread and coroutine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlray.cli.processes import is_stopped, waits
from rlray.cli.text import duration, some, table
from rlray.core.stacks import users_part_of_dump
from rlray.core.state import Running, View

_MOST_PIDS = 8


def stack_lines(view: View, pid: int | None) -> Iterator[str]:
    """The stacks of all processes, or of one."""
    idle: dict[str, list[str]] = {}
    for worker in view.workers():
        if not worker.is_alive or pid not in (None, worker.pid):
            continue
        process = int(worker.worker_id, 16)
        lines = list(_process_lines(view, process, worker.pid))
        if lines:
            yield f"{view.label(process)}, pid {worker.pid}"
            yield from lines
            yield ""
        else:
            idle.setdefault(view.label(process), []).append(str(worker.pid))
    for what, pids in sorted(idle.items()):
        yield f"idle: {len(pids)} × {what}, pid {some(pids, _MOST_PIDS)}"


def _process_lines(view: View, process: int, pid: int) -> Iterator[str]:
    part = view.processes.get(process, {})
    if process in view.report["silent"] or "dump" in part:
        yield from _silent_lines(part.get("dump", ""), pid)
        return
    running = [call for call in view.running() if call.process == process]
    for name, ident, stack in part.get("threads", ()):
        call = next((call for call in running if call.thread == ident), None)
        wait = next((wait for wait in part["waits"] if wait["thread"] == ident), None)
        if stack or call is not None:
            yield from _stack(name, call, wait, stack)
    alike: dict[tuple[str, str], list[Running]] = {}
    for task, stack in part.get("coroutines", ()):
        call = next((call for call in running if call.id == task), None)
        if call is not None:
            alike.setdefault((call.name, stack), []).append(call)
    for (_, stack), calls in alike.items():
        yield from _stack("coroutine" if len(calls) == 1 else f"{len(calls)} coroutines", calls[0], None, stack)


def _stack(where: str, call: Running | None, wait: dict[str, Any] | None, stack: str) -> Iterator[str]:
    words = [f"{call.name} for {duration(call.seconds)}"] if call is not None else []
    if wait is not None:
        words.append(waits(wait))
    yield "  " + ": ".join([where, *filter(None, [", ".join(words)])])
    yield from _indented(stack.rstrip("\n") or "(in the runtime)")


def _silent_lines(dump: str, pid: int) -> Iterator[str]:
    if is_stopped(pid):
        yield "  does not answer: it is stopped (kill -CONT lets it go on)"
        return
    yield "  did not answer: it had not let go of the interpreter for a second"
    if dump:
        yield from _indented(users_part_of_dump(dump))


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from table([(line,)], indent="    ")

"""What one process says of itself when somebody looks: its tasks, its values, what its threads do. Plain data only."""

from __future__ import annotations

import heapq
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlray.core.calls import call_kind
from rlray.core.local.jobs import Measures
from rlray.core.local.references import Entry, task_of
from rlray.core.local.tasks import Task
from rlray.core.refs import ObjectRef
from rlray.core.resources import amounts
from rlray.core.stacks import users_part

if TYPE_CHECKING:
    from rlray.core.local.client import Client

_MOST_NAMES = 4_096  # functions whose calls are counted apart
_OTHERS = "(other names)"
_MOST_MISSING = 100  # references named of those that a thread waits for
_OWN_THREADS = "rlray-"  # what the names of the runtime's own threads begin with


class Waiting:
    """A thread that waits for values."""

    __slots__ = ("began", "entries", "for_ever", "needed", "task", "what")

    def __init__(self, what: str, entries: list[Entry], needed: int, for_ever: bool) -> None:
        self.what = what  # get, or wait
        self.entries = entries
        self.needed = needed
        self.for_ever = for_ever
        self.task: bytes | None = None  # that waits; None: the driver, or a thread of its own
        self.began = 0.0


class Reports:
    """What one process says of itself. Methods are called under the loop's lock, in any thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.waiting: dict[int, Waiting] = {}  # by thread
        self.finished: dict[str, list[float]] = {}  # by name: calls, seconds; of those that this process made
        self.failed: Counter[str] = Counter()
        self._kinds: Mapping[str, Callable[..., Any]] = {
            "tasks": self._tasks,
            "objects": self._objects,
            "stacks": self._stacks,
            "timeline": self._timeline,
            "metrics": self._metrics,
        }

    def make(self, kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The report of that kind."""
        return {"pid": os.getpid(), **self._kinds[kind](**options)}

    @contextmanager
    def still_waiting(self, refs: Sequence[ObjectRef], task: bytes) -> Iterator[None]:
        """This thread waits for all these values, also while it does something else."""
        entries = [self._client.references.entry(ref) for ref in refs]
        waiting = self.waiting[threading.get_ident()] = Waiting("get", entries, len(entries), True)
        waiting.task, waiting.began = task, time.perf_counter()
        try:
            yield
        finally:
            self.waiting.pop(threading.get_ident(), None)

    def took(self, measures: Measures) -> None:
        """A process has told how long calls took."""
        finished = self.finished
        for name, _, calls, seconds in measures.values():
            if name not in finished:
                if len(finished) >= _MOST_NAMES:
                    name = _OTHERS
                finished.setdefault(name, [0, 0.0])
            total = finished[name]
            total[0] += calls
            total[1] += seconds

    def has_failed(self, name: str) -> None:
        """A call of this process has ended with an error."""
        self.failed[name if name in self.failed or len(self.failed) < _MOST_NAMES else _OTHERS] += 1

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _tasks(self, limit: int) -> dict[str, Any]:
        """The calls that this process has made and that have not ended, and what runs and waits in it."""
        rows: list[dict[str, Any]] = []
        counts: Counter[tuple[str, str, str]] = Counter()
        for task in self._client.all_tasks():
            state, kind = _state(task), call_kind(task.spec, task.actor is not None)
            counts[task.spec.name, kind, state] += 1
            if len(rows) < limit:
                rows.append(self._task(task, state, kind))
        return {
            "tasks": rows,
            "counts": [(*key, count) for key, count in counts.items()],
            "finished": {name: tuple(total) for name, total in self.finished.items()},
            "failed": dict(self.failed),
            "running": self._running(),
            "serial": self._client.hooks is not None and self._client.hooks.is_serial(),
            "waits": [self._wait(one) for one in list(self.waiting.values())],
        }

    def _task(self, task: Task, state: str, kind: str) -> dict[str, Any]:
        return {
            "id": task.id,
            "name": task.spec.name,
            "kind": kind,
            "state": state,
            "actor": task.actor.binary() if task.actor is not None else None,
            "parent": task.parent,
            "worker": task.worker,
            "attempt": max(0, task.spec.max_retries - task.retries) if task.spec.max_retries > 0 else 0,
            "resources": amounts(task.spec.wish.resources),
            "missing": [ref.binary() for ref in task.dependencies if ref.entry.payload is None],  # type: ignore[attr-defined]
        }

    def _running(self) -> list[tuple[bytes, str, float]]:
        """(task, name, seconds so far) of what runs here."""
        hooks, now = self._client.hooks, time.perf_counter()
        jobs = hooks.under_way() if hooks is not None else []
        return [(job.id, job.spec.name, now - job.began) for job in jobs if job.began]

    def _wait(self, one: Waiting) -> dict[str, Any]:
        missing = [entry.id for entry in one.entries if entry.payload is None]
        return {
            "what": one.what,
            "task": one.task,
            "seconds": time.perf_counter() - one.began,
            "missing": missing[:_MOST_MISSING],
            "count": len(missing),
            "needs_all": one.needed == len(one.entries),
            "for_ever": one.for_ever,
        }

    # -- objects -----------------------------------------------------------------------------------------------------

    def _objects(self, limit: int) -> dict[str, Any]:
        """The largest values that this process owns, all that it owns in sum, and what it holds of others."""
        owned: list[tuple[int, bytes]] = []
        totals: dict[str, list[int]] = {}
        borrowed: list[tuple[int, bytes]] = []
        self._client.references.sweep()
        entries = self._client.references.entries
        for entry in entries.values():
            where, size = where_and_size(entry)
            if entry.owned:
                if where == "pending" and entry.released is not None:
                    continue  # it stands for an actor
                total = totals.setdefault(where, [0, 0])
                total[0] += 1
                total[1] += size
                owned.append((size, entry.id))
            elif where in ("memory", "disk"):
                borrowed.append((size, entry.id))
        values = self._client.values
        return {
            "owned": [self._owned(entries[one]) for _, one in heapq.nlargest(limit, owned)],
            "totals": {where: tuple(total) for where, total in totals.items()},
            "borrowed": [
                (one, entries[one].credits, values.is_read(one)) for _, one in heapq.nlargest(limit, borrowed)
            ],
            "warm": values.extents.warm_bytes,
            "arrays": values.made_bytes,
        }

    def _owned(self, entry: Entry) -> dict[str, Any]:
        where, size = where_and_size(entry)
        return {
            "id": entry.id,
            "size": size,
            "where": where,
            "maker": entry.maker or (entry.task.spec.name if entry.task is not None else ""),
            "task": task_of(entry.id),
            "local": entry.local,
            "holders": dict(entry.holders or {}),
            "in_calls": not entry.movable,
            "read": self._client.values.is_read(entry.id),
        }

    # -- stacks ------------------------------------------------------------------------------------------------------

    def _stacks(self) -> dict[str, Any]:
        """What every thread of this process does, but for the runtime's own, and every coroutine of an actor."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        found = []
        for ident, frame in sys._current_frames().items():
            name = names.get(ident, f"thread {ident}")
            if not name.startswith(_OWN_THREADS) or name.startswith("rlray-call"):
                found.append((name, users_part(frame)))
        hooks = self._client.hooks
        coroutines = hooks.coroutine_stacks() if hooks is not None else []
        return {"threads": sorted(found), "coroutines": coroutines, "running": self._running()}

    # -- where the time went -----------------------------------------------------------------------------------------

    def _timeline(self) -> dict[str, Any]:
        """See to it that all spans so far can be read, and say what is not over yet."""
        self._client.recorder.flush()
        return {"running": self._running(), "now": time.perf_counter()}

    def _metrics(self) -> dict[str, Any]:
        states: Counter[tuple[str, str]] = Counter()
        for task in self._client.all_tasks():
            states[call_kind(task.spec, task.actor is not None), _state(task)] += 1
        objects = self._objects(0)
        return {
            "states": [(*key, count) for key, count in states.items()],
            "finished": {name: tuple(total) for name, total in self.finished.items()},
            "failed": dict(self.failed),
            "objects": objects["totals"],
            "warm": objects["warm"],
            "arrays": objects["arrays"],
            "running": len(self._running()),
        }


def _state(task: Task) -> str:
    """Where a call stands, in Ray's words. Whether one that was sent runs already, its worker knows."""
    if task.worker is not None:
        return "SUBMITTED_TO_WORKER"
    return "PENDING_NODE_ASSIGNMENT" if task.ready else "PENDING_ARGS_AVAIL"


def where_and_size(entry: Entry) -> tuple[str, int]:
    """Where a value is, and how many bytes it takes there."""
    payload = entry.payload
    if payload is None:
        return "pending", 0
    match payload[0]:
        case "stored":
            return "memory", sum(part[1] for part in payload[3] if not isinstance(part, bytes))
        case "spilled":
            return "disk", sum(part[1] for part in payload[2] if not isinstance(part, bytes))
        case "inline":
            return "message", len(payload[1]) + sum(map(len, payload[2]))
        case "error":
            return "error", len(payload[1])
    return "message", sys.getsizeof(payload[1])

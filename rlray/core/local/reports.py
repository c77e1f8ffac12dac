"""What one process says of itself when somebody looks: its tasks, its values, what its threads do. Plain data only."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rlray.core.calls import call_kind
from rlray.core.engine import CallSpec
from rlray.core.local.holdings import holdings
from rlray.core.local.jobs import Measures
from rlray.core.local.references import Entry
from rlray.core.local.sieve import Sieve
from rlray.core.local.tasks import Task
from rlray.core.metrics import snapshot
from rlray.core.resources import amounts
from rlray.core.stacks import users_part
from rlray.core.state import Filter

if TYPE_CHECKING:
    from rlray.core.local.client import Client

_MOST_NAMES = 4_096  # functions whose calls are counted apart
_OTHERS = "(other names)"
_MOST_MISSING = 100  # references named of those that a thread waits for
_SENT = "SUBMITTED_TO_WORKER"
_OWN_THREADS = "rlray-"  # what the names of the runtime's own threads begin with


class Waiting:
    """A thread that waits for values."""

    __slots__ = ("began", "entries", "for_ever", "needed", "task", "what")

    def __init__(self, what: str, entries: list[Entry], needed: int, for_ever: bool) -> None:
        self.what = what  # get, or wait
        self.entries = entries
        self.needed = needed
        self.for_ever = for_ever  # if it is ended by time, it begins again
        self.task: bytes | None = None  # that waits; None: the driver, or a thread of its own
        self.began = 0.0  # on the clock of `time.perf_counter`; 0: not yet


class Reports:
    """What one process says of itself. Methods are called under the loop's lock, in any thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.waiting: dict[int, Waiting] = {}  # by thread
        self.finished: dict[str, list[float]] = {}  # by name: calls, seconds; of those that this process made
        self.failed: Counter[str] = Counter()
        self._kinds: Mapping[str, Callable[..., Any]] = {
            "tasks": self._tasks,
            "objects": partial(holdings, client),
            "stacks": self._stacks,
            "timeline": self._timeline,
            "metrics": self._metrics,
        }

    def make(self, kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The report of that kind."""
        hooks = self._client.hooks
        return {
            "pid": os.getpid(),
            "now": time.perf_counter(),
            "running": hooks.under_way() if hooks is not None else [],
            "concurrency": hooks.concurrency() if hooks is not None else "",
            **self._kinds[kind](**options),
        }

    @contextmanager
    def still(self, waiting: Waiting) -> Iterator[None]:
        """This thread waits, also while it does something else."""
        self.waiting[threading.get_ident()] = waiting
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

    def _tasks(self, limit: int, filters: Sequence[Filter] = ()) -> dict[str, Any]:
        """The calls that this process has made and that have not ended, and what waits in it."""
        sieve = Sieve(_FIELDS, [part for one in filters for part in _as_known_here(one)], limit)
        sent: list[Task] = []
        waiting: list[Task] = []
        for task in self._client.all_tasks():
            rows = waiting if task.worker is None else sent
            if len(rows) < sieve.limit and sieve(task):
                rows.append(task)
        return {
            "tasks": [self._task(task) for task in [*sent, *waiting][: sieve.limit]],
            "waits": self._waits(),
            **self._counts(),
        }

    def _counts(self) -> dict[str, Any]:
        """How many calls of which name are in which state. A million take less than a second."""
        counts: dict[tuple[int, bool, str], int] = {}
        specs: dict[int, CallSpec] = {}
        for task in self._client.all_tasks():
            key = (id(task.spec), task.actor is not None, _state(task))
            if key in counts:
                counts[key] += 1
            else:
                counts[key] = 1
                specs[key[0]] = task.spec
        named: Counter[tuple[str, str, str]] = Counter()
        for (spec, method, state), count in counts.items():
            row = specs[spec].name, call_kind(specs[spec], method), state
            named[row if row in named or len(named) < _MOST_NAMES else (_OTHERS, *row[1:])] += count
        return {
            "counts": [(*row, count) for row, count in named.items()],
            "finished": {name: tuple(total) for name, total in self.finished.items()},
            "failed": dict(self.failed),
        }

    def _task(self, task: Task) -> dict[str, Any]:
        return {
            "id": task.id,
            "name": task.spec.name,
            "kind": call_kind(task.spec, task.actor is not None),
            "state": _state(task),
            "actor": task.actor.binary() if task.actor is not None else None,
            "parent": task.parent,
            "worker": task.worker,
            "attempt": max(0, task.spec.max_retries - task.retries) if task.spec.max_retries > 0 else 0,
            "resources": amounts(task.spec.wish.resources),
            "missing": [ref.binary() for ref in task.dependencies if ref.entry.payload is None],  # type: ignore[attr-defined]
        }

    def _waits(self) -> list[dict[str, Any]]:
        return [self._wait(thread, one) for thread, one in list(self.waiting.items())]

    def _wait(self, thread: int, one: Waiting) -> dict[str, Any]:
        missing = [entry for entry in one.entries if entry.payload is None]
        first = missing[:_MOST_MISSING]
        return {
            "what": one.what,
            "thread": thread,
            "on_main": thread == threading.main_thread().ident,
            "task": one.task,
            "seconds": time.perf_counter() - one.began,
            "missing": [entry.id for entry in first],
            "names": list(dict.fromkeys(entry.task.spec.name for entry in first if entry.task is not None)),
            "count": len(missing),
            "needs_all": one.needed == len(one.entries),
            "for_ever": one.for_ever,
        }

    # -- stacks ------------------------------------------------------------------------------------------------------

    def _stacks(self) -> dict[str, Any]:
        """What every thread of this process does, but for the runtime's own, and every coroutine of an actor."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        found = []
        for ident, frame in sys._current_frames().items():
            name = names.get(ident, f"thread {ident}")
            if not name.startswith(_OWN_THREADS) or name.startswith("rlray-call"):
                found.append((name, ident, users_part(frame)))
        hooks = self._client.hooks
        coroutines = hooks.coroutine_stacks() if hooks is not None else []
        return {"threads": sorted(found), "coroutines": coroutines, "waits": self._waits()}

    # -- where the time went -----------------------------------------------------------------------------------------

    def _timeline(self) -> dict[str, Any]:
        """See to it that all spans so far can be read, and say what is not over yet."""
        self._client.recorder.flush()
        return {}

    def _metrics(self) -> dict[str, Any]:
        return {**self._counts(), **holdings(self._client, 0), "user": snapshot()}


def _state(task: Task) -> str:
    """Where a call stands, in Ray's words. Whether one that was sent runs already, its worker knows."""
    if task.worker is not None:
        return _SENT
    return "PENDING_NODE_ASSIGNMENT" if task.ready else "PENDING_ARGS_AVAIL"


def _as_known_here(one: Filter) -> list[Filter]:
    """A filter as far as it can be decided here: a call that runs is known as one that was sent."""
    key, comparison, value = one
    if key != "state" or not str(value).lower().startswith((_SENT.lower(), "running")):
        return [one]
    left = ("state, as its worker tells it", comparison, value)
    return [left, ("sent", "=", True)] if comparison == "=" else [left]


_FIELDS: Mapping[str, Callable[[Task], object]] = {
    "task_id": lambda task: task.id.hex(),
    "name": lambda task: task.spec.name,
    "func_or_class_name": lambda task: task.spec.name,
    "type": lambda task: call_kind(task.spec, task.actor is not None),
    "state": _state,
    "sent": lambda task: task.worker is not None,
    "actor_id": lambda task: task.actor.binary().hex() if task.actor is not None else None,
    "parent_task_id": lambda task: task.parent.hex() if task.parent is not None else None,
}

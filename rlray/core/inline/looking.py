"""What the inline engine says of itself when somebody looks: the same report as that of many processes, with one."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.calls import call_kind
from rlray.core.inline.actors import Actor, LifeRef
from rlray.core.inline.jobs import Job
from rlray.core.inline.values import Entry
from rlray.core.metrics import snapshot
from rlray.core.resources import amounts
from rlray.core.stacks import users_part
from rlray.core.state import MOST_ROWS, Filter, Report
from rlray.core.timeline import NOTABLE, Kind, Span, Track

if TYPE_CHECKING:
    from rlray.core.inline.engine import Inline

_PROCESS = 0
_MOST = 1 << 18  # spans kept
_DEAD_KEPT = 1_000  # dead actors of which one can still be told


class Looking:
    """Notes what calls took, and makes reports. Methods may be called from any thread."""

    def __init__(self, engine: Inline, everything: bool) -> None:
        self._engine = engine
        self._least = 0.0 if everything else NOTABLE
        self._spans: deque[Span] = deque(maxlen=_MOST)
        self._started = time.time()
        self._finished: dict[str, list[float]] = {}
        self._failed: Counter[str] = Counter()
        self._dead: deque[dict[str, Any]] = deque(maxlen=_DEAD_KEPT)

    def ended(self, job: Job, failed: bool) -> None:
        """A job is over."""
        name = job.spec.name
        seconds = time.perf_counter() - job.began if job.began else 0.0
        if failed:
            self._failed[name] += 1
        else:
            total = self._finished.setdefault(name, [0, 0.0])
            total[0] += 1
            total[1] += seconds
        if job.began and seconds >= self._least:
            kind = Kind.FAILED if failed else Kind.CALL
            self.note(job.began, seconds, name, kind, job.id, job.actor is not None)

    def constructed(self, actor: Actor, began: float, failed: bool) -> None:
        """The constructor of an actor has ended."""
        seconds, kind = time.perf_counter() - began, Kind.FAILED if failed else Kind.CALL
        if seconds >= self._least:
            self.note(began, seconds, f"{actor.class_name}.__init__", kind, actor.construct.id, method=True)

    def died(self, actor: Actor) -> None:
        """An actor is dead."""
        self._dead.append(_actor(actor))

    def note(self, began: float, seconds: float, name: str, kind: Kind, task: bytes, method: bool = False) -> None:
        """Note a span."""
        self._spans.append(Span(began, seconds, task, name, kind, method))

    def tracks(self) -> list[Track]:
        """The one track of this process."""
        now = time.perf_counter()
        under_way = [
            Span(job.began, now - job.began, job.id, job.spec.name, Kind.RUNNING, job.actor is not None)
            for job in self._running()
        ]
        return [Track(_PROCESS, os.getpid(), "inline", [*self._spans, *under_way], len(self._spans) == _MOST)]

    def report(self, kind: str, limit: int = 1, filters: Sequence[Filter] = ()) -> Report:
        """As `rlray.core.engine.Engine.inspect`. Filters are left to whoever asks."""
        limit = MOST_ROWS if filters else limit
        running = [
            {
                "id": job.id,
                "name": job.spec.name,
                "began": job.began,
                "thread": job.thread or 0,
                "method": job.actor is not None,
            }
            for job in self._running()
        ]
        part: dict[str, Any] = {"pid": os.getpid(), "now": time.perf_counter(), "running": running, "concurrency": ""}
        if kind in ("tasks", "metrics"):
            part |= self._tasks(limit)
        if kind == "metrics":
            part["user"] = snapshot()
        if kind in ("objects", "metrics"):
            part |= self._objects(limit)
        if kind == "stacks":
            part |= {"threads": _stacks(), "coroutines": [], "waits": []}
        return {"node": self._standing(), "processes": {_PROCESS: part}, "silent": []}

    def _running(self) -> list[Job]:
        return [job for job in list(self._engine.runner.pending.values()) if job.began and not job.done]

    def _tasks(self, limit: int) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        counts: Counter[tuple[str, str, str]] = Counter()
        for job in list(self._engine.runner.pending.values()):
            state = "SUBMITTED_TO_WORKER" if job.began or job.ready else "PENDING_ARGS_AVAIL"
            kind = call_kind(job.spec, job.actor is not None)
            counts[job.spec.name, kind, state] += 1
            if len(rows) < limit:
                rows.append(
                    {
                        "id": job.id,
                        "name": job.spec.name,
                        "kind": kind,
                        "state": state,
                        "actor": job.actor.id if job.actor is not None else None,
                        "parent": job.parent,
                        "worker": _PROCESS if job.began else None,
                        "attempt": max(0, job.spec.max_retries - job.retries) if job.spec.max_retries > 0 else 0,
                        "resources": amounts(job.spec.wish.resources),
                        "missing": [
                            ref.binary() for ref in job.dependencies if self._engine.values.entry(ref).payload is None
                        ],
                    }
                )
        return {
            "tasks": rows,
            "counts": [(*key, count) for key, count in counts.items()],
            "finished": {name: tuple(total) for name, total in self._finished.items()},
            "failed": dict(self._failed),
            "waits": [],
        }

    def _objects(self, limit: int) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        totals: dict[tuple[str, str], list[int]] = {}
        for object_id, entry in self._values():
            where, size = _where_and_size(entry)
            maker = entry.job.spec.name if entry.job is not None else ""
            total = totals.setdefault((maker, where), [0, 0])
            total[0] += 1
            total[1] += size
            rows.append(
                {
                    "id": object_id,
                    "size": size,
                    "where": where,
                    "maker": maker,
                    "local": 1,
                    "holders": {},
                    "in_calls": False,
                    "read": False,
                }
            )
        rows.sort(key=lambda row: -row["size"])
        return {
            "owned": rows[:limit],
            "totals": [(*key, *total) for key, total in totals.items()],
            "borrowed": [],
            "read": 0,
            "warm": 0,
            "arrays": 0,
        }

    def _values(self) -> Iterator[tuple[bytes, Entry]]:
        for ref in self._engine.values.references():
            if not isinstance(ref, LifeRef):
                yield ref.binary(), ref.entry

    def _standing(self) -> dict[str, Any]:
        engine = self._engine
        total, free = engine.resources()
        used = sum(_where_and_size(entry)[1] for _, entry in self._values())
        context = engine.context()
        return {
            "job": context.job_id,
            "node": context.node_id,
            "driver": _PROCESS,
            "driver_pid": os.getpid(),
            "namespace": context.namespace,
            "logs": "",
            "started": self._started,
            "workers": [],
            "dead": [],
            "deaths": 0,
            "actors": [*map(_actor, engine.actors()), *self._dead],
            "groups": engine.groups.rows(),
            "demand": [],
            "total": total,
            "free": free,
            "store": {"capacity": 0, "used": used, "spilled": 0, "held": {_PROCESS: used}, "waiting": {}},
        }


def _actor(actor: Actor) -> dict[str, Any]:
    return {
        "id": actor.id,
        "class_name": actor.class_name,
        "name": (actor.namespace, actor.name) if actor.name else None,
        "state": actor.state,
        "waits": not actor.construct.ready and actor.state == "pending",
        "worker": _PROCESS,
        "restarts": actor.restarts,
        "detached": actor.detached,
        "creator": _PROCESS,
        "resources": amounts(actor.construct.request.resources),
        "group": actor.construct.request.group,
        "cause": actor.cause[1] if actor.state == "dead" else None,
    }


def _stacks() -> list[tuple[str, int, str]]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        (names.get(ident, f"thread {ident}"), ident, users_part(frame))
        for ident, frame in sys._current_frames().items()
    ]


def _where_and_size(entry: Entry) -> tuple[str, int]:
    payload = entry.payload
    if payload is None:
        return "pending", 0
    if payload[0] == "pickle":
        return "message", len(payload[1]) + sum(memoryview(buffer).nbytes for buffer in payload[2])
    return ("error", len(payload[1])) if payload[0] == "error" else ("message", sys.getsizeof(payload[1]))

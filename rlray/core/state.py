"""What a run does, as rows: tasks, actors, objects, workers, made from what its processes have reported.

The names of states and fields are Ray's (``ray.util.state``), where Ray has them. Rows are attributes and keys alike:
``row.state`` and ``row["state"]``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlray.core.error_text import error_text
from rlray.core.timeline import Kind, Span, Track

MOST_ROWS = 100_000  # that a process tells of
Filter = tuple[str, str, Any]
"""A field, "=" or "!=", and a value."""

Report = Mapping[str, Any]
"""What `rlray.core.engine.Engine.inspect` returns: the node's part, a part for each process, and who did not answer."""


class Row:
    """A row whose fields can be read like those of a dictionary, too."""

    def __getitem__(self, key: str) -> Any:
        if not hasattr(self, key):
            raise KeyError(key)
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The field of that name, or ``default``."""
        return getattr(self, key, default)

    def asdict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class TaskState(Row):
    """A call of a function or of an actor's method: waiting, running, or, if it took long enough to be noted, ended."""

    task_id: str
    name: str
    state: str  # PENDING_ARGS_AVAIL, PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, RUNNING, RUNNING_IN_RAY_GET, ...
    type: str  # NORMAL_TASK, ACTOR_TASK or ACTOR_CREATION_TASK; calls of `map` and generators say so
    job_id: str
    node_id: str
    actor_id: str | None = None
    parent_task_id: str | None = None
    worker_id: str | None = None
    worker_pid: int | None = None
    attempt_number: int = 0
    seconds: float | None = None  # that it has run
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    required_resources: Mapping[str, float] = field(default_factory=dict)
    waits_for: tuple[str, ...] = ()  # arguments that are not there yet

    @property
    def func_or_class_name(self) -> str:
        """What is called."""
        return self.name


@dataclass(frozen=True)
class ActorState(Row):
    """An actor, also a dead one for some time."""

    actor_id: str
    class_name: str
    state: str  # DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING or DEAD
    job_id: str
    node_id: str
    name: str
    ray_namespace: str
    pid: int | None
    num_restarts: int
    is_detached: bool
    required_resources: Mapping[str, float]
    placement_group_id: str | None
    death_cause: str | None


@dataclass(frozen=True)
class WorkerState(Row):
    """A process of the run."""

    worker_id: str
    worker_type: str  # DRIVER or WORKER
    pid: int
    is_alive: bool
    node_id: str
    state: str  # starting, setting up, idle, leased, actor, dying; dead
    actor_id: str | None = None
    class_name: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)
    running: tuple[tuple[str, float], ...] = ()  # names of calls, and the seconds that they have run
    blocked: bool = False  # it waits for values, and its CPUs are lent to others
    answers: bool = True  # False: it did not answer within a second
    exit_detail: str | None = None


@dataclass(frozen=True)
class Holder(Row):
    """A process that keeps a value alive."""

    pid: int
    worker_id: str
    how: str


@dataclass(frozen=True)
class ObjectState(Row):
    """A value, and who holds it."""

    object_id: str
    object_size: int  # bytes
    where: str  # memory (the object store), disk, message (inside of messages), pending, error
    reference_type: str  # PINNED_IN_MEMORY, USED_BY_PENDING_TASK, LOCAL_REFERENCE or BORROWED
    call_site: str  # the task that made it, or the line that put it, where that is known
    type: str  # of the owner: DRIVER or WORKER
    pid: int  # the owner's
    holders: tuple[Holder, ...]


@dataclass(frozen=True)
class GroupState(Row):
    """A placement group."""

    placement_group_id: str
    name: str
    state: str  # PENDING, CREATED or REMOVED
    strategy: str
    bundles: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Running(Row):
    """A call that runs."""

    process: int
    id: bytes
    name: str
    seconds: float
    thread: int  # 0: it is a coroutine
    method: bool  # of an actor


class View:
    """A report, read. ``tracks`` are what was noted of ended calls, if that is wanted."""

    def __init__(self, report: Report, tracks: Iterable[Track] = ()) -> None:
        self.report = report
        self.node: Mapping[str, Any] = report["node"]
        self.processes: Mapping[int, Any] = report["processes"]
        self._tracks = tracks
        self._workers = {one["process"]: one for one in self.node["workers"]}
        self._actors = {one["id"]: one for one in self.node["actors"]}
        self._pids = {
            self.node["driver"]: self.node["driver_pid"],
            **{n: one["pid"] for n, one in self._workers.items()},
        }

    def pid(self, process: int | None) -> int | None:
        """The pid of a process of the run."""
        return self._pids.get(process) if process is not None else None

    def label(self, process: int) -> str:
        """A process, for people: ``driver``, ``worker``, or the actor that it is."""
        worker = self._workers.get(process)
        if worker is None:
            return "driver" if process in self._pids else "ended worker"
        actor = self._actors.get(worker["actor"])
        if actor is None:
            return "worker"
        name = f" {actor['name'][1]!r}" if actor["name"] else ""
        return f"actor {actor['class_name']}{name}"

    # -- tasks -------------------------------------------------------------------------------------------------------

    def tasks(self) -> list[TaskState]:
        """Calls that run, then those that wait, then those that have ended, the last ones first."""
        running = {call.id: call for call in self.running()}
        waits = {row["task"]: row["what"] for _, part in self._parts("waits") for row in part if row["task"]}
        rows = [row for _, part in self._parts("tasks") for row in part]
        known = {row["id"] for row in rows}
        rows += [self._seen_running(call) for call in running.values() if call.id not in known]
        living = [self._task(row, running.get(row["id"]), waits.get(row["id"])) for row in rows]
        living.sort(key=lambda row: not row.state.startswith("RUNNING"))
        return living + self._ended({row.task_id for row in living})

    def _parts(self, key: str) -> Iterator[tuple[int, Any]]:
        return ((process, part[key]) for process, part in self.processes.items() if key in part)

    def running(self) -> list[Running]:
        """What runs, the longest first."""
        rows = [
            Running(process, row["id"], row["name"], part["now"] - row["began"], row["thread"], row["method"])
            for process, part in self.processes.items()
            for row in part.get("running", ())
        ]
        return sorted(rows, key=lambda row: -row.seconds)

    def _seen_running(self, call: Running) -> dict[str, Any]:
        """What is known of a call that runs and that its caller has not told of: it is stuck, or has told of others."""
        worker = self._workers.get(call.process)
        actor = worker["actor"] if worker is not None else None
        kind = "ACTOR_TASK" if call.method else "NORMAL_TASK"
        if actor is not None and call.id == actor[: len(call.id)]:
            kind = "ACTOR_CREATION_TASK"
        return {
            "id": call.id,
            "name": call.name,
            "kind": kind,
            "state": "RUNNING",
            "actor": actor,
            "parent": None,
            "worker": call.process,
            "attempt": 0,
            "resources": worker["resources"] if worker is not None and not call.method else {},
            "missing": (),
        }

    def _task(self, row: Mapping[str, Any], call: Running | None, waits: str | None) -> TaskState:
        state, worker, seconds = row["state"], row["worker"], None
        if call is not None:
            worker, seconds = call.process, call.seconds
            state = "RUNNING" if waits is None else f"RUNNING_IN_RAY_{waits.upper()}"
        return TaskState(
            task_id=row["id"].hex(),
            name=row["name"],
            state=state,
            type=row["kind"],
            job_id=self.node["job"],
            node_id=self.node["node"],
            actor_id=_hex(row["actor"]),
            parent_task_id=_hex(row["parent"]),
            worker_id=_worker_id(worker),
            worker_pid=self.pid(worker),
            attempt_number=row["attempt"],
            seconds=seconds,
            start_time_ms=None if seconds is None else int((time.time() - seconds) * 1000),
            required_resources=row["resources"],
            waits_for=tuple(one.hex() for one in row["missing"]),
        )

    def _ended(self, living: set[str]) -> list[TaskState]:
        rows = [
            self._ended_call(track, span)
            for track in self._tracks
            for span in track.spans
            if span.kind in (Kind.CALL, Kind.FAILED) and span.task.hex() not in living
        ]
        return sorted(rows, key=lambda row: -(row.end_time_ms or 0))

    def _ended_call(self, track: Track, span: Span) -> TaskState:
        to_wall = time.time() - time.perf_counter()
        actor = track.actor if span.method else None
        kind = "ACTOR_TASK" if span.method else "NORMAL_TASK"
        if actor is not None and actor.startswith(span.task.hex()):
            kind = "ACTOR_CREATION_TASK"
        return TaskState(
            task_id=span.task.hex(),
            name=span.name,
            state="FINISHED" if span.kind == Kind.CALL else "FAILED",
            type=kind,
            job_id=self.node["job"],
            node_id=self.node["node"],
            actor_id=actor,
            worker_id=_worker_id(track.process),
            worker_pid=track.pid,
            seconds=span.seconds,
            start_time_ms=int((span.began + to_wall) * 1000),
            end_time_ms=int((span.began + span.seconds + to_wall) * 1000),
        )

    def task_counts(self) -> dict[str, dict[str, int]]:
        """By name and state: how many calls, also of those that have ended."""
        found: dict[str, dict[str, int]] = {}

        def count(name: str, state: str, many: int) -> None:
            states = found.setdefault(name, {})
            states[state] = states.get(state, 0) + many

        for _, part in self._parts("counts"):
            for name, _, state, many in part:
                count(name, state, many)
        for call in self.running():
            count(call.name, "RUNNING", 1)
            count(call.name, "SUBMITTED_TO_WORKER", -1)
        for _, part in self._parts("finished"):
            for name, (many, _) in part.items():
                count(name, "FINISHED", int(many))
        for _, part in self._parts("failed"):
            for name, many in part.items():
                count(name, "FAILED", many)
        return {name: {state: many for state, many in states.items() if many > 0} for name, states in found.items()}

    # -- the rest ----------------------------------------------------------------------------------------------------

    def actors(self) -> list[ActorState]:
        """Every actor, living ones first."""
        rows = [self._actor(one) for one in self.node["actors"]]
        return sorted(rows, key=lambda row: row.state == "DEAD")

    def _actor(self, one: Mapping[str, Any]) -> ActorState:
        namespace, name = one["name"] or (self.node["namespace"], "")
        waits = "DEPENDENCIES_UNREADY" if one["waits"] else "PENDING_CREATION"
        return ActorState(
            actor_id=one["id"].hex(),
            class_name=one["class_name"],
            state=waits if one["state"] == "pending" else one["state"].upper(),
            job_id=self.node["job"],
            node_id=self.node["node"],
            name=name,
            ray_namespace=namespace,
            pid=self.pid(one["worker"]) if one["state"] != "dead" else None,
            num_restarts=one["restarts"],
            is_detached=one["detached"],
            required_resources=one["resources"],
            placement_group_id=one["group"].hex() or None,
            death_cause=None if one["cause"] is None else error_text(one["cause"]),
        )

    def workers(self) -> list[WorkerState]:
        """The driver, every worker, and the last that have ended."""
        rows = [
            self._worker(process, self._workers.get(process, {"state": "driver", "actor": None, "resources": {}}))
            for process in self._pids
        ]
        return rows + [
            WorkerState(_worker_id(process) or "", "WORKER", pid, False, self.node["node"], "dead", exit_detail=how)
            for process, pid, how in self.node["dead"]
        ]

    def _worker(self, process: int, one: Mapping[str, Any]) -> WorkerState:
        part = self.processes.get(process, {})
        actor = self._actors.get(one["actor"])
        return WorkerState(
            worker_id=_worker_id(process) or "",
            worker_type="WORKER" if process in self._workers else "DRIVER",
            pid=self._pids[process],
            is_alive=True,
            node_id=self.node["node"],
            state=one["state"],
            actor_id=_hex(one["actor"]),
            class_name=actor["class_name"] if actor is not None else "",
            resources=one["resources"],
            running=tuple((row["name"], part["now"] - row["began"]) for row in part.get("running", ())),
            blocked=one.get("blocked", False),
            answers=process not in self.report["silent"],
        )

    def objects(self) -> list[ObjectState]:
        """Values, the largest first."""
        readers: dict[bytes, list[int]] = {}
        for process, part in self._parts("borrowed"):
            for object_id, _, read in part:
                if read:
                    readers.setdefault(object_id, []).append(process)
        rows = [
            self._object(process, row, readers.get(row["id"], ()))
            for process, part in self._parts("owned")
            for row in part
        ]
        return sorted(rows, key=lambda row: -row.object_size)

    def _object(self, owner: int, row: Mapping[str, Any], readers: Sequence[int]) -> ObjectState:
        holders = []
        if row["read"] or row["local"]:
            holders.append((owner, "reads it" if row["read"] else "has a reference"))
        holders += [(one, "reads it" if one in readers else "has a reference") for one in row["holders"]]
        if row["in_calls"]:
            holders.append((owner, "is the argument of a call under way"))
        if row["read"] or readers:
            kind = "PINNED_IN_MEMORY"
        elif row["in_calls"]:
            kind = "USED_BY_PENDING_TASK"
        else:
            kind = "LOCAL_REFERENCE" if row["local"] else "BORROWED"
        return ObjectState(
            object_id=row["id"].hex(),
            object_size=row["size"],
            where=row["where"],
            reference_type=kind,
            call_site=row["maker"],
            type="WORKER" if owner in self._workers else "DRIVER",
            pid=self.pid(owner) or 0,
            holders=tuple(
                Holder(self.pid(process) or 0, _worker_id(process) or "", f"{self.label(process)} {how}")
                for process, how in holders
            ),
        )

    def made(self) -> list[tuple[str, str, int, int]]:
        """Values in sum: what made them, where they are, how many, and their bytes."""
        return [tuple(row) for _, part in self._parts("totals") for row in part]

    def groups(self) -> list[GroupState]:
        """Every placement group."""
        return [
            GroupState(one.hex(), name[1] if name else "", state.upper(), strategy, tuple(bundles))
            for one, name, bundles, strategy, state in self.node["groups"]
        ]


def _hex(one: bytes | None) -> str | None:
    return one.hex() if one else None


def _worker_id(process: int | None) -> str | None:
    return None if process is None else f"{process:08x}"


_COMPARISONS: Mapping[str, Callable[[str, str], bool]] = {"=": str.__eq__, "!=": str.__ne__}


def select(rows: Sequence[Any], filters: Sequence[Filter], limit: int) -> list[Any]:
    """The first ``limit`` rows that pass all ``filters``: (field, "=" or "!=", value), case aside, as in Ray.

    Raises: ValueError for an unknown field or comparison, or a limit below one.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit!r}")
    for key, comparison, value in filters:
        if comparison not in _COMPARISONS:
            raise ValueError(f"a filter compares with '=' or '!=', got {comparison!r} in {(key, comparison, value)!r}")
        if rows and not hasattr(rows[0], key):
            raise ValueError(f"there is no field {key!r}; there are {', '.join(vars(rows[0]))}")
        compare = _COMPARISONS[comparison]
        rows = [row for row in rows if compare(str(getattr(row, key)).lower(), str(value).lower())]
    return list(rows[:limit])

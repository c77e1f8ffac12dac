"""The node process: sockets around the scheduler and the store's allocator. It never runs user code."""

from __future__ import annotations

import logging
import os
import resource
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from rlray.core.deadlocks import Deadlocks
from rlray.core.exceptions import ActorDiedError
from rlray.core.local import instructions as do
from rlray.core.local import scheduler as plan
from rlray.core.local import spill
from rlray.core.local.complaint import Kept
from rlray.core.local.endings import crash_report
from rlray.core.local.inspection import Inspections
from rlray.core.local.logs import LogWatch
from rlray.core.local.loop import Loop
from rlray.core.local.memory import Memory
from rlray.core.local.records import Actor, Group
from rlray.core.local.references import owner_of
from rlray.core.local.settings import DRIVER, FIRST_WORKER, NODE, VISITOR, ZYGOTE, RunSettings
from rlray.core.local.standing import Standing
from rlray.core.local.store import Arena
from rlray.core.local.wire import Connection, Message
from rlray.core.resources import UNIT, Request, Shape, amounts
from rlray.core.serialization import dumps_error

logger = logging.getLogger(__name__)

_TICK = 0.1  # seconds between looks at the log files
_TRIM_AFTER = 2.0  # seconds without an allocation after which free pages go back to the kernel
_MOST_TASKS = 10_000  # of each process that are looked at when somebody may wait for ever
_PRESTARTED = 8  # workers at most that are forked before anybody asks


class Node:
    """Turns messages into the scheduler's events, and its instructions into messages."""

    def __init__(self, settings: RunSettings, driver: socket.socket, zygote: socket.socket) -> None:
        self._settings = settings
        self._loop = Loop(settings.secret, self._handle, self._lost)
        self._scheduler = plan.Scheduler(
            settings.total, settings.gpus, FIRST_WORKER, max_idle=max(4, dict(settings.total).get("CPU", 0) // UNIT)
        )
        self._memory = Memory(
            settings.store_capacity,
            lambda: list(self._clients),
            self._send,
            self._describe,
            self._settled,
            Arena(settings.store_fd, settings.store_capacity).give_back,
        )
        self._last_alloc = time.monotonic()
        self._logs = LogWatch(settings.log_directory)
        self._pids: dict[int, int] = {}
        self._standing = Standing(settings, self._scheduler, self._memory, self._pids)
        self._inspections = Inspections(
            lambda: list(self._clients), self._send, self._loop.call_later, self._standing, self._ask_for_stack
        )
        self._deadlocks: tuple[dict[str, Any], Deadlocks] | None = None  # a report that several ask about
        self._recording: set[Connection] = set()  # visitors who want every call noted
        self._catching_up = False
        self._stop = False
        self._loop.listen(settings.socket_path(NODE))
        self._zygote = self._loop.adopt(zygote, ZYGOTE)
        self._clients: dict[int, Connection] = {DRIVER: self._loop.adopt(driver, DRIVER)}

    def run(self) -> None:
        """Serve until the driver says stop or is gone."""
        while not self._stop:
            self._loop.poll(_TICK)
            self._tick()
        self._loop.send(self._zygote, ("stop",))

    def _tick(self) -> None:
        self._deadlocks = None  # whoever asks later wants a new report
        if self._settings.log_to_driver:
            printed = self._logs.printed(time.monotonic())
            if printed:
                self._send(DRIVER, ("printed", printed, False))
        self._do(self._scheduler.reclaim())
        if time.monotonic() - self._last_alloc > _TRIM_AFTER:
            self._memory.trim()

    # -- messages ----------------------------------------------------------------------------------------------------

    def _handle(self, connection: Connection, message: Message) -> None:
        sender = connection.peer
        if sender == VISITOR:
            self._visited(connection, message)
            return
        if sender >= DRIVER and sender not in self._clients:
            self._clients[sender] = connection
            for dead in self._memory.joined(sender):
                self._send(sender, ("gone", dead, ""))
            self._do(self._scheduler.started(sender))
            if self._recording:
                self._send(sender, ("record", True))
        handler = getattr(self, f"_on_{message[0]}")
        handler(sender, *message[1:])

    def _on_hello(self, worker: int) -> None:
        """A worker's first message: that it came is what counts."""

    def _on_set_up(self, worker: int, failure: str | None) -> None:
        self._do(self._scheduler.set_up(worker, failure))

    def _on_demand(self, client: int, request: Request, count: int) -> None:
        self._await_news_of(client, request.group, self._scheduler.groups)
        self._do(self._scheduler.demand(client, request, count))

    def _on_return(self, client: int, worker: int) -> None:
        self._do(self._scheduler.returned(client, worker))

    def _on_blocked(self, worker: int, blocked: bool) -> None:
        self._do(self._scheduler.blocked(worker, blocked))

    def _on_retire(self, client: int, worker: int) -> None:
        self._do(self._scheduler.retired(client, worker))

    def _on_rested(self, worker: int) -> None:
        self._do(self._scheduler.rested(worker))

    def _on_kill_worker(self, client: int, worker: int) -> None:
        self._do([do.KillWorker(worker)])

    def _await_news_of(self, client: int, name: bytes, known: Mapping[bytes, object]) -> None:
        """What ``client`` names, another process has made: its message has arrived, but may not have been read yet."""
        if name and name not in known and owner_of(name) != client and not self._catching_up:
            self._catching_up = True  # not from within: messages of one process must stay in order
            self._loop.read_now(owner_of(name))
            self._catching_up = False

    def _on_actor_create(self, client: int, ticket: int, actor: Actor, get_if_exists: bool) -> None:
        existing = self._scheduler.names.get(actor.name) if actor.name is not None else None
        if existing is not None and get_if_exists:
            self._send(client, ("reply", ticket, (existing, self._scheduler.actors[existing].spec["info"])))
            return
        self._await_news_of(client, actor.request.group, self._scheduler.groups)
        try:
            todo = self._scheduler.create_actor(actor)
        except ValueError as taken:
            self._send(client, ("reply", ticket, str(taken)))
            return
        self._send(client, ("reply", ticket, None))
        self._do(todo)

    def _on_declined(self, worker: int) -> None:
        self._do(self._scheduler.declined(worker))

    def _on_actor_arguments(self, client: int, actor: bytes, error: bytes | None) -> None:
        self._do(self._scheduler.actor_arguments(actor, error))

    def _on_actor_ready(self, worker: int, actor: bytes) -> None:
        self._do(self._scheduler.actor_ready(actor))

    def _on_actor_failed(self, worker: int, actor: bytes, cause: bytes) -> None:
        self._do(self._scheduler.actor_failed(actor, cause))

    def _on_actor_kill(self, client: int, actor: bytes, no_restart: bool, reason: str) -> None:
        self._do(self._scheduler.kill_actor(actor, dumps_error(ActorDiedError(reason)), no_restart))

    def _on_actor_watch(self, client: int, actor: bytes) -> None:
        self._await_news_of(client, actor, self._scheduler.actors)
        self._do(self._scheduler.watch_actor(client, actor))

    def _on_actor_unwatch(self, client: int, actor: bytes) -> None:
        self._scheduler.unwatch_actor(client, actor)

    def _on_actor_find(self, client: int, ticket: int, namespace: str, name: str) -> None:
        actor = self._scheduler.names.get((namespace, name))
        found = None if actor is None else (actor, self._scheduler.actors[actor].spec["info"])
        self._send(client, ("reply", ticket, found))

    def _on_actor_names(self, client: int, ticket: int) -> None:
        self._send(client, ("reply", ticket, list(self._scheduler.names)))

    def _on_group_create(
        self,
        client: int,
        ticket: int,
        group: bytes,
        bundles: tuple[Shape, ...],
        strategy: str,
        name: tuple[str, str] | None,
        detached: bool,
    ) -> None:
        try:
            todo = self._scheduler.create_group(Group(group, bundles, strategy, name), client, detached)
        except ValueError as taken:
            self._send(client, ("reply", ticket, str(taken)))
            return
        if ticket:
            self._send(client, ("reply", ticket, None))
        self._do(todo)

    def _on_group_remove(self, client: int, group: bytes) -> None:
        self._await_news_of(client, group, self._scheduler.groups)
        cause = dumps_error(ActorDiedError("the actor is dead: its placement group was removed"))
        self._do(self._scheduler.remove_group(client, group, cause))

    def _on_group_watch(self, client: int, group: bytes) -> None:
        self._await_news_of(client, group, self._scheduler.groups)
        self._do(self._scheduler.watch_group(client, group))

    def _on_group_find(self, client: int, ticket: int, namespace: str, name: str) -> None:
        self._send(client, ("reply", ticket, self._scheduler.group_names.get((namespace, name))))

    def _on_group_table(self, client: int, ticket: int, group: bytes | None) -> None:
        """Every group, or one: (id, name, bundles, strategy, state)."""
        groups = self._scheduler.groups
        if group is not None:
            self._await_news_of(client, group, groups)
            groups = {group: groups[group]} if group in groups else {}
        rows = [
            (one.id, "" if one.name is None else one.name[1], one.bundles, one.strategy, one.state)
            for one in groups.values()
        ]
        self._send(client, ("reply", ticket, rows))

    def _on_resources(self, client: int, ticket: int) -> None:
        free = amounts(tuple(sorted(self._scheduler.available().items())))
        free["object_store_memory"] = float(self._memory.extents.capacity - self._memory.extents.used)
        self._send(client, ("reply", ticket, free))

    # -- looking in --------------------------------------------------------------------------------------------------

    def _on_inspect(self, client: int, ticket: int, kind: str, options: Mapping[str, Any]) -> None:
        self._inspections.ask(kind, options, lambda answer: self._send(client, ("reply", ticket, answer)))

    def _on_deadlock(self, client: int, ticket: int, task: bytes) -> None:
        """Does a call wait for itself, by way of others? The answer is the circle in words, or None."""

        def answer(report: dict[str, Any]) -> None:
            if self._deadlocks is None or self._deadlocks[0] is not report:
                self._deadlocks = report, Deadlocks(report)
            self._send(client, ("reply", ticket, self._deadlocks[1].of(task)))

        self._inspections.ask("tasks", {"limit": _MOST_TASKS}, answer, shared=True)

    def _on_reporting(self, client: int, ticket: int) -> None:
        self._inspections.at_work(client, ticket)

    def _on_reported(self, client: int, ticket: int, report: Any) -> None:
        self._inspections.reported(client, ticket, report)

    def _visited(self, visitor: Connection, message: Message) -> None:
        """The command line looks in; it has shown the secret."""
        match message:
            case ("inspect", kind, options):
                self._inspections.ask(kind, options, lambda answer: self._loop.send(visitor, ("reply", answer)))
            case ("record", seconds):
                self._recording.add(visitor)
                self._tell_recording()
                self._loop.call_later(seconds, lambda: self._recorded(visitor))

    def _recorded(self, visitor: Connection) -> None:
        """A visitor has had what it wanted, or is gone."""
        if visitor in self._recording:
            self._recording.discard(visitor)
            self._tell_recording()
            self._loop.send(visitor, ("reply", None))

    def _tell_recording(self) -> None:
        for client in list(self._clients):
            self._send(client, ("record", bool(self._recording)))

    def _ask_for_stack(self, process: int) -> str | None:
        """A process does not answer: let it write what its threads do; returns the file that it writes to."""
        path = self._settings.stack_path(process)
        try:
            os.truncate(path, 0)  # it is there: the process will not die of the signal
        except OSError:
            return None
        self._loop.send(self._zygote, ("stack", process))
        return path

    # -- memory ------------------------------------------------------------------------------------------------------

    def _on_alloc(self, client: int, ticket: int, size: int) -> None:
        self._last_alloc = time.monotonic()
        self._send(client, ("reply", ticket, self._memory.alloc(client, size)))

    def _on_free(self, client: int, extents: Iterable[int]) -> None:
        self._memory.free(client, extents)

    def _on_why_full(self, client: int, ticket: int, size: int, kept: Kept) -> None:
        self._send(client, ("reply", ticket, self._memory.why_full(client, size, kept)))

    def _on_spilled(self, client: int, moved: int, kept: Kept) -> None:
        self._memory.spilled(client, moved, kept)

    def _on_settled(self, client: int, dead: int, in_use: list[int], lent: list[int]) -> None:
        self._memory.settled(client, dead, in_use, lent)

    def _on_stop(self, client: int) -> None:
        if client == DRIVER:
            self._stop = True

    # -- processes ---------------------------------------------------------------------------------------------------

    def _on_ready(self, zygote: int) -> None:
        """Workers can be forked in no time from here on."""
        self._send(DRIVER, ("welcome",))
        cpus = dict(self._settings.total).get("CPU", 0) // UNIT
        self._do(self._scheduler.prestart(min(cpus, _PRESTARTED)))

    def _on_forked(self, zygote: int, worker: int, pid: int) -> None:
        self._pids[worker] = pid
        self._logs.add(worker, pid)

    def _on_exited(self, zygote: int, worker: int, pid: int, how: str) -> None:
        self._loop.drain(worker)  # what it had written before it died still counts
        self._clients.pop(worker, None)
        self._pids.pop(worker, None)
        crash = crash_report(self._settings.stack_path(worker))
        for path in (self._settings.socket_path(worker), self._settings.stack_path(worker)):
            with suppress(FileNotFoundError):
                os.unlink(path)
        if self._settings.log_to_driver:
            self._send(DRIVER, ("printed", [(worker, pid)], True))
        last = self._logs.remove(worker)
        reason = f"worker process {pid} {how}"
        if crash:
            reason += " in\n" + "\n".join(f"    {line.strip()}" for line in crash) + "\n"
        if last:
            reason += "; its last output:\n" + "\n".join(f"    {line}" for line in last)
        actor = self._scheduler.actor_of(worker)
        if actor is not None:
            reason = f"actor {actor.spec['class_name']} is dead: its {reason}"
        cause = dumps_error(ActorDiedError(reason))
        self._do(self._scheduler.died(worker, cause, reason))
        self._do(self._scheduler.client_gone(worker, cause))
        self._standing.died(worker, pid, reason)
        for client in list(self._clients):
            self._send(client, ("gone", worker, reason))
        self._inspections.gone(worker)
        self._memory.died(worker)

    def _settled(self, dead: int) -> None:
        """Every process has acted on a death."""
        spill.forget_all(self._settings.spill_directory, dead)
        for client in list(self._clients):
            self._send(client, ("settled", dead))

    def _lost(self, connection: Connection) -> None:
        if connection.peer in (DRIVER, ZYGOTE):
            self._stop = True
        elif connection.peer == VISITOR:
            self._recorded(connection)
        elif self._clients.get(connection.peer) is connection:
            self._do([do.KillWorker(connection.peer)])  # a worker without us is of no use; its exit is told later

    def _describe(self, process: int) -> str:
        """What the process is, for people."""
        if process == DRIVER:
            return f"the driver (pid {self._settings.driver_pid})"
        actor = self._scheduler.actor_of(process)
        what = "a worker" if actor is None else f"actor {actor.class_name}"
        return f"{what} (pid {self._pids.get(process, 'gone')})"

    # -- instructions ------------------------------------------------------------------------------------------------

    def _do(self, instructions: Iterable[do.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case do.StartWorker(worker, threads, gpus):
                    self._loop.send(self._zygote, ("fork", worker, threads, gpus))
                case do.SetUp(worker, environment):
                    self._send(worker, ("set_up", environment))
                case do.KillWorker(worker):
                    self._loop.send(self._zygote, ("kill", worker))
                case do.Dismiss(worker):
                    self._send(worker, ("end",))
                case do.Orphan(worker, client):
                    self._send(worker, ("orphaned", client))
                case do.Grant(client, request, worker):
                    self._send(client, ("grant", request, worker))
                case do.Refuse(client, request, error):
                    self._send(client, ("refuse", request, dumps_error(error)))
                case do.Reclaim(client):
                    self._send(client, ("reclaim",))
                case do.Become(worker, actor_id):
                    actor = self._scheduler.actors[actor_id]
                    self._send(worker, ("become", actor_id, actor.spec, actor.request, actor.restarts))
                case do.ActorChanged(client, actor_id, state, home, cause):
                    self._send(client, ("actor", actor_id, state, home, cause))
                case do.GroupChanged(client, group, standing):
                    self._send(client, ("group", group, standing))

    def _send(self, client: int, message: Message) -> None:
        connection = self._clients.get(client)
        if connection is not None:
            self._loop.send(connection, message)


def main(settings: RunSettings, driver: socket.socket, zygote: socket.socket) -> None:
    """Entry point in the forked process."""
    os.umask(0o077)  # the files that this process makes are for this user
    with suppress(OSError, ValueError):  # it needs a few descriptors for each worker
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.basicConfig(filename=f"{settings.log_directory}/node.log", format="%(asctime)s %(levelname)s %(message)s")
    with suppress(KeyboardInterrupt):
        Node(settings, driver, zygote).run()

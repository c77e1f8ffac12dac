"""Actors of the inline engine: calls that keep their order, run by their callers, on threads, or as coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref as weak

from rlray.core.calls import as_call_error, check_generator, method_of
from rlray.core.engine import ActorInfo
from rlray.core.exceptions import ActorDiedError, ActorUnavailableError, task_error
from rlray.core.inline.jobs import Job, running, where
from rlray.core.inline.ledger import Grant, lending
from rlray.core.inline.values import Entry, InlineRef, Payload, Values
from rlray.core.serialization import dumps_error

if TYPE_CHECKING:
    from rlray.core.inline.engine import Inline

_ASYNC_CONCURRENCY = 1_000
_STOP_TIMEOUT = 5.0  # seconds for the coroutines of an actor to end


class LifeRef(InlineRef):
    """A reference that stands for the life of an actor: when the last one goes, the actor ends."""

    __slots__ = ("actor",)

    def __init__(self, owner: Values, actor: Actor) -> None:
        super().__init__(actor.id, owner, Entry())
        self.actor = actor

    def __del__(self) -> None:
        if self._owner.closed is None:
            self._owner.put_off(self.actor.dropped)


class Actor(ABC):
    """An actor and the calls made to it. How calls run is the subclass's affair."""

    def __init__(
        self, engine: Inline, cls: type, construct: Job, info: ActorInfo, options: Mapping[str, Any], limit: int
    ) -> None:
        self.id = info.id
        self.class_name = info.class_name
        self.info = info
        self.name: str | None = options["name"]
        self.namespace: str = options["namespace"]
        self.worker_id = f"{int.from_bytes(info.id, 'big'):08x}"
        self.state: Literal["pending", "alive", "dead"] = "pending"
        self.cause: Payload = ()  # what calls get once it is dead
        self.restarts = 0
        self.construct = construct  # what its constructor is given
        construct.actor = self
        self.grant: Grant | None = None
        self._engine, self._values, self._runner = engine, engine.values, engine.runner
        self._class = cls
        self._instance: Any = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self.detached = options["lifetime"] == "detached"
        self._restarts_left = options["max_restarts"]
        self._ref: weak[LifeRef] | None = None
        self._lives = 0  # such references; one that is on its way out still counts
        self._sizes: dict[str | None, int] = {None: limit, **(options["concurrency_groups"] or {})}
        self._arriving: dict[bytes | None, deque[Job]] = {}  # by caller: calls whose arguments are not all there
        self._waiting: dict[str | None, deque[Job]] = {group: deque() for group in self._sizes}
        self._active: dict[bytes, Job] = {}
        self._leaving: list[Job] = []  # calls that have ended it, and get their answer when it has
        self._departure: bytes | None = None  # why it is leaving
        self._thread: threading.Thread | None = None  # of its event loop

    # -- its life ----------------------------------------------------------------------------------------------------

    def life(self) -> LifeRef:
        """The one reference that stands for its life, made anew if the last one has gone."""
        with self._values.lock:
            ref = self._ref() if self._ref is not None else None
            if ref is None:
                ref = LifeRef(self._values, self)
                self._ref = weak(ref)
                self._lives += 1
                self._values.enter(ref)
        return ref

    def dropped(self) -> None:
        """A reference that stood for its life is gone."""
        with self._values.lock:
            self._lives -= 1
            over = not self._lives and not self.detached
        if over:
            self.end(dumps_error(ActorDiedError("all handles of the actor were dropped")))

    def method(self, name: str) -> Callable[..., Any]:
        """What a call of that name calls."""
        if name not in self._methods:
            self._methods[name] = method_of(self._instance, name)
        return self._methods[name]

    def begin(self, apart: bool) -> None:
        """The arguments of the constructor are there; ``apart``: this thread must not run it."""
        self._engine.go(self._construct, apart)

    def _construct(self) -> None:
        """Make the instance in this thread."""
        if self._make():
            self._drain()

    def _make(self) -> bool:
        job = self.construct
        for ref in job.dependencies:
            payload = self._values.entry(ref).payload
            assert payload is not None
            if payload[0] == "error":
                self.end(payload[1])
                return False
        job.thread = threading.get_ident()
        with lending(self._runner.grant_here()):
            return contextvars.Context().run(self._make_here)

    def _make_here(self) -> bool:
        running.set(self.construct)
        began = time.perf_counter()
        try:
            args, kwargs = self._runner.arguments(self.construct)
            instance = self._class(*args, **kwargs)
        except BaseException as error:  # also SystemExit: the caller is told
            self._engine.constructed(self, began, failed=True)
            self.end(dumps_error(task_error(f"{self.class_name}.__init__", error, where(self))))
            return False
        self._engine.constructed(self, began, failed=False)
        with self._values.lock:
            if self.state == "dead":
                return False
            self._instance, self.state = instance, "alive"
        return True

    def leave(self, job: Job) -> None:
        """The actor ends of its own accord: no call begins any more, and those under way end. ``job`` fails with it."""
        terminated = job.spec.method == "__ray_terminate__"
        how = "was ended by __ray_terminate__" if terminated else "has ended by exit_actor()"
        with self._values.lock:
            self._departure = self._departure or dumps_error(ActorDiedError(f"actor {self.class_name} {how}"))
            if self._active.pop(job.id, None) is not None:
                self._leaving.append(job)
        self._depart()

    def _depart(self) -> None:
        """If it is leaving, and no call is under way any more, this is its end."""
        if self._departure is not None and not self._active:
            self.end(self._departure)

    def kill(self, no_restart: bool) -> None:
        """Somebody wants it to end, or to begin anew."""
        if no_restart or self._restarts_left == 0 or self.state != "alive":
            self.end(dumps_error(ActorDiedError("the actor was killed by kill()")))
            return
        with self._values.lock:
            self._restarts_left -= self._restarts_left > 0
            self.restarts += 1
            self.state, instance, self._instance = "pending", self._instance, None
            self._methods = {}
            interrupted, self._active = list(self._active.values()), {}
        self._interrupt(interrupted)
        self.stop()
        del instance
        self.begin(apart=False)

    def _interrupt(self, jobs: list[Job]) -> None:
        """Calls under way when it was restarted are made again if they may be, or fail."""
        for job in reversed(jobs):
            if job.retries == 0:
                text = f"{job.spec.name} failed: the actor was killed by kill(); it is being restarted"
                self._runner.finish(job, ("error", dumps_error(ActorUnavailableError(text))))
            else:
                with self._values.lock:
                    job.done = True  # what the old life still makes of it does not count
                    again = self._runner.pending[job.id] = job.again()
                    self._waiting[job.spec.concurrency_group].appendleft(again)

    def end(self, cause: bytes) -> None:
        """It is dead, for good: every call that is not over fails. Ending it twice is harmless."""
        with self._values.lock:
            if self.state == "dead":
                return
            self.state, self.cause = "dead", ("error", as_call_error(cause))
            jobs = [job for lane in (*self._arriving.values(), *self._waiting.values()) for job in lane]
            jobs = [*self._active.values(), *self._leaving, *jobs]
            instance, self._instance = self._instance, None
            self._methods, self._active, self._arriving, self._leaving = {}, {}, {}, []
            for lane in self._waiting.values():
                lane.clear()
        self._engine.gone(self)
        for job in jobs:
            self._runner.finish(job, self.cause)
        self.construct.dependencies, self.construct.refs, self.construct.arguments = (), (), ()
        self.stop()
        del instance

    # -- its calls ---------------------------------------------------------------------------------------------------

    def enter(self, job: Job) -> None:
        """A call, made now; it keeps its place even while its arguments are not there yet."""
        with self._values.lock:
            if self.state != "dead":
                self._arriving.setdefault(job.caller, deque()).append(job)
                return
        self._runner.finish(job, self.cause)

    def arrived(self, job: Job, apart: bool) -> None:
        """The arguments of a call are there; ``apart``: this thread must not run calls."""
        with self._values.lock:
            job.ready = True
            self._move(job.caller)
        self.pump(apart)

    def _move(self, caller: bytes | None) -> None:
        """Those calls of a caller that wait for nothing before them queue up. Call under the lock."""
        lane = self._arriving.get(caller)
        while lane and (lane[0].ready or lane[0].done):
            job = lane.popleft()
            self._waiting[job.spec.concurrency_group].append(job)
        if not lane:
            self._arriving.pop(caller, None)

    def ended(self, job: Job) -> None:
        """A call is over."""
        with self._values.lock:
            self._active.pop(job.id, None)
            self._move(job.caller)  # it may have been cancelled before its arguments were there
        self._depart()

    def _next(self) -> Job | None:
        """The next call that may run; from here on it counts as running."""
        with self._values.lock:
            if self.state != "alive" or self._departure is not None:
                return None
            for group, lane in self._waiting.items():
                while lane and lane[0].done:
                    lane.popleft()
                if lane and self._running_in(group) < self._sizes[group]:
                    job = lane.popleft()
                    self._active[job.id] = job
                    return job
        return None

    def _running_in(self, group: str | None) -> int:
        if len(self._sizes) == 1:
            return len(self._active)
        return sum(job.spec.concurrency_group == group for job in self._active.values())

    def pump(self, apart: bool = False) -> None:
        """Start what may start."""
        while (job := self._next()) is not None:
            self.start(job)

    def _drain(self) -> None:
        self.pump()

    def stuck(self) -> bool:
        """Whether calls that wait can only run once the calling thread has left the one that it is in."""
        return False

    @abstractmethod
    def start(self, job: Job) -> None:
        """Run a call, or see to it that it runs."""

    def cancel(self, job: Job) -> bool:
        """Stop a call that runs; False if that cannot be."""
        return False

    @abstractmethod
    def stop(self) -> None:
        """What still runs is not wanted any more."""

    def join(self) -> None:
        """Wait a little for its event loop to end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_TIMEOUT)


class Serial(Actor):
    """One call at a time, run by the thread that makes it, or by the one that is in the actor at that moment."""

    def start(self, job: Job) -> None:
        self._runner.run(job)

    def stop(self) -> None:
        """A call that runs goes on; what it returns is not wanted any more."""

    def pump(self, apart: bool = False) -> None:
        self._engine.go(self._drain, apart)

    def _drain(self) -> None:
        while True:
            while (job := self._next()) is not None:
                self.start(job)
            stream = self._open_generator()
            if stream is None or not stream.run_out():
                return

    def _open_generator(self) -> Any:
        """A generator that waits for its reader while other calls wait for it."""
        with self._values.lock:
            if any(not job.done for job in self._waiting[None]):
                return next((job.stream for job in self._active.values() if job.lazy), None)
        return None

    def stuck(self) -> bool:
        me = threading.get_ident()
        with self._values.lock:
            return any(job.thread == me for job in self._active.values())


class Threaded(Actor):
    """Several calls at a time, each on a thread of its own."""

    def start(self, job: Job) -> None:
        def run() -> None:
            self._runner.run(job)
            self.pump()

        self._engine.go(run, apart=True)

    def stop(self) -> None:
        """Calls that run go on; what they return is not wanted any more."""


class Asynchronous(Actor):
    """Coroutines on an event loop, which runs in a thread of the actor's own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def begin(self, apart: bool) -> None:
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, args=(loop,), name=f"rlray-{self.class_name}", daemon=True)
        self._thread.start()

    def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._engine.on_loop.here = True
        if self._make():
            with self._values.lock:
                alive = self.state == "alive"
                self._loop = loop if alive else None
            if alive:
                self.pump()
                loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def start(self, job: Job) -> None:
        loop = self._loop
        if loop is not None:

            def begin() -> None:
                self._tasks[job.id] = task = loop.create_task(self._run(job))
                task.add_done_callback(partial(self._left, job))

            with contextlib.suppress(RuntimeError):  # closed meanwhile: the call has failed
                loop.call_soon_threadsafe(begin, context=contextvars.Context())

    def pump(self, apart: bool = False) -> None:
        if self._loop is not None:
            super().pump()

    async def _run(self, job: Job) -> None:
        running.set(job)
        again = self._runner.begin(job)
        while again:
            again = False
            try:
                function, args, kwargs = self._runner.prepare(job)
                result = function(*args, **kwargs)
                if job.stream is not None:
                    await self._stream(job, result)
                    self._runner.finish(job)
                else:
                    self._runner.succeed(job, await result if inspect.isawaitable(result) else result)
            except asyncio.CancelledError:
                self._runner.cancelled(job)
            except BaseException as error:  # also SystemExit: the actor lives on
                again = self._runner.failed(job, error)

    def _left(self, job: Job, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before it had begun
            self._runner.cancelled(job)
        if self._tasks.get(job.id) is task:  # not that of the actor's next life
            del self._tasks[job.id]
        self.pump()

    async def _stream(self, job: Job, values: Any) -> None:
        stream = job.stream
        assert stream is not None
        if isinstance(values, Iterator):
            values = _as_async(values)
        check_generator(job.spec.name, values, AsyncIterator)
        index = 0
        async for value in values:
            stream.take(index, *self._runner.place(job, value))
            await asyncio.sleep(0)  # others get their turn, also if the generator itself awaits nothing
            while stream.ahead():
                await asyncio.sleep(0.001)
            index += 1

    def cancel(self, job: Job) -> bool:
        def cancel() -> None:
            if (task := self._tasks.get(job.id)) is not None:
                task.cancel()

        loop = self._loop
        if loop is not None and job.id in self._active:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(cancel)
            return True
        return False

    def stop(self) -> None:
        with self._values.lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)


def kind_of(cls: type, options: Mapping[str, Any]) -> tuple[type[Actor], int]:
    """How calls of the class run, and how many at a time if they are in no group."""
    limit = options["max_concurrency"]
    members = [member for _, member in inspect.getmembers(cls)]
    if any(inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member) for member in members):
        return Asynchronous, limit or _ASYNC_CONCURRENCY
    if options["concurrency_groups"] or (limit or 1) > 1:
        return Threaded, limit or 1
    return Serial, 1


async def _as_async(values: Iterator[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value

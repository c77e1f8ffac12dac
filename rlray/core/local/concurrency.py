"""How the calls of one actor run at the same time: on threads, or as coroutines of one event loop, in groups or not."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from rlray.core.engine import CHUNK, STREAMING
from rlray.core.exceptions import ActorExit
from rlray.core.local.jobs import Answer, Job, Odd, chunk_size
from rlray.core.local.loop import Loop
from rlray.core.stacks import awaited_part

if TYPE_CHECKING:
    from rlray.core.local.executor import Executor

_ASYNC_CONCURRENCY = 1_000


def concurrency_of(cls: type, limit: int | None, groups: Mapping[str, int], executor: Executor) -> Concurrency | None:
    """How calls of the class run: as coroutines if it has any, on threads if more than one may run, else None: on the
    main thread."""
    members = [member for _, member in inspect.getmembers(cls)]
    if any(inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member) for member in members):
        return Coroutines(executor, limit or _ASYNC_CONCURRENCY, groups)
    if groups or (limit is not None and limit > 1):
        return Threads(executor, limit or 1, groups)
    return None


def _sizes(limit: int, groups: Mapping[str, int]) -> dict[str | None, int]:
    """How many calls may run at once, by group; None: those in no group."""
    sizes: dict[str | None, int] = {None: limit}
    sizes.update(groups)
    return sizes


class Concurrency(ABC):
    """Runs calls of an actor; they start in the order in which they came, within their group."""

    kind: Literal["threads", "coroutines"]

    @abstractmethod
    def start(self, jobs: Sequence[Job]) -> None:
        """Calls have arrived. Called by whoever polls, under the loop's lock."""

    @abstractmethod
    def cancel(self, task_id: bytes) -> None:
        """Cancel a call. Called as `start` is."""

    def consumed(self, task_id: bytes) -> None:  # noqa: B027
        """The reader of a generator has taken more. Called as `start` is."""

    @abstractmethod
    def close(self) -> None:
        """Begin no more calls; when those under way have ended, `Executor.depart`. Called by one of them."""

    def stacks(self) -> list[tuple[bytes, str]]:
        """What calls do that are not on threads: task and stack of each."""
        return []

    @abstractmethod
    def run(self, loop: Loop) -> None:
        """Called by the main thread once the actor is there; may keep it for ever."""


class Threads(Concurrency):
    """A number of threads per group."""

    kind = "threads"

    def __init__(self, executor: Executor, limit: int, groups: Mapping[str, int]) -> None:
        self._executor = executor
        self._queues: dict[str | None, SimpleQueue[Job]] = {}
        self._cancelled: set[bytes] = set()
        self._waiting: set[bytes] = set()
        self._lock = threading.Lock()
        self._under_way = 0
        self._closed = False
        for group, size in _sizes(limit, groups).items():
            queue = self._queues[group] = SimpleQueue[Job]()
            for i in range(size):
                name = f"rlray-call-{group or 'default'}-{i}"
                threading.Thread(target=self._serve, args=(queue,), name=name, daemon=True).start()

    def run(self, loop: Loop) -> None:
        """The main thread goes on to wait for messages."""

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._waiting.add(job.id)
            self._queues[job.spec.concurrency_group].put(job)

    def cancel(self, task_id: bytes) -> None:
        if task_id in self._waiting:
            self._cancelled.add(task_id)

    def _serve(self, queue: SimpleQueue[Job]) -> None:
        while self._serve_one(queue):
            pass  # between two calls nothing of the last one is kept alive

    def _serve_one(self, queue: SimpleQueue[Job]) -> bool:
        """Wait for a call and run it; False if none begins any more."""
        from rlray.core.local.executor import running

        executor = self._executor
        job = queue.get()
        with self._lock:
            if self._closed:
                return False
            self._under_way += 1
        self._waiting.discard(job.id)
        if job.id in self._cancelled:
            self._cancelled.discard(job.id)
            answer = executor.cancelled(job)
        else:
            running.set(job)
            job.thread = threading.get_ident()
            executor.beside[job.id] = job
            answer = executor.perform(job)
            del executor.beside[job.id]
            running.set(None)
        executor.answers.add(job.caller, answer)
        if queue.empty():
            executor.flush()
        else:
            executor.flush_soon()  # the next call may take long
        with self._lock:
            self._under_way -= 1
            last = self._closed and not self._under_way
        if last:
            executor.depart()
        return True

    def close(self) -> None:
        with self._lock:
            self._closed = True


class Coroutines(Concurrency):
    """Coroutines on one event loop, which polls the sockets as well: nothing is handed from thread to thread."""

    kind = "coroutines"

    def __init__(self, executor: Executor, limit: int, groups: Mapping[str, int]) -> None:
        self._executor = executor
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._main = threading.get_ident()
        self._room = _sizes(limit, groups)
        self._waiting: dict[str | None, OrderedDict[bytes, Job]] = {group: OrderedDict() for group in self._room}
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._readers: dict[bytes, asyncio.Event] = {}  # set when the reader of a generator has taken more
        self._flushing = False
        self._closed = False

    def run(self, loop: Loop) -> None:
        loop.serve_with(self._loop)
        self._loop.run_forever()

    def start(self, jobs: Sequence[Job]) -> None:
        if threading.get_ident() == self._main:
            self._start(jobs)
        else:
            self._loop.call_soon_threadsafe(self._start, jobs)

    def cancel(self, task_id: bytes) -> None:
        self._loop.call_soon_threadsafe(self._cancel, task_id)

    def consumed(self, task_id: bytes) -> None:
        if task_id in self._readers:
            self._loop.call_soon_threadsafe(self._readers[task_id].set)

    def _start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            group = job.spec.concurrency_group
            if self._room[group] and not self._closed:
                self._begin(job)
            else:
                self._waiting[group][job.id] = job

    def _begin(self, job: Job) -> None:
        self._room[job.spec.concurrency_group] -= 1
        self._tasks[job.id] = self._loop.create_task(self._run(job))

    def _cancel(self, task_id: bytes) -> None:
        task = self._tasks.get(task_id)
        if task is not None:
            # Cancelled before it begins, it would end without a word.
            if inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
                self._loop.call_soon(self._cancel, task_id)  # once it has begun: before, it would end without a word
            else:
                task.cancel()
            return
        for waiting in self._waiting.values():
            if (job := waiting.pop(task_id, None)) is not None:
                self._answer(job, self._executor.cancelled(job))

    def close(self) -> None:
        self._closed = True

    def stacks(self) -> list[tuple[bytes, str]]:
        return [(task_id, awaited_part(task.get_coro())) for task_id, task in list(self._tasks.items())]

    async def _run(self, job: Job) -> None:
        from rlray.core.local.executor import running

        executor = self._executor
        running.set(job)  # of this asyncio task only
        executor.beside[job.id] = job
        job.began = time.perf_counter()
        try:
            if job.spec.num_returns == CHUNK:
                answer: Answer = await self._run_chunk(job)
            else:
                function, args, kwargs = executor.prepare(job)
                result = function(*args, **kwargs)
                if job.spec.num_returns == STREAMING:
                    await self._stream(job, result)
                    answer = (job.id, [], None, False)
                else:
                    answer = executor.returns.answer(job, await result if inspect.isawaitable(result) else result)
                executor.took(job)
        except asyncio.CancelledError:
            answer = executor.cancelled(job)
        except BaseException as error:  # also SystemExit: the actor lives on
            answer = executor.raised(job, error)
        self._answer(job, answer)
        self._readers.pop(job.id, None)
        del self._tasks[job.id], executor.beside[job.id]
        group = job.spec.concurrency_group
        self._room[group] += 1
        if self._closed:
            if not self._tasks:
                self._executor.depart()
        elif self._waiting[group]:
            self._begin(self._waiting[group].popitem(last=False)[1])

    async def _run_chunk(self, job: Job) -> Answer:
        executor = self._executor
        function = executor.function(job.spec.target)

        items, count = executor.chunk_items(job), chunk_size(job)
        values: list[Any] = [None] * count
        odd: Odd = {}

        async def call(index: int) -> None:
            try:
                result = function(next(items))
                values[index] = await result if inspect.isawaitable(result) else result
            except ActorExit:
                raise
            except BaseException as error:  # also SystemExit, which would end the loop
                odd[index] = executor.item_failed(job, error)

        for outcome in await asyncio.gather(*map(call, range(count)), return_exceptions=True):
            if outcome is not None:
                raise outcome
        return executor.returns.chunk(job, values, odd, executor.took(job, count), executor.item_failed)

    async def _stream(self, job: Job, values: Any) -> None:
        executor = self._executor
        if isinstance(values, Iterator):
            values = _as_async(values)
        reader = self._readers[job.id] = asyncio.Event()
        with executor.yielding.stream(job, values, AsyncIterator):
            index = 0
            async for value in values:
                executor.yielding.send(job, index, value)
                await asyncio.sleep(0)  # others get their turn, also if the generator itself awaits nothing
                reader.clear()
                while executor.yielding.is_ahead(job, index):
                    await reader.wait()
                    reader.clear()
                if executor.yielding.is_unread(job):
                    break
                index += 1

    def _answer(self, job: Job, answer: Answer) -> None:
        self._executor.answers.add(job.caller, answer)
        if not self._flushing:  # those of the same round leave together
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._executor.flush()


async def _as_async(values: Iterator[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value

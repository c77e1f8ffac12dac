"""A first-in, first-out queue that lives in an actor: any task or actor that holds it can put and get."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import rlray
from rlray.exceptions import ActorDiedError

_CALLS = 100_000  # blocked calls at once; beyond that a put could wait behind the gets that wait for it


class Empty(queue.Empty):
    """There was no item, or there were fewer than asked for."""


class Full(queue.Full):
    """There was no room, or less than the items needed."""


class _QueueActor:
    """The queue itself. Calls that wait do so in its event loop."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)
        self._waiting = 0

    def qsize(self) -> int:
        return self._items.qsize()

    async def put(self, item: Any, timeout: float | None) -> bool:
        """Whether there was room in time."""
        with suppress(asyncio.QueueFull):
            self._items.put_nowait(item)
            return True
        if timeout == 0:
            return False
        with self._counted(), suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._items.put(item), timeout)
            return True
        return False

    async def get(self, timeout: float | None) -> tuple[Any, ...]:
        """The item in a tuple, or an empty one if there was none in time."""
        with suppress(asyncio.QueueEmpty):
            return (self._items.get_nowait(),)
        if timeout == 0:
            return ()
        with self._counted(), suppress(asyncio.TimeoutError):
            return (await asyncio.wait_for(self._items.get(), timeout),)
        return ()

    async def put_nowait_batch(self, items: list[Any]) -> bool:
        """All of the items or none; whether there was room."""
        if 0 < self._items.maxsize < len(items) + self._items.qsize():
            return False
        for item in items:
            self._items.put_nowait(item)
        return True

    async def get_nowait_batch(self, count: int) -> list[Any]:
        """As many items, or none if there are fewer."""
        if self._items.qsize() < count:
            return []
        return [self._items.get_nowait() for _ in range(count)]

    def waiting(self) -> int:
        """How many puts and gets wait."""
        return self._waiting

    async def settled(self) -> None:
        """Return once no put or get waits."""
        while self._waiting:
            await asyncio.sleep(0.01)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


class Queue:
    """A queue for tasks and actors. It can be an argument, a result, or part of one; all copies are the same queue.

    Guarantees: first in, first out. The queue lives as long as any copy of it. An item is held by the queue once
    ``put`` has returned: its producer may end. A reference that is put by itself arrives as its value, inside a list it
    stays a reference.

    Args:
        maxsize: How many items it holds; 0 or less for any number.
        actor_options: Options of its actor, for example ``{"name": "jobs", "lifetime": "detached"}``.

    All methods raise ActorDiedError once the queue was shut down.
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        options = {"max_concurrency": _CALLS, **(actor_options or {})}
        self.actor: Any = rlray.remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def qsize(self) -> int:
        """How many items it holds; another moment may have another answer."""
        size: int = rlray.get(self._actor.qsize.remote())
        return size

    def size(self) -> int:
        """How many items it holds."""
        return self.qsize()

    def empty(self) -> bool:
        """Whether it holds nothing."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether it holds ``maxsize`` items."""
        return 0 < self.maxsize <= self.qsize()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, waiting for room if ``block``, ``timeout`` seconds at most.

        Raises: Full if there is no room (in time); ValueError for a negative timeout.
        """
        with _withdrawn(self._actor.put.remote(item, _patience(block, timeout))) as ref:
            _put(rlray.get(ref), 1)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item, waiting for one if ``block``, ``timeout`` seconds at most.

        Raises: Empty if there is none (in time); ValueError for a negative timeout.
        """
        with _withdrawn(self._actor.get.remote(_patience(block, timeout))) as ref:
            return _got(rlray.get(ref), 1)[0]

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """`put` for coroutines. If it is cancelled while it waits for room, the item is not put."""
        with _withdrawn(self._actor.put.remote(item, _patience(block, timeout))) as ref:
            _put(await ref, 1)

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """`get` for coroutines. If it is cancelled while it waits, it takes no item."""
        with _withdrawn(self._actor.get.remote(_patience(block, timeout))) as ref:
            return _got(await ref, 1)[0]

    def put_nowait(self, item: Any) -> None:
        """Add an item. Raises Full if there is no room."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the oldest item. Raises Empty if there is none."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all the items or none. Raises Full if there is no room for all, TypeError if they are not iterable."""
        if not isinstance(items, Iterable):
            raise TypeError(f"put_nowait_batch() takes an iterable of items, got {type(items).__name__} {items!r}")
        items = list(items)
        _put(rlray.get(self._actor.put_nowait_batch.remote(items)), len(items))

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take ``num_items`` items at once. Raises Empty, and takes none, if there are fewer."""
        if not isinstance(num_items, int):
            raise TypeError(f"num_items must be an int, got {type(num_items).__name__} {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must not be negative, got {num_items}")
        return list(_got(rlray.get(self._actor.get_nowait_batch.remote(num_items)), num_items))

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue; its items are lost. Calling it again is harmless.

        Calls that wait for an item or for room have ``grace_period_s`` seconds to finish, none with ``force``; after
        that they raise ActorDiedError.
        """
        if self.actor is None:
            return
        if not force:
            rlray.wait([self.actor.settled.remote()], timeout=grace_period_s)
        rlray.kill(self.actor)
        self.actor = None

    @property
    def _actor(self) -> Any:
        if self.actor is None:
            raise ActorDiedError("this queue was shut down; make a new Queue()")
        return self.actor


@contextmanager
def _withdrawn(ref: rlray.ObjectRef) -> Iterator[rlray.ObjectRef]:
    """A call whose caller is interrupted is cancelled: a `get` that nobody waits for must not take an item."""
    try:
        yield ref
    except (KeyboardInterrupt, asyncio.CancelledError):
        rlray.cancel(ref)
        raise


def _patience(block: bool, timeout: float | None) -> float | None:
    """How many seconds a call waits; None for ever."""
    if block and timeout is not None and timeout < 0:
        raise ValueError(f"timeout must not be negative, got {timeout!r}")
    return timeout if block else 0


def _put(there_was_room: bool, count: int) -> None:
    if not there_was_room:
        raise Full(f"the queue has no room for {count} more")


def _got(items: Sequence[Any], count: int) -> Sequence[Any]:
    if len(items) < count:
        raise Empty(f"the queue has fewer than {count} items")
    return items

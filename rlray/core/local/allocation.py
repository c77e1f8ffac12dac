"""The client's side of the store's memory: extents got from the node, in use, lent to others, or kept warm.

The process that got an extent from the node is its *home*. A value in it may belong to another process, its owner:
that one tells the home when the value is gone, and the home uses the extent again or gives it back to the node. So a
loop that makes values and drops them again takes no word with the node.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rlray.core.exceptions import ObjectStoreFullError
from rlray.core.local.complaint import Kept, mb
from rlray.core.local.loop import Loop
from rlray.core.local.settings import NODE
from rlray.core.local.store import whole_pages
from rlray.core.local.wire import Message

_PATIENCE = 10.0  # seconds a full store is given to empty, from the last time that something went to disk
_PAUSE = 0.1  # seconds between two tries, if nobody says that there is room
_KEPT = 1.0  # seconds an unused extent is kept warm
_MOST_KEPT = 16  # extents
_SHARE_KEPT = 8  # at most this part of the store is kept warm by one process: an eighth


@dataclass(slots=True, eq=False)
class Extent:
    """Pages of the store whose home is this process."""

    id: int
    offset: int
    size: int
    uses: int = 1  # values and arrays that lie in it
    tainted: bool = False  # its value's owner died, and the value may be read by others: only the node hears of them
    since: float = 0.0  # when it was last used


class Allocator:
    """The extents of one process. Methods are called under the loop's lock, except `take` and `dropped`."""

    def __init__(
        self,
        ask: Callable[..., Any],
        post: Callable[[int, Message], None],
        loop: Loop,
        capacity: int,
        let_go: Callable[[], None],
        make_room: Callable[[int], int],
        kept: Callable[[], Kept],
        blocking: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._ask, self._post, self._loop, self._capacity = ask, post, loop, capacity
        self._let_go = let_go  # frees the values whose references were dropped
        self._make_room = make_room  # moves idle values of this process to disk; returns bytes
        self._kept = kept  # what keeps the rest in memory
        self._blocking = blocking  # around a wait for others
        self._extents: dict[int, Extent] = {}
        self._warm: deque[Extent] = deque()  # unused, the one used last at the end
        self._warm_bytes = 0
        self._lent: dict[int, Counter[int]] = {}  # owner -> extents with values of its
        self._dropped: deque[int] = deque()
        self._noted = False  # there are some, and the loop knows
        self._room = False  # the node has said that something was freed
        self._aging = False

    def take(self, size: int) -> Extent:
        """An extent for ``size`` bytes, used once. Waits while the store is full.

        Raises: ObjectStoreFullError if nothing gets free for a while, or if it is larger than the store.
        """
        pages = whole_pages(size)
        if pages > self._capacity:
            raise ObjectStoreFullError(
                f"a value of {mb(size)} can never be stored: the object store has {mb(self._capacity)} in all; "
                "give init(object_store_memory=...) more bytes, or store it in pieces"
            )
        deadline, last = 0.0, -1
        while True:
            with self._loop.lock:
                extent = self._from_warm(pages)
            if extent is not None:
                return extent
            answer = self._ask("alloc", pages)
            if len(answer) == 2:
                extent = Extent(answer[0], answer[1], pages)
                with self._loop.lock:
                    self._extents[extent.id] = extent
                return extent
            [moved] = answer
            if moved != last:  # others make room: the end of the waiting is not in sight yet
                deadline, last = time.monotonic() + _PATIENCE, moved
            self._wait_for_room(pages, deadline)

    def _wait_for_room(self, size: int, deadline: float) -> None:
        gc.collect()  # references may hang in cycles
        with self._loop.lock:
            gave = self.give_up()
        if self._make_room(size) or gave:
            return
        if time.monotonic() >= deadline:
            raise ObjectStoreFullError(self._ask("why_full", size, self._kept()))
        with self._blocking():
            self._loop.run_until(lambda: self._room, _PAUSE)
        self._room = False

    @property
    def warm_bytes(self) -> int:
        """Bytes of unused extents that are kept for the next values."""
        return self._warm_bytes

    def _from_warm(self, size: int) -> Extent | None:
        self._let_go()
        self.sweep()
        for extent in reversed(self._warm):
            if size <= extent.size <= size + size // 8:
                self._warm.remove(extent)
                self._warm_bytes -= extent.size
                extent.uses = 1
                return extent
        return None

    def adopt(self, extents: Iterable[int]) -> None:
        """Become the home of extents that a dead process has left, each used once more."""
        for number in extents:
            if number in self._extents:
                self._extents[number].uses += 1
            else:
                self._extents[number] = Extent(number, 0, 0, tainted=True)

    # -- using and releasing -----------------------------------------------------------------------------------------

    def share(self, extent: int) -> None:
        """One more value or array lies in the extent."""
        self._extents[extent].uses += 1

    def release(self, extents: Iterable[int]) -> None:
        """A value or array in each of these is gone."""
        for number in extents:
            extent = self._extents[number]
            extent.uses -= 1
            if extent.uses:
                continue
            extent.since = time.monotonic()
            if extent.tainted or extent.size > self._capacity // _SHARE_KEPT:
                self._give_back(extent)
            else:
                self._warm.append(extent)
                self._warm_bytes += extent.size
        while len(self._warm) > _MOST_KEPT or self._warm_bytes > self._capacity // _SHARE_KEPT:
            self._cool()
        if self._warm and not self._aging:
            self._aging = True
            self._loop.call_later(_KEPT, self._age)

    def only_used_once(self, extents: Iterable[int]) -> bool:
        """Whether nothing else lies in these extents."""
        return all(self._extents[extent].uses == 1 for extent in extents)

    def dropped(self, extent: int) -> None:
        """From the finalizer of an array, in any thread at any moment: only take note."""
        self._dropped.append(extent)
        if not self._noted:
            self._noted = True
            self._loop.attend()

    def sweep(self) -> None:
        """Act on the arrays that were dropped since the last time."""
        self._noted = False
        while self._dropped:
            self.release([self._dropped.popleft()])

    def give_up(self) -> bool:
        """The store is full: give every unused extent back; False if there is none."""
        self.sweep()
        some = bool(self._warm)
        while self._warm:
            self._cool()
        return some

    def room(self) -> None:
        """The node says that something was freed."""
        self._room = True

    def _cool(self) -> None:
        extent = self._warm.popleft()
        self._warm_bytes -= extent.size
        self._give_back(extent)

    def _give_back(self, extent: Extent) -> None:
        del self._extents[extent.id]
        self._post(NODE, ("free", (extent.id,)))

    def _age(self) -> None:
        self._aging = False
        now = time.monotonic()
        while self._warm and self._warm[0].since <= now - _KEPT:
            self._cool()
        if self._warm:
            self._aging = True
            self._loop.call_later(self._warm[0].since + _KEPT - now, self._age)

    # -- lending -----------------------------------------------------------------------------------------------------

    def lend(self, extents: Iterable[int], owner: int) -> None:
        """A value in these extents belongs to ``owner`` from here on; `returned` ends that."""
        self._lent.setdefault(owner, Counter()).update(extents)

    def returned(self, owner: int, extents: Iterable[int]) -> None:
        """A value of ``owner`` in these extents is gone."""
        lent = self._lent.get(owner, Counter())
        for extent in extents:
            if extent in lent:  # else the owner died meanwhile: `forget_owner` has released it
                lent[extent] -= 1
                if not lent[extent]:
                    del lent[extent]
                self.release([extent])

    def owner_gone(self, owner: int) -> list[int]:
        """An owner died; returns the extents with its values, which others may still read.

        The node is to note them as held by the dead process until every process has said what it reads, before it
        hears of anything that this process does with them.
        """
        return list(self._lent.get(owner, ()))

    def forget_owner(self, owner: int) -> None:
        """The node knows of `owner_gone`: this process gives its own hold up."""
        for extent, count in self._lent.pop(owner, Counter()).items():
            self._extents[extent].tainted = True
            self.release([extent] * count)

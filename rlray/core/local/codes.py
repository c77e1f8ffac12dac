"""Functions on their way: what each process has been sent, and what it may forget since nobody can call it any more.

A function is pickled once by its caller and sent once to each process that is to run it; both keep it as long as
the caller has it. So a program that makes a new function for every call takes no more memory with each.
"""

from __future__ import annotations

import pickle
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rlray.core.engine import Code
from rlray.core.refs import ObjectRef

_KEPT = 64  # small functions that are gone here, and may come again as what they were: others still have them
_SMALL = 10_000  # bytes


@dataclass(slots=True)
class _Sent:
    """A function that others have. Several objects may stand for it, as it is known by its contents."""

    living: dict[int, weakref.ref[Code]] = field(default_factory=dict)  # by address
    light: bool = True  # it may be kept for a while when nobody can call it


class SentCodes:
    """What one process has sent to those that run its tasks. Methods are called under the loop's lock."""

    def __init__(self, attend: Callable[[], None]) -> None:
        self._attend = attend
        self._known: dict[int, set[bytes]] = {}  # by process
        self._sent: dict[bytes, _Sent] = {}
        self._dropped: deque[tuple[bytes, int]] = deque()
        self._uncalled: OrderedDict[bytes, None] = OrderedDict()  # longest first

    def __contains__(self, code_id: object) -> bool:
        """Whether a function of this process may still be called."""
        return code_id in self._sent

    def lacking(self, process: int, codes: Iterable[Code | None]) -> list[Code]:
        """Those of ``codes`` that ``process`` must be sent; from here on it has them."""
        known = self._known.setdefault(process, set())
        lacking = []
        for code in codes:
            assert code is not None, "tasks have code, only methods have none"
            sent = self._sent.get(code.id)
            if sent is None:
                sent = self._sent[code.id] = _Sent(light=not code.refs and len(code.pickled) <= _SMALL)
            alive = sent.living.get(id(code))
            if alive is None or alive() is not code:
                sent.living[id(code)] = weakref.ref(code, partial(self._note, code.id, id(code)))
                self._uncalled.pop(code.id, None)
            if code.id not in known:
                known.add(code.id)
                lacking.append(code)
        return lacking

    def _note(self, code_id: bytes, address: int, gone: object) -> None:
        # In any thread at any moment: only take note. `forgotten` does the rest.
        self._dropped.append((code_id, address))
        if len(self._dropped) == 1:
            self._attend()

    def process_gone(self, process: int) -> None:
        """A process died."""
        self._known.pop(process, None)

    def dropped(self) -> bool:
        """Whether `forgotten` has something to do."""
        return bool(self._dropped)

    def forgotten(self) -> tuple[list[bytes], list[tuple[int, list[bytes]]]]:
        """Functions that nobody here can call any more, and by process those of them that it is to forget."""
        over: dict[bytes, None] = {}
        while self._dropped:
            code_id, address = self._dropped.popleft()
            sent = self._sent.get(code_id)
            if sent is None:
                continue
            alive = sent.living.get(address)
            if alive is not None and alive() is None:  # else another one lies there now
                del sent.living[address]
            if sent.living:
                continue
            if sent.light:
                self._uncalled[code_id] = None
            else:
                over[code_id] = None
        while len(self._uncalled) > _KEPT:
            over[self._uncalled.popitem(last=False)[0]] = None
        told = []
        for code_id in over:
            del self._sent[code_id]
        for process, known in self._known.items():
            theirs = [code_id for code_id in over if code_id in known]
            if theirs:
                known.difference_update(theirs)
                told.append((process, theirs))
        return list(over), told


@dataclass(slots=True)
class _Received:
    """A function as it came."""

    pickled: bytes
    refs: Sequence[ObjectRef]  # that it captures
    senders: set[int]


class ReceivedCodes:
    """The functions that a worker has been sent. All methods but `load` are called under the loop's lock."""

    def __init__(self) -> None:
        self._codes: dict[bytes, _Received] = {}

    def take(self, sender: int, code_id: bytes, pickled: bytes, refs: Sequence[ObjectRef]) -> None:
        """A process has sent a function, which may be here already."""
        known = self._codes.get(code_id)
        if known is None:
            self._codes[code_id] = _Received(pickled, refs, {sender})
        else:
            known.senders.add(sender)

    def load(self, code_id: bytes) -> Callable[..., Any]:
        """The function, unpickled. Raises whatever its pickle raises."""
        code = self._codes[code_id]
        function: Callable[..., Any] = pickle.loads(code.pickled)
        code.pickled = b""  # it is loaded once
        return function

    def forget(self, sender: int, codes: Iterable[bytes]) -> list[bytes]:
        """A process will not call these any more; returns those that nobody will."""
        over = []
        for code_id in codes:
            code = self._codes.get(code_id)
            if code is not None:
                code.senders.discard(sender)
                if not code.senders:
                    del self._codes[code_id]
                    over.append(code_id)
        return over

    def process_gone(self, process: int) -> list[bytes]:
        """A process died; returns what nobody will call any more."""
        return self.forget(process, list(self._codes))

    def clear(self) -> None:
        """This process runs no tasks any more."""
        self._codes.clear()

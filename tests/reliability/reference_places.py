"""Places that hold references: the driver and several kinds of actors, which do as told and tell what they hold.

Places run in their own processes, tell the truth about themselves and know nothing of the runtime's tables; only
`tables` looks into those.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rlray
from rlray.core.engine import current
from tests.reliability.leftovers import left
from tests.reliability.reference_model import Holding, Record

Finding = tuple[Record, str]
"""A value, and what was wrong with it."""

OWNER_DIED = "its owner died"
PATIENCE = 60.0  # seconds after which something hangs
_ENDINGS = (rlray.exceptions.ActorDiedError, rlray.exceptions.ActorUnavailableError)
_CRASH = (rlray.exceptions.WorkerCrashedError, *_ENDINGS)


class Held(NamedTuple):
    """What lies in a slot."""

    kind: str  # of `Holding`, or "stream"
    record: Any  # a Record; of a stream those of the values that have not been taken
    thing: Any


def content(record: Record, refs: Sequence[Any]) -> dict[str, Any]:
    """The value of a record."""
    return {"number": record.number, "arrays": [_array(record, size) for size in record.sizes], "inner": list(refs)}


def _array(record: Record, size: int) -> np.ndarray[Any, Any]:
    return np.full(size, record.number % 251, np.uint8)


def _part(value: Any) -> np.ndarray[Any, Any]:
    """A part of its largest array, which lies in the store if the value does: small ones beside it may be copies."""
    return max(value["arrays"], key=len)[10:90]


def differs(record: Record, value: Any) -> str:
    """How a value differs from what its record says; empty if it does not."""
    if value["number"] != record.number:
        return f"it is value {value['number']}"
    if [len(array) for array in value["arrays"]] != list(record.sizes) or len(value["inner"]) != len(record.inner):
        return "it has another shape"
    if not all((array == record.number % 251).all() for array in value["arrays"]):
        return "its bytes have changed"
    return ""


def judge(record: Record, ref: Any) -> list[Finding]:
    """What is wrong with a value and with those inside it, when they are read here."""
    try:
        value = rlray.get(ref, timeout=PATIENCE)
    except rlray.exceptions.OwnerDiedError:
        return [(record, OWNER_DIED)]
    except Exception as why:  # whatever it is, it is told with the program that led to it
        return [(record, f"{type(why).__name__}: {why}")]
    if wrong := differs(record, value):
        return [(record, wrong)]
    found = []
    for one, inner in zip(record.inner, value["inner"], strict=True):
        found += judge(one, inner)
    return found


# -- tasks ---------------------------------------------------------------------------------------------------------


@rlray.remote
def make(records: Any, box: Sequence[Any]) -> Any:
    """Values with the references of the box inside: one, or as many as there are records."""
    if isinstance(records, Record):
        return content(records, box)
    return [content(record, box) for record in records]


@rlray.remote
def stream(records: Sequence[Record], box: Sequence[Any]) -> Iterator[Any]:
    for record in records:
        yield content(record, box)


@rlray.remote
def make_own(number: int, sizes: tuple[int, ...], inner: tuple[Record, ...], box: Sequence[Any]) -> Any:
    """A value that this worker owns: its record and a reference to it."""
    record = Record(number, sizes, current().process, inner)  # type: ignore[attr-defined]
    return [(record, rlray.put(content(record, box)))]


@rlray.remote
def fail(record: Record, box: Sequence[Any], how: str, folder: str) -> Any:
    """End badly while holding references and memory: the first time, or always."""
    mine = rlray.put(content(record, box))
    first = Path(folder) / f"task-{record.number}"
    again = first.exists()
    first.touch()
    if how == "raise" or (how == "raise once" and not again):
        raise ValueError(f"value {record.number}")
    if how == "die" or (how == "die once" and not again):
        (Path(folder) / f"dead-{current().process}").touch()  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.001)
    del mine
    return content(record, box)


class Place:
    """Slots with references, views and arrays. Every method but `account` returns what it has found wrong."""

    def __init__(self, box: Sequence[tuple[int, Record, Any]] = ()) -> None:
        self.slots: dict[int, Held] = {}
        self.pending: list[tuple[Any, Record | None]] = []  # calls of others that have not been looked at
        self.take(box)

    def run(self, method: str, *args: Any) -> Any:
        return getattr(self, method)(*args)

    # -- making ------------------------------------------------------------------------------------------------------

    def _refs(self, slots: Sequence[int]) -> tuple[tuple[Record, ...], list[Any]]:
        """The references in those of the slots that have one."""
        held = [one for one in map(self.slots.get, slots) if one is not None and one.kind == "ref"]
        return tuple(one.record for one in held), [one.thing for one in held]

    def _record(self, number: int, sizes: tuple[int, ...], inner: tuple[Record, ...], memory: str = "") -> Record:
        return Record(number, sizes, current().process, inner, memory)  # type: ignore[attr-defined]

    def put(self, slot: int, number: int, sizes: tuple[int, ...], inside: Sequence[int]) -> list[Finding]:
        inner, refs = self._refs(inside)
        record = self._record(number, sizes, inner)
        self.slots[slot] = Held("ref", record, rlray.put(content(record, refs)))
        return []

    def put_made(self, slots: Sequence[int], number: int, size: int, parts: Sequence[str]) -> list[Finding]:
        """Put an array of `empty`, whole or in part, into some slots, and keep a part of it in others."""
        array = rlray.empty(size, np.uint8)
        array[:] = number % 251
        whole = self._record(number, (size,), (), f"array {number}")
        for slot, part in zip(slots, parts, strict=True):
            if part == "keep":
                self.slots[slot] = Held("array", whole, array[size // 3 : size // 2])
            elif part == "whole":
                value = {"number": number, "arrays": [array], "inner": []}
                self.slots[slot] = Held("ref", whole, rlray.put(value))
            else:  # a copy of a half
                half = self._record(number, (size // 2,), (), f"half {slot} of {number}")
                self.slots[slot] = Held("ref", half, rlray.put({**content(half, ()), "arrays": [array[: size // 2]]}))
        return []

    def call(
        self, slots: Sequence[int], number: int, sizes: tuple[int, ...], inside: Sequence[int], how: str
    ) -> list[Finding]:
        """Tasks whose results go to the slots."""
        inner, refs = self._refs(inside)
        records = [self._record(number + i, sizes, inner) for i in range(len(slots))]
        if how == "one":
            things = [make.remote(record, refs) for record in records]
        elif how == "several":
            things = make.options(num_returns=len(slots)).remote(records, refs)
            things = things if isinstance(things, list) else [things]
            if len(slots) == 1:
                things = [make.remote(records[0], refs)]
        else:
            assert how == "map"
            records = [self._record(number + i, sizes, ()) for i in range(len(slots))]
            refs.clear()
            things = list(_plain.map(records))
        for slot, record, thing in zip(slots, records, things, strict=True):
            self.slots[slot] = Held("ref", record, thing)
        return []

    def stream(
        self, slots: Sequence[int], number: int, sizes: tuple[int, ...], inside: Sequence[int], take: int, keep: bool
    ) -> list[Finding]:
        """A generator, of which some values are taken; it is kept in the last slot, or dropped."""
        inner, refs = self._refs(inside)
        records = [self._record(number + i, sizes, inner) for i in range(len(slots) + 1)]
        values = stream.remote(records, refs)
        for slot, record in zip(slots[:take], records, strict=False):
            self.slots[slot] = Held("ref", record, next(values))
        if keep:
            self.slots[slots[-1]] = Held("stream", records[len(slots[:take]) :], values)
        return []

    def own(self, slot: int, number: int, sizes: tuple[int, ...], inside: Sequence[int]) -> list[Finding]:
        """A task puts a value that its worker owns, and returns the reference."""
        inner, refs = self._refs(inside)
        [(record, ref)] = rlray.get(make_own.remote(number, sizes, inner, refs), timeout=PATIENCE)
        self.slots[slot] = Held("ref", record, ref)
        return []

    def failing(
        self, slot: int, number: int, sizes: tuple[int, ...], inside: Sequence[int], how: str, folder: str
    ) -> list[Finding]:
        """A task that raises, dies or is cancelled while it holds references, and may be run again."""
        inner, refs = self._refs(inside)
        record = self._record(number, sizes, inner)
        once = how.endswith("once")
        task = fail.options(max_retries=2 if once else 0, retry_exceptions=how == "raise once")
        ref = task.remote(record, refs, how, folder)
        if once:
            self.slots[slot] = Held("ref", record, ref)
            return []
        if how == "sleep":
            time.sleep(number % 7 / 1000)
            rlray.cancel(ref)
        try:
            rlray.get(ref, timeout=PATIENCE)
        except (ValueError, rlray.exceptions.TaskCancelledError, *_CRASH) as error:
            expected = {"raise": ValueError, "die": _CRASH, "sleep": (rlray.exceptions.TaskCancelledError, *_CRASH)}
            return [] if isinstance(error, expected[how]) else [(record, f"{how} led to {error!r}")]
        except Exception as error:
            return [(record, f"{how} led to {error!r}")]
        return [(record, f"{how} led to a result")]

    # -- reading -----------------------------------------------------------------------------------------------------

    def look(self, slot: int, into: int) -> list[Finding]:
        """Read a value and keep a part of its array."""
        held = self.slots.get(slot)
        if held is None or held.kind != "ref":
            return []
        try:
            value = rlray.get(held.thing, timeout=PATIENCE)
        except rlray.exceptions.OwnerDiedError:
            return [(held.record, OWNER_DIED)]
        wrong = differs(held.record, value)
        self.slots[into] = Held("view", held.record, _part(value))
        return [(held.record, wrong)] if wrong else []

    def check(self) -> list[Finding]:
        """Read everything."""
        found = []
        for held in list(self.slots.values()):
            if held.kind == "ref":
                found += judge(held.record, held.thing)
            elif held.kind != "stream" and not (held.thing == held.record.number % 251).all():
                found.append((held.record, f"the bytes of a {held.kind} have changed"))
        return found

    def capture(self, slot: int) -> list[Finding]:
        """A function captures a reference, runs once and is gone."""
        held = self.slots.get(slot)
        if held is None or held.kind != "ref":
            return []
        record, ref = held.record, held.thing
        looks = rlray.remote(lambda: judge(record, ref))
        return rlray.get(looks.remote(), timeout=PATIENCE)  # type: ignore[no-any-return]

    def ask(self, slot: int) -> list[Finding]:
        """Futures and `wait` keep nothing either."""
        _, refs = self._refs([slot])
        for ref in refs:
            ref.future()
            rlray.wait([ref], timeout=0)
            rlray.wait([ref], timeout=0.001)
        return []

    def read_on(self, slot: int, into: int) -> list[Finding]:
        """Take one more value of a stream."""
        held = self.slots.get(slot)
        if held is None or held.kind != "stream":
            return []
        ref = next(held.thing, None)
        if ref is None:
            return [(held.record[0], "the stream ended before it")] if held.record else []
        self.slots[slot] = Held("stream", held.record[1:], held.thing)
        self.slots[into] = Held("ref", held.record[0], ref)
        return []

    # -- passing on --------------------------------------------------------------------------------------------------

    def give(self, slots: Sequence[int], into: int, peer: Any) -> list[Finding]:
        """Send references to another place, inside containers."""
        records, refs = self._refs(slots)
        box = [(into + i, record, ref) for i, (record, ref) in enumerate(zip(records, refs, strict=True))]
        self.pending.append((peer.do.remote("take", box), None))
        return []

    def give_value(self, slot: int, into: int, peer: Any) -> list[Finding]:
        """Send a value to another place, which keeps its array."""
        records, refs = self._refs([slot])
        for record, ref in zip(records, refs, strict=True):
            self.pending.append((peer.do.remote("take_value", into, record, ref), record))
        return []

    def give_copy(self, slot: int, into: int, peer: Any) -> list[Finding]:
        """Send an array as an argument: it travels in the store, and is the other's as long as that looks at it."""
        held = self.slots.get(slot)
        if held is not None and held.kind != "stream":
            self.pending.append((peer.do.remote("take_copy", into, _array(held.record, 200_000)), None))
        return []

    def take(self, box: Sequence[tuple[int, Record, Any]]) -> list[Finding]:
        for slot, record, ref in box:
            self.slots[slot] = Held("ref", record, ref)
        return []

    def take_value(self, into: int, record: Record, value: Any) -> list[Finding]:
        self.slots[into] = Held("view", record, _part(value))
        wrong = differs(record, value)
        return [(record, wrong)] if wrong else []

    def take_copy(self, into: int, array: Any) -> list[Finding]:
        return [] if len(array) == 200_000 else [(self._record(0, (), ()), "an array has another length")]

    def send(self, slots: Sequence[int]) -> Any:
        """References as a result."""
        records, refs = self._refs(slots)
        return [(i, record, ref) for i, record, ref in zip(slots, records, refs, strict=False)]

    # -- letting go --------------------------------------------------------------------------------------------------

    def drop(self, slots: Sequence[int], how: str) -> list[Finding]:
        gone = [self.slots.pop(slot, None) for slot in slots]
        if how == "thread":
            thread = threading.Thread(target=gone.clear)
            thread.start()
            thread.join()
        elif how == "late":
            threading.Timer(0.003, gone.clear).start()
        elif how == "cycle":
            gone.append(gone)  # type: ignore[arg-type]
        return []

    def clear(self) -> list[Finding]:
        self.slots.clear()
        return []

    def settled(self) -> tuple[int, list[Finding]]:
        """How many of its calls of others are still under way, and how many values of its tasks are not there yet."""
        found: list[Finding] = []
        rest = []
        for ref, record in self.pending:
            if not rlray.wait([ref], timeout=0)[0]:
                rest.append((ref, record))
                continue
            try:
                found += rlray.get(ref)
            except rlray.exceptions.OwnerDiedError:
                found += [(record, OWNER_DIED)] if record is not None else []
            except _ENDINGS:
                pass
        self.pending = rest
        held = list(self.slots.values())
        refs = list({one.thing for one in held if one.kind == "ref"})
        refs += [one.thing.completed() for one in held if one.kind == "stream"]
        late = rlray.wait(refs, num_returns=len(refs), timeout=0)[1] if refs else []
        return len(rest) + len(late), found

    def account(self) -> list[Holding]:
        """What this place holds."""
        found = []
        for held in list(self.slots.values()):
            if held.kind == "stream":
                found += [Holding("ref", record) for record in held.record]
            else:
                found.append(Holding(held.kind, held.record))  # type: ignore[arg-type]
        return found

    def collect(self) -> list[Finding]:
        gc.collect()
        return []

    def tables(self) -> list[str]:
        """What is left in the tables of this process."""
        return left()

    def where(self) -> tuple[int, int]:
        """(number of the process in the run, pid)."""
        return current().process, os.getpid()  # type: ignore[attr-defined]


_plain = rlray.remote(lambda record: content(record, ()))


class Holder(Place):
    """A place that is an actor."""

    def do(self, method: str, *args: Any) -> Any:
        return self.run(method, *args)


class AsyncHolder:
    """A place on an event loop; what it does, it does in threads."""

    def __init__(self, box: Sequence[tuple[int, Record, Any]] = ()) -> None:
        self.place = Place(box)

    async def do(self, method: str, *args: Any) -> Any:
        return await asyncio.to_thread(self.place.run, method, *args)

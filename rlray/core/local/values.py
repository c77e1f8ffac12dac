"""Values of one process: into payloads, out of payloads, and waiting for them."""

from __future__ import annotations

import gc
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlray.core.exceptions import ObjectStoreFullError, RayTaskError
from rlray.core.local.loop import Loop
from rlray.core.local.references import Payload, References, stored
from rlray.core.local.store import INLINE_LIMIT, Arena, split
from rlray.core.local.zygote import RunSettings
from rlray.core.refs import ObjectRef
from rlray.core.serialization import Serialized, deserialize

_FULL_PATIENCE = 10.0  # seconds a full store is given to empty


class Values:
    """Stores and loads values; large ones lie in shared memory, small ones travel in messages."""

    def __init__(self, settings: RunSettings, references: References, ask: Callable[..., Any], loop: Loop) -> None:
        self._arena = Arena(settings.store_fd, settings.store_capacity)
        self._capacity = settings.store_capacity
        self._references, self._ask, self._loop = references, ask, loop

    def put(self, value: Serialized) -> ObjectRef:
        """Own a value from now on."""
        payload = self.place(value)
        with self._loop.lock:
            ref = self._references.own_put()
            self._references.resolve(ref.binary(), payload, value.refs)
        return ref

    def payload(self, value: Serialized) -> tuple[Payload, list[ObjectRef]]:
        """The arguments of a call as a payload, and the references to keep alive as long as it is needed."""
        if value.nbytes <= INLINE_LIMIT:
            return ("inline", value.data, split(value.buffers)), value.refs
        ref = self.put(value)
        with self._loop.lock:
            payload = self._references.entries[ref.binary()].payload
        assert payload is not None
        return payload, [ref, *value.refs]

    def place(self, value: Serialized) -> Payload:
        """Put a value where it can be read from: into the payload itself if it is small, else into the store."""
        if value.nbytes <= INLINE_LIMIT:
            return ("inline", value.data, split(value.buffers))
        layout, size = self._arena.layout(value)
        extent, offset = self._allocate(size)
        self._arena.write(offset, value)
        return stored(extent, offset, layout)

    def _allocate(self, size: int) -> tuple[int, int]:
        deadline = time.monotonic() + (_FULL_PATIENCE if size <= self._capacity else 0)
        while True:
            answer = self._ask("alloc", size)
            if len(answer) == 2:
                return answer[0], answer[1]
            used, capacity, largest = answer
            if time.monotonic() >= deadline:
                holders = ", ".join(f"{nbytes / 1e6:.1f} MB of {who}" for nbytes, who in largest)
                raise ObjectStoreFullError(
                    f"no room for {size / 1e6:.1f} MB in the object store: {used / 1e6:.1f} of {capacity / 1e6:.1f} MB "
                    f"are taken (largest: {holders or 'none'}). Drop references that are no longer needed, or give "
                    "init(object_store_memory=...) more bytes"
                )
            gc.collect()  # references may hang in cycles
            self._loop.run_until(lambda: False, 0.1)  # back-pressure: others may be about to free some

    def load(self, ref: ObjectRef) -> Any:
        """The value, which must be there; raises it if it is an error."""
        with self._loop.lock:
            payload = self._references.entries[ref.binary()].payload
        assert payload is not None
        return self.unpack(payload, ref)

    def unpack(self, payload: Payload, keep: object) -> Any:
        """What a payload stands for; arrays in the store keep ``keep`` alive."""
        kind = payload[0]
        if kind == "inline":
            return deserialize(payload[1], payload[2])
        if kind == "stored":
            data, buffers = self._arena.read(payload[2], payload[3], keep)
            return deserialize(data, buffers)
        error = pickle.loads(payload[1])
        raise error.as_instanceof_cause() if isinstance(error, RayTaskError) else error

    @contextmanager
    def awaiting(self, refs: Sequence[ObjectRef], count: int, or_error: bool = False) -> Iterator[Callable[[], bool]]:
        """Ask for values; gives a function that says whether ``count`` of them, or an error, are there."""
        there, failed = 0, False

        def watch(ref: ObjectRef) -> Callable[[], None]:
            def arrived() -> None:
                nonlocal there, failed
                there += 1
                failed |= or_error and self.is_error(ref)

            return arrived

        asked: list[tuple[ObjectRef, Callable[[], None]]] = []
        with self._loop.lock:
            for ref in refs:
                arrived = watch(ref)
                if self._references.when_ready(ref, arrived):
                    arrived()
                else:
                    asked.append((ref, arrived))
        try:
            yield lambda: failed or there >= count
        finally:
            if there < len(refs):
                with self._loop.lock:
                    self._references.forget_waiting(asked)

    def is_error(self, ref: ObjectRef) -> bool:
        """Whether an error stands in the value's place."""
        payload = self._references.entries[ref.binary()].payload
        return payload is not None and payload[0] == "error"

    def wait_for(self, refs: Sequence[ObjectRef]) -> None:
        """Wait until all values are there."""
        with self.awaiting(refs, len(refs)) as enough:
            self._loop.run_until(enough)

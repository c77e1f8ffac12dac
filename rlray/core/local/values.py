"""Values of one process: into payloads, out of payloads, and waiting for them."""

from __future__ import annotations

import gc
import pickle
import time
from collections.abc import Callable
from typing import Any

from rlray.core.exceptions import ObjectStoreFullError, RayTaskError
from rlray.core.local.loop import Loop
from rlray.core.local.references import LocalRef, Payload, References, stored
from rlray.core.local.settings import RunSettings
from rlray.core.local.store import INLINE_LIMIT, Arena, split
from rlray.core.refs import ObjectRef
from rlray.core.serialization import IMMUTABLE, Serialized, deserialize, serialize

_FULL_PATIENCE = 10.0  # seconds a full store is given to empty


class Values:
    """Stores and loads values; large ones lie in shared memory, small ones travel in messages."""

    def __init__(self, settings: RunSettings, references: References, ask: Callable[..., Any], loop: Loop) -> None:
        self._arena = Arena(settings.store_fd, settings.store_capacity)
        self._capacity = settings.store_capacity
        self._references, self._ask, self._loop = references, ask, loop

    def put(self, value: Any) -> LocalRef:
        """Own a value from now on."""
        payload, inner = self.place(value)
        with self._loop.lock:
            ref = self._references.own_put()
            self._references.resolve(ref.entry, payload, inner)
        return ref

    def payload(self, value: Serialized) -> tuple[Payload, list[ObjectRef]]:
        """The arguments of a call as a payload, and the references to keep alive as long as it is needed."""
        if value.nbytes <= INLINE_LIMIT:
            return ("inline", value.data, split(value.buffers)), value.refs
        with self._loop.lock:
            ref = self._references.own_put()
        payload = self._store(value)
        with self._loop.lock:
            self._references.resolve(ref.entry, payload)
        return payload, [ref, *value.refs]

    def place(self, value: Any) -> tuple[Payload, list[ObjectRef]]:
        """Put a value where it can be read from, and name the references inside it.

        Raises whatever pickling raises; ObjectStoreFullError.
        """
        kind = type(value)
        if kind in IMMUTABLE and ((kind is not str and kind is not bytes) or len(value) <= INLINE_LIMIT):
            return ("value", value), []
        whole = serialize(value)
        if whole.nbytes <= INLINE_LIMIT:
            return ("inline", whole.data, split(whole.buffers)), whole.refs
        return self._store(whole), whole.refs

    def _store(self, value: Serialized) -> Payload:
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
        payload = self._references.entry(ref).payload
        assert payload is not None
        return self.unpack(payload, ref)

    def unpack(self, payload: Payload, keep: object) -> Any:
        """What a payload stands for; arrays in the store keep ``keep`` alive."""
        kind = payload[0]
        if kind == "value" or kind == "end":
            return payload[1]
        if kind == "inline":
            return deserialize(payload[1], payload[2])
        if kind == "stored":
            data, buffers = self._arena.read(payload[2], payload[3], keep)
            return deserialize(data, buffers)
        error = pickle.loads(payload[1])
        raise error.as_instanceof_cause() if isinstance(error, RayTaskError) else error

    def is_error(self, ref: ObjectRef) -> bool:
        """Whether an error stands in the value's place."""
        payload = self._references.entry(ref).payload
        return payload is not None and payload[0] == "error"

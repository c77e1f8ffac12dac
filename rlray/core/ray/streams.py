"""What an `ObjectRefGenerator` reads from: Ray's generator of references."""

from __future__ import annotations

import threading
from typing import Any

import ray

from rlray.core.ray.refs import Ref
from rlray.core.refs import ObjectRef


class Stream:
    """Ray's generator, which is not made for several threads, behind a lock. Nobody waits under it."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs
        self._lock = threading.Lock()
        self._upcoming: Ref | None = None
        self._completion = Ref(theirs.completed())

    def upcoming(self) -> ObjectRef:
        """Stands for the next value until it is taken; ready at the end too."""
        with self._lock:
            theirs, _ = self._peek()
            if self._upcoming is None or self._upcoming.ray != theirs:
                self._upcoming = Ref(theirs)
            return self._upcoming

    def completion(self) -> ObjectRef:
        """Ready when the generator has ended; its value is None, or the error."""
        return self._completion

    def advance(self, timeout: float | None) -> ObjectRef | None:
        """Wait for the next value and take it; None at the end. Raises TimeoutError."""
        while True:
            with self._lock:
                theirs, ready = self._peek()
            if not ready and not ray.wait([theirs], timeout=timeout, fetch_local=False)[0]:
                raise TimeoutError(f"the generator gave nothing within {timeout:g} s")
            try:
                return self.settled()
            except LookupError:  # another thread has taken it
                if self._theirs.completed() is not None and self._at_end():
                    ray.wait([self._completion.ray], timeout=timeout)

    def settled(self) -> ObjectRef | None:
        """Take the next value; None at the end. Raises LookupError if it is not there yet."""
        with self._lock:
            try:
                theirs = self._theirs._next_sync(0)
            except StopIteration:
                return None
        if theirs.is_nil():
            raise LookupError("the next value is not there")
        return Ref(theirs)

    def upcoming_ready(self) -> bool:
        """Whether the next value is there."""
        with self._lock:
            return bool(self._theirs.next_ready())

    def ended(self) -> bool:
        """Whether every value has been taken and there are no more."""
        with self._lock:
            return bool(self._theirs.is_finished())

    def drop(self) -> None:
        """Nobody reads on: Ray notices by itself."""

    def _peek(self) -> Any:
        return self._theirs.worker.core_worker.peek_object_ref_stream(self._theirs.completed())

    def _at_end(self) -> bool:
        return bool(self._theirs.worker.core_worker.is_object_ref_stream_finished(self._theirs.completed()))

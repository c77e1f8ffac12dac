"""The results of a generator task, in the process that asked for them: one reference per value, as values arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.local.references import LocalRef, Payload
from rlray.core.refs import ObjectRef

if TYPE_CHECKING:
    from rlray.core.local.client import Client
    from rlray.core.local.tasks import Task

_END: Payload = ("end", None)
_ALL = 1 << 62  # values taken, once nobody reads on


class Stream:
    """References to the values of one generator; the last one always stands for what has not arrived yet.

    Guarantees: values in the order of the generator, each exactly once, also if its process died and the task was
    retried: what had arrived before is then skipped. An error of the generator is its last value.
    """

    def __init__(self, client: Client, task: Task) -> None:
        self._client, self._task = client, task
        self._received = 0
        self._taken = 0
        self._dropped = False
        self._reader: LocalRef | None = client.references.own_put()  # lives as long as somebody reads
        self._reader.entry.released = self._abandon
        self._completion = client.references.own_put()
        self._refs: deque[LocalRef] = deque([client.references.own_put()])
        self._mark(self._refs[0])
        self._mark(self._completion)

    def _mark(self, ref: LocalRef) -> None:
        ref.entry.task = self._task  # for `cancel` and for messages that say what is waited for

    # -- for the process's messages, under the loop's lock -----------------------------------------------------------

    def take(self, index: int, payload: Payload, inner: Sequence[ObjectRef]) -> None:
        """Value number ``index`` has arrived."""
        if index < self._received or self._dropped:  # of a run that was repeated, or nobody reads on
            self._client.free(payload)
            if index == 0:
                self._tell_taken()  # the process of this run does not know
            return
        self._received += 1
        self._resolve(payload, inner)

    def answered(self, nothing: Any, worker: int) -> None:
        """The generator has ended."""
        self._end(None)

    def failed(self, error: Payload) -> None:
        """The generator has raised, or was lost."""
        self._resolve(error, ())
        self._end(error)

    def lost(self) -> bool:
        """The worker died over it: it is run again from its beginning."""
        return False

    def _end(self, error: Payload | None) -> None:
        self._client.references.resolve(self._refs[-1].entry, _END)
        self._client.references.resolve(self._completion.entry, error or ("value", None))
        self._refs[-1].entry.task = self._completion.entry.task = None
        self._task.sink = None  # nothing more can come, and the two no longer keep each other alive

    def _abandon(self) -> None:
        """Nobody reads on: what has arrived is let go, and what still comes is not kept."""
        self._dropped = True
        self._taken = _ALL
        while len(self._refs) > 1:
            self._refs.popleft()
        self._tell_taken()

    def _tell_taken(self) -> None:
        """Tell the generator how far its reader is, if it must not be too far ahead."""
        if self._task.spec.backpressure and self._task.worker is not None:
            self._client.post(self._task.worker, ("consumed", self._task.id, self._taken))

    def _resolve(self, payload: Payload, inner: Sequence[ObjectRef]) -> None:
        entry = self._refs[-1].entry
        entry.task, entry.maker = None, self._task.spec.name
        self._refs.append(self._client.references.own_put())
        self._mark(self._refs[-1])
        self._client.references.resolve(entry, payload, inner)

    # -- for `ObjectRefGenerator` ------------------------------------------------------------------------------------

    def upcoming(self) -> ObjectRef:
        """Stands for the next value until `advance`; ready at the end too."""
        return self._refs[0]

    def completion(self) -> ObjectRef:
        """Ready when the generator has ended; its value is None, or the error."""
        return self._completion

    def advance(self, timeout: float | None) -> ObjectRef | None:
        """Wait for the next value; None at the end. Raises TimeoutError."""
        while True:
            if not self._client.wait_for([self._refs[0]], timeout):
                raise TimeoutError(f"the generator gave nothing within {timeout:g} s")
            try:
                return self.settled()
            except LookupError:  # another thread has taken it
                continue

    def settled(self) -> ObjectRef | None:
        """The next value, if it is there; None at the end. Raises LookupError if it is not there yet."""
        with self._client.loop.lock:
            payload = self._refs[0].entry.payload
            if payload is None:
                raise LookupError("the next value has not arrived")
            if payload == _END:
                return None
            ref = self._refs.popleft()
            self._taken += 1
            self._tell_taken()
        return ref

    def upcoming_ready(self) -> bool:
        """Whether the next value is there."""
        return self._refs[0].entry.payload not in (None, _END)

    def ended(self) -> bool:
        """Whether every value has been taken and there are no more."""
        return self._refs[0].entry.payload == _END

    def drop(self) -> None:
        """Nobody reads on; see `_abandon`. In any thread at any moment."""
        self._reader = None

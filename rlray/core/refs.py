"""References: names for values that exist now or will."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rlray.core import engine as engines
from rlray.core.serialization import note_reference

if TYPE_CHECKING:
    from concurrent.futures import Future


class Ownership(Protocol):
    """What a reference needs of the engine it belongs to."""

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future that gets the value."""


class Source(Protocol):
    """What an `ObjectRefGenerator` needs of the engine it belongs to."""

    def upcoming(self) -> ObjectRef:
        """Stands for the next value until it is taken; ready at the end too."""

    def completion(self) -> ObjectRef:
        """Ready when the generator has ended; its value is None, or the error."""

    def advance(self, timeout: float | None) -> ObjectRef | None:
        """Wait for the next value and take it; None at the end. Raises TimeoutError."""

    def settled(self) -> ObjectRef | None:
        """Take the next value; None at the end. Raises LookupError if it is not there yet."""

    def upcoming_ready(self) -> bool:
        """Whether the next value is there."""

    def ended(self) -> bool:
        """Whether every value has been taken and there are no more."""

    def drop(self) -> None:
        """Nobody reads on."""


class ObjectRef:
    """Names a value that a task is computing, an actor will return, or ``put`` has stored.

    Guarantees: the value lives as long as any reference to it anywhere, also inside other values. A process has one
    reference object for a value, so references that name the same value are equal. Make them with ``.remote()`` or
    ``put``, never by hand.
    """

    __slots__ = ("__weakref__", "_id", "_owner")  # equality and hash by identity: engines see to it that this is right

    def __init__(self, object_id: bytes, owner: Ownership) -> None:
        self._id = object_id
        self._owner = owner

    def binary(self) -> bytes:
        """The id as bytes."""
        return self._id

    def hex(self) -> str:
        """The id as text."""
        return self._id.hex()

    def future(self) -> Future[Any]:
        """A ``concurrent.futures.Future`` that gets the value or the error."""
        return self._owner.future(self)

    def __await__(self) -> Any:
        import asyncio

        return asyncio.wrap_future(self.future()).__await__()

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __reduce__(self) -> tuple[Callable[[bytes], ObjectRef], tuple[bytes]]:
        if not note_reference(self):
            raise TypeError(
                f"{self!r} can only travel inside task arguments, results and put(); "
                "a copy made by plain pickle would not keep the value alive"
            )
        return _load, (self._id,)

    def __copy__(self) -> ObjectRef:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef:
        return self


def _load(object_id: bytes) -> ObjectRef:
    """Unpickling: this process becomes a holder of the value."""
    return engines.current().adopt(object_id)


class ObjectRefGenerator:
    """The references of a task or method with ``num_returns="streaming"``: each comes as soon as its value is yielded.

    Guarantees: the order is the generator's; nothing is lost or repeated when its process dies and the task is retried.
    If the generator raises, the last reference carries the error. Several threads or coroutines may read; each value
    goes to one. It is an iterator and an asynchronous iterator, and
    `wait` takes it like a reference: it is ready when its next value is there. Belongs to the process that made it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __iter__(self) -> ObjectRefGenerator:
        return self

    def __next__(self) -> ObjectRef:
        ref = self._source.advance(None)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> ObjectRefGenerator:
        return self

    async def __anext__(self) -> ObjectRef:
        import asyncio

        while True:
            upcoming = asyncio.wrap_future(self._source.upcoming().future())
            await asyncio.wait([upcoming])
            upcoming.exception()  # an error is for whoever gets the reference
            try:
                ref = self._source.settled()
            except LookupError:  # another reader has taken it
                continue
            if ref is None:
                raise StopAsyncIteration
            return ref

    def completed(self) -> ObjectRef:
        """A reference that is ready when the generator has ended; `get` of it raises the generator's error."""
        return self._source.completion()

    def upcoming(self) -> ObjectRef:
        """A reference that is ready when the next value, or the end, is there; for `wait`."""
        return self._source.upcoming()

    def next_ready(self) -> bool:
        """Whether a call of ``next`` would return a reference at once."""
        return self._source.upcoming_ready()

    def is_finished(self) -> bool:
        """Whether every reference has been taken and there are no more."""
        return self._source.ended()

    def __reduce__(self) -> Any:
        raise TypeError(
            "an ObjectRefGenerator cannot travel; send the references that it gives, or read it where it was made"
        )

    def __del__(self) -> None:
        self._source.drop()

"""References: names for values that exist now or will."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rlray.core.serialization import note_reference

if TYPE_CHECKING:
    from concurrent.futures import Future


class Ownership(Protocol):
    """What a reference needs of the engine it belongs to."""

    def dropped(self, object_id: bytes) -> None:
        """A reference of this process went away. Called from ``__del__``: must neither block nor raise."""

    def future(self, ref: ObjectRef) -> Future[Any]:
        """A future that gets the value."""


class ObjectRef:
    """Names a value that a task is computing, an actor will return, or ``put`` has stored.

    Guarantees: the value lives as long as any reference to it anywhere, also inside other values. References are
    equal if they name the same value. Make them with ``.remote()`` or ``put``, never by hand.
    """

    __slots__ = ("__weakref__", "_id", "_owner")

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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __del__(self) -> None:
        self._owner.dropped(self._id)

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
    from rlray.core.engine import current

    return current().adopt(object_id)

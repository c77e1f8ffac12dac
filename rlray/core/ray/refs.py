"""Our references around Ray's. Inside a value, Ray's own one travels, so Ray knows who holds what."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import ray

from rlray.core.ray.errors import is_client, mapped, of_value
from rlray.core.refs import ObjectRef, _load
from rlray.core.serialization import note_reference

if TYPE_CHECKING:
    from rlray.core.ray.engine import RayEngine

captured: dict[bytes, Ref] = {}
"""References that functions and classes of this process hold, by id. Ray keeps their values for the whole run."""


class Ref(ObjectRef):
    """A reference of this engine: around Ray's reference to a value, or Ray's handle to an actor.

    There may be several objects for the same value; they are equal. To keep one for each would cost more than all that
    is added to a call.
    """

    __slots__ = ("maker", "ray")

    def __init__(self, theirs: Any, maker: str = "") -> None:
        self.ray = theirs
        self.maker = maker  # the task's name, where this process has started it

    @property
    def _id(self) -> bytes:  # type: ignore[override]
        return id_of(self.ray)

    @property
    def _owner(self) -> Any:  # type: ignore[override]
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.ray == self.ray

    def __hash__(self) -> int:
        return hash(self.ray)

    def future(self) -> Future[Any]:
        """A ``concurrent.futures.Future`` that gets the value or the error."""
        outer = Future[Any]()
        outer.set_running_or_notify_cancel()

        def settle(inner: Future[Any]) -> None:
            try:
                outer.set_result(of_value(inner.result()))
            except BaseException as error:  # whatever the task raised
                ours = mapped(error)
                if ours is not error:
                    ours.__cause__ = ours.__cause__ or error
                outer.set_exception(ours)

        def settle_aside(inner: Future[Any]) -> None:
            # Ray's client tells it in the thread that all its answers come through: what the callbacks of `outer` ask
            # for there would never come.
            threading.Thread(target=settle, args=(inner,), name="rlray-settle", daemon=True).start()

        self.ray.future().add_done_callback(settle_aside if is_client() else settle)
        return outer

    def __reduce__(self) -> tuple[Callable[..., ObjectRef], tuple[Any]]:
        if note_reference(self):  # in the pickle of a function or class, which takes Ray's reference along beside it
            return _load, (self._id,)
        if not _ray_pickles():
            raise TypeError(
                f"{self!r} can only travel inside task arguments, results and put(); "
                "a copy made by plain pickle would not keep the value alive"
            )
        return Ref, (self.ray,)


def id_of(theirs: Any) -> bytes:
    """The id of a value or of an actor."""
    whose = getattr(theirs, "_ray_actor_id", None) or getattr(theirs, "_actor_id", None) or theirs
    return whose.binary()  # type: ignore[no-any-return]


_SERVER = "ray.util.client.server.server"
"""Loaded in the process, on the cluster, that stands for a program that reaches it through Ray's client."""


def _ray_pickles() -> bool:
    if is_client() or _SERVER in sys.modules:
        return True
    return bool(ray._private.worker.global_worker.get_serialization_context().is_in_band_serialization())


def bare(args: Sequence[Any], kwargs: Mapping[str, Any], engine: RayEngine) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Arguments with Ray's references in place of ours at top level: they arrive as values."""
    return (
        [engine.their(value) if isinstance(value, ObjectRef) else value for value in args],
        {name: engine.their(value) if isinstance(value, ObjectRef) else value for name, value in kwargs.items()},
    )

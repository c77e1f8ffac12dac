"""Torch tensors as values: their storages travel as buffers kept apart, not copied into the pickle.

Everything else about a tensor (dtype, strides, requires_grad, parameters, subclasses, sparse and quantised layouts) is
left to torch's own pickling, which ends at storages. Views of one storage in one value still share it on the other
side; a view takes its whole storage along, as in torch.

A tensor that is read can be written to, as torch has no read-only ones. What is written stays in that one tensor: large
storages are mapped copy-on-write, small ones are copied.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import threading
from collections import ChainMap
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import cloudpickle

if TYPE_CHECKING:
    import torch


class _Storage:
    """The bytes of a storage; the same one for all views of it that are pickled together."""

    def __init__(self, untyped: torch.UntypedStorage) -> None:
        self.untyped = untyped

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        import torch

        flat: Any = torch.empty(0, dtype=torch.uint8).set_(self.untyped).numpy()
        return _load_storage, (pickle.PickleBuffer(flat),)


class _Met(threading.local):
    """Storages that this thread's pickling has met, by address."""

    storages: dict[int, _Storage] | None = None


_met = _Met()


def _storage(untyped: torch.UntypedStorage) -> _Storage:
    assert _met.storages is not None
    return _met.storages.setdefault(untyped._cdata, _Storage(untyped))


def _reduce_untyped(storage: Any) -> Any:
    if storage.device.type != "cpu":
        return storage.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return _load_typed, (_storage(storage), None)  # torch's functions that rebuild tensors ask for typed ones


def _reduce_typed(storage: Any) -> Any:
    if storage._untyped_storage.device.type != "cpu":
        return storage.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return _load_typed, (_storage(storage._untyped_storage), storage.dtype)


def _load_storage(buffer: Any) -> torch.UntypedStorage:
    import torch

    from rlray.core.local.views import writable

    view = writable(buffer)
    flat = torch.frombuffer(view, dtype=torch.uint8) if view.nbytes else torch.empty(0, dtype=torch.uint8)
    return flat.untyped_storage()


def _load_typed(untyped: torch.UntypedStorage, dtype: torch.dtype | None) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype or torch.uint8, _internal=True)  # type: ignore[no-untyped-call]


@cache
def _pickler() -> Any:
    import torch

    tables = {torch.UntypedStorage: _reduce_untyped, torch.storage.TypedStorage: _reduce_typed}
    dispatch = ChainMap(tables, getattr(cloudpickle.Pickler, "dispatch_table", copyreg.dispatch_table))
    return type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": dispatch})


def dumps(value: Any, keep: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    """As ``cloudpickle.dumps`` in protocol 5 with ``keep`` for buffers, storages of tensors among them."""
    if not hasattr(sys.modules.get("torch"), "UntypedStorage"):  # torch is not there: nothing can be a tensor
        return bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=keep))
    before, _met.storages = _met.storages, {}
    try:
        stream = io.BytesIO()
        _pickler()(stream, protocol=5, buffer_callback=keep).dump(value)
        return stream.getvalue()
    finally:
        _met.storages = before

"""Views of the store that keep what they show alive."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


class _Pinned(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes of the store that hold on to the reference they belong to."""

    keep: object = None


def pinned(store: mmap.mmap, offset: int, size: int, keep: object) -> memoryview:
    """A read-only view of the store; ``keep`` stays referenced while any array made from the view lives."""
    view = np.frombuffer(store, np.uint8, size, offset).view(_Pinned)
    view.keep = keep
    return view.data.toreadonly()

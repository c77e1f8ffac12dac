"""Arrays and views: of the store and of spilled files, keeping what they show alive, and those of `rlray.empty`."""

from __future__ import annotations

import ctypes
import math
import mmap
import operator
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from rlray.core.resources import count_cpus

_SHARED = 1 << 25  # bytes: copies from here on are worth a second thread
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if os.uname().sysname == "Linux" else 0)
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class _Pinned(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes of the store that hold on to what keeps them from being reused."""

    keep: object = None
    fd: int = -1
    at: int = 0


class _Private:
    """Bytes of a file mapped copy-on-write: what is written to them stays in this mapping.

    Made with `ctypes`, because each `mmap.mmap` of a file holds a descriptor, and there may be many thousands.
    """

    def __init__(self, fd: int, offset: int, size: int, keep: object) -> None:
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._length = size + offset - start
        self._start = _mmap(
            None, self._length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _NORESERVE, fd, start
        )
        if self._start == _FAILED:
            self._start = None
            number = ctypes.get_errno()
            raise OSError(number, f"cannot map {size} bytes: {os.strerror(number)}")
        self._keep = keep
        self.__array_interface__ = {
            "data": (self._start + offset - start, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self, munmap: Any = _munmap) -> None:  # an argument, because globals may be gone when Python ends
        if self._start is not None:
            munmap(self._start, self._length)


def pinned(store: mmap.mmap, fd: int, offset: int, size: int, keep: object) -> memoryview:
    """A read-only view of the store; ``keep`` stays referenced while any array made from the view lives."""
    view = np.frombuffer(store, np.uint8, size, offset).view(_Pinned)
    view.keep, view.fd, view.at = keep, fd, offset
    return view.data.toreadonly()


def private(fd: int, offset: int, size: int, keep: object = None) -> memoryview:
    """Bytes of a file, writable: what is written stays in this one view. Nothing is copied before.

    Raises: OSError if the kernel has no address space or mapping left.
    """
    return np.asarray(_Private(fd, offset, size, keep)).data if size else memoryview(bytearray())


def writable(buffer: Any) -> memoryview:
    """The bytes of a buffer that a value was read with, writable without anybody else seeing what is written.

    Bytes of the store are mapped copy-on-write, so that only what is written to costs memory; others are copied.
    """
    view = memoryview(buffer)
    if not view.readonly:
        return view
    owner = view.obj
    if isinstance(owner, _Pinned) and owner.nbytes == view.nbytes:
        with suppress(OSError):  # no mapping is left: the system allows about 65,000
            return private(owner.fd, owner.at, view.nbytes, owner)
    if isinstance(owner, np.ndarray) and isinstance(owner.base, _Private) and owner.nbytes == view.nbytes:
        return owner.data
    return memoryview(bytearray(view))


def layout(shape: Any, dtype: Any, order: str) -> tuple[list[int], np.dtype[Any], int]:
    """The lengths, dtype and bytes of an array that ``rlray.empty`` is to make. Raises as it does."""
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"empty() makes arrays of numbers, got dtype {kind}; use numpy.empty for Python objects")
    if order not in ("C", "F"):
        raise ValueError(f"order of empty() must be 'C' or 'F', got {order!r}")
    lengths = [operator.index(n) for n in shape] if isinstance(shape, Iterable) else [operator.index(shape)]
    return lengths, kind, math.prod(lengths) * kind.itemsize


def freeze(array: object) -> None:
    """Make an array read-only, and what it is a view of."""
    while isinstance(array, np.ndarray):
        array.flags.writeable = False
        array = array.base


def address(buffer: memoryview) -> int:
    """Where a buffer starts in memory."""
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]) if buffer.nbytes else 0


def copy(to: memoryview, source: Any) -> None:
    """Copy bytes while other threads run; two threads share what is large, since one does not keep the memory busy."""
    target, origin = np.frombuffer(to, np.uint8), np.frombuffer(source, np.uint8)
    half = target.nbytes // 2 if target.nbytes >= _SHARED and count_cpus() > 1 else 0
    if not half:
        np.copyto(target, origin)
        return
    helper = threading.Thread(target=np.copyto, args=(target[:half], origin[:half]), name="rlray-copy", daemon=True)
    helper.start()
    try:
        np.copyto(target[half:], origin[half:])
    finally:
        _join(helper)  # also if a signal comes: the memory is about to be somebody else's


def _join(thread: threading.Thread) -> None:
    """Wait for a thread that will soon end; a Ctrl-C meanwhile is raised when it has."""
    interrupt: KeyboardInterrupt | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as why:
            interrupt = why
    if interrupt is not None:
        raise interrupt

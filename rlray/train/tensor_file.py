"""Files of named arrays in the safetensors format, written without a copy in memory and read as the pages are touched.

The format is eight bytes (the length of what follows, little-endian), a JSON object (dtype, shape and place of each
array) and the arrays one behind the other. The safetensors library reads and writes the same files; it makes one or two
copies of every array, which is much for a replay that fills half of the memory.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_DTYPES = {
    **{"BOOL": np.dtype(np.bool_), "U8": np.dtype(np.uint8), "I8": np.dtype(np.int8)},
    **{"U16": np.dtype("<u2"), "I16": np.dtype("<i2"), "F16": np.dtype("<f2")},
    **{"U32": np.dtype("<u4"), "I32": np.dtype("<i4"), "F32": np.dtype("<f4")},
    **{"U64": np.dtype("<u8"), "I64": np.dtype("<i8"), "F64": np.dtype("<f8")},
}
_NAMES = {dtype.str: name for name, dtype in _DTYPES.items()}


def write_tensors(path: str | os.PathLike[str], arrays: Arrays) -> None:
    """Write ``arrays``, C-contiguous ones, to a new file at ``path``: into the system's hands, not yet onto the disk.

    Raises: OSError where it does not fit the disk.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # so that every one is aligned
    header: dict[str, Any] = {}
    at = 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": _NAMES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("xb", buffering=0) as file:
        _write(file.fileno(), struct.pack("<Q", len(text)) + text)
        for name in order:
            if arrays[name].nbytes:
                _write(file.fileno(), arrays[name].reshape(-1).view(np.uint8).data)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays of the file at ``path``. They lie in a private mapping of it: writing to them changes no file.

    Raises: ValueError where it is no such file.
    """
    data = np.asarray(np.memmap(path, np.uint8, "c"))
    arrays = {}
    try:
        (length,) = struct.unpack("<Q", data[:8].tobytes())
        header = json.loads(data[8 : 8 + length].tobytes())
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
            if end > len(data) or end - begin != dtype.itemsize * math.prod(shape):
                raise ValueError(f"the array {name!r} does not lie in the file")
            arrays[name] = data[begin:end].view(dtype).reshape(shape)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of arrays: {error!r}") from error
    return arrays


def _write(descriptor: int, data: bytes | memoryview) -> None:
    """All of ``data``: one call of the system writes 2 GB at most."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

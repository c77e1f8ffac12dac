"""Nested state taken apart into JSON and arrays, and put together again, types and dtypes exact. Nothing is pickled.

What can be in a state: dicts (keys: strings, integers, floats, booleans, None), lists, tuples, strings, integers of
any size, floats, booleans, None, numpy arrays and scalars of numbers or booleans, and dense torch tensors.

In the JSON all of it stands for itself, except objects with the key ``"$"``, which say what JSON cannot:
``{"$": "tuple", "items": [...]}``, ``{"$": "array", "name": ...}`` and so on.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Arrays = dict[str, NDArray[Any]]
Location = tuple[object, ...]

_KIND = "$"
_ALLOWED = "dicts, lists, tuples, strings, numbers, booleans, None, numpy arrays and torch tensors"
_AS_INTEGERS = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
"""Torch's dtypes that numpy lacks, and the integers that carry their bits."""


def take_apart(state: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """``state`` as a tree for `json` and the arrays that it names. Arrays are not copied where that can be helped.

    A tensor comes off its device and its graph; its memory order (``channels_last``) is remembered.

    Raises:
        TypeError: something in it cannot be saved; the message says where it is.
    """
    arrays: Arrays = {}
    return _encode(dict(state), (), arrays), arrays


def put_together(tree: Any, arrays: Arrays) -> Any:
    """The state that `take_apart` gave ``tree`` and ``arrays`` for. Tensors are on the CPU.

    Raises:
        ValueError: the two do not belong together.
    """
    if isinstance(tree, list):
        return [put_together(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _KIND not in tree:
        return {key: put_together(value, arrays) for key, value in tree.items()}
    kind = tree[_KIND]
    if kind == "dict":
        return {put_together(key, arrays): put_together(value, arrays) for key, value in tree["items"]}
    if kind == "tuple":
        return tuple(put_together(item, arrays) for item in tree["items"])
    if kind == "float":
        return float(tree["value"])
    if tree.get("name") not in arrays:
        raise ValueError(f"the array {tree.get('name')!r} is missing")
    array = arrays[tree["name"]]
    if kind == "array":
        return array
    if kind == "scalar":
        return array[()]
    if kind == "tensor":
        return _to_tensor(array, tree)
    raise ValueError(f"unknown kind {kind!r}")


def _encode(value: Any, at: Location, arrays: Arrays) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {_KIND: "float", "value": repr(value)}
    if kind is list:
        return [_encode(item, (*at, i), arrays) for i, item in enumerate(value)]
    if kind is tuple:
        return {_KIND: "tuple", "items": [_encode(item, (*at, i), arrays) for i, item in enumerate(value)]}
    if kind is dict or kind is OrderedDict:
        return _encode_dict(value, at, arrays)
    if kind in (np.ndarray, np.memmap):
        return {_KIND: "array", "name": _add(value, at, arrays)}
    if isinstance(value, np.generic):
        return {_KIND: "scalar", "name": _add(np.asarray(value), at, arrays)}
    torch = sys.modules.get("torch")  # where it was never imported there is no tensor
    if torch is not None and isinstance(value, torch.Tensor):
        return _encode_tensor(value, at, arrays)
    raise TypeError(f"state at {_shown(at)}: cannot save a {kind.__module__}.{kind.__qualname__}; allowed: {_ALLOWED}")


def _encode_dict(value: Mapping[Any, Any], at: Location, arrays: Arrays) -> Any:
    for key in value:
        if key is not None and type(key) not in (str, int, float, bool):
            raise TypeError(f"state at {_shown(at)}: a key must be a string, number, boolean or None, got {key!r}")
    encoded = {key: _encode(item, (*at, key), arrays) for key, item in value.items()}
    if all(type(key) is str for key in encoded) and _KIND not in encoded:
        return encoded
    return {_KIND: "dict", "items": [[_encode(key, at, arrays), item] for key, item in encoded.items()]}


def _encode_tensor(tensor: torch.Tensor, at: Location, arrays: Arrays) -> Any:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise TypeError(f"state at {_shown(at)}: cannot save a sparse, quantized or complex tensor")
    tensor = tensor.detach().cpu()
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda axis: -strides[axis])
    if not tensor.permute(order).is_contiguous():
        order = list(range(tensor.dim()))
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype in _AS_INTEGERS:
        tensor = tensor.view(getattr(torch, _AS_INTEGERS[dtype]))
    name = _add(tensor.permute(order).contiguous().numpy(), at, arrays)
    return {_KIND: "tensor", "name": name, "dtype": dtype, "order": order}


def _to_tensor(array: NDArray[Any], tree: Mapping[str, Any]) -> torch.Tensor:
    import torch

    dtype = getattr(torch, tree["dtype"])
    tensor = torch.from_numpy(array)
    inverse = sorted(range(tensor.dim()), key=tree["order"].__getitem__)
    return (tensor if tensor.dtype == dtype else tensor.view(dtype)).permute(inverse)


def _add(array: NDArray[Any], at: Location, arrays: Arrays) -> str:
    """Put ``array`` into ``arrays`` under a name of its own, made from where it lies in the state."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or not array.dtype.isnative:
        raise TypeError(f"state at {_shown(at)}: cannot save the numpy dtype {array.dtype!r}")
    name = plain = "/".join(map(str, at))
    copies = 1
    while name in arrays or name in ("", "__metadata__"):
        copies += 1
        name = f"{plain}#{copies}"
    arrays[name] = array if array.flags.c_contiguous else array.copy(order="C")
    return name


def _shown(at: Location) -> str:
    return repr("/".join(map(str, at))) if at else "its top"

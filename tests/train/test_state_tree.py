"""Nested state through JSON and arrays: values, types, dtypes and memory order come back exactly."""

from __future__ import annotations

import json
import math
import random
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from rlray.train.state_tree import put_together, take_apart

NUMPY = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]
TORCH = ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "bfloat16", "float8_e5m2"]


def random_bytes(rng: random.Random, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    if dtype == np.bool_:
        return np.array([rng.random() < 0.5 for _ in range(count)]).astype(np.bool_).reshape(shape)
    return np.frombuffer(rng.randbytes(count * dtype.itemsize), dtype).reshape(shape)


def random_array(rng: random.Random) -> np.ndarray[Any, Any]:
    shape = tuple(rng.randrange(4) for _ in range(rng.randrange(4)))
    array = random_bytes(rng, np.dtype(rng.choice(NUMPY)), shape)
    return rng.choice([array, array.T, array[::-1] if array.ndim else array, np.asfortranarray(array)])


def random_tensor(rng: random.Random) -> torch.Tensor:
    dtype = getattr(torch, rng.choice(TORCH))
    shape = tuple(rng.randrange(4) for _ in range(rng.choice([0, 1, 2, 4, 4])))
    raw = random_bytes(rng, np.dtype(f"uint{8 * dtype.itemsize}"), shape) & (1 if dtype == torch.bool else 255)
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    tensor = torch.tensor(raw.astype(np.int64).tolist(), dtype=integers).reshape(shape).view(dtype)
    if tensor.dim() == 4 and rng.random() < 0.5:
        tensor = tensor.to(memory_format=torch.channels_last)
    if tensor.dim() == 2 and rng.random() < 0.5:
        tensor = tensor.t()
    return torch.nn.Parameter(tensor) if tensor.is_floating_point() and rng.random() < 0.2 else tensor


def random_leaf(rng: random.Random) -> Any:
    kind = rng.randrange(9)
    if kind == 0:
        return random_array(rng)
    if kind == 1:
        return random_tensor(rng)
    if kind == 2:
        return random_bytes(rng, np.dtype(rng.choice(NUMPY)), (1,))[0]
    if kind == 3:
        return rng.choice([0, -1, rng.getrandbits(64), rng.getrandbits(128), -rng.getrandbits(300)])
    if kind == 4:
        return rng.choice([0.0, -0.0, 1e-320, math.pi, math.inf, -math.inf, math.nan, rng.uniform(-1e9, 1e9)])
    if kind == 5:
        return rng.choice(["", "$", "a/b", "é日\x00\n", "\ud800", '"', "1"])
    return [None, True, False][kind - 6]


def random_tree(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(7) if depth < 4 else 0
    if kind < 3 and depth:
        return random_leaf(rng)
    size = rng.randrange(5)
    if kind == 4 and depth:
        return [random_tree(rng, depth + 1) for _ in range(size)]
    if kind == 5 and depth:
        return tuple(random_tree(rng, depth + 1) for _ in range(size))
    keys = ["", "$", "a", "b", "a/b", "items", "name", "__metadata__", "0", 0, 7, -1.5, math.inf, None, "None", "a#2"]
    return {key: random_tree(rng, depth + 1) for key in rng.sample(keys, size)}


def same(a: Any, b: Any) -> bool:
    """The slow and strict comparison: types, dtypes, strides, bits."""
    if isinstance(a, torch.nn.Parameter):
        a = a.detach()
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        dense = all(n != 1 for n in a.shape) and a.numel() > 0  # else strides mean nothing
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.dtype.itemsize]
        return (
            (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
            and (not dense or a.stride() == b.stride())
            and torch.equal(a.view(bits), b.view(bits))
        )
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return repr(a) == repr(b)


def round_trip(state: dict[Any, Any]) -> Any:
    tree, arrays = take_apart(state)
    return put_together(json.loads(json.dumps(tree, allow_nan=False)), {k: v.copy() for k, v in arrays.items()})


def test_random_trees() -> None:
    for seed in range(400):
        state = random_tree(random.Random(seed))
        assert same(state, round_trip(state)), f"seed {seed}: {state}"


def test_a_numpy_generator_goes_on_where_it_was() -> None:
    for bits in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64):
        before = np.random.Generator(bits(3))
        before.normal(size=5)
        after = np.random.Generator(bits(4))
        after.bit_generator.state = round_trip({"rng": before.bit_generator.state})["rng"]
        assert before.bytes(64) == after.bytes(64)


def test_an_optimiser_goes_on_where_it_was() -> None:
    """Fused Adam walks through parameters and moments in memory order: channels_last must come back as it was."""

    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2))
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net, torch.optim.Adam(net.parameters(), fused=True, betas=(0.8, 0.99))

    def step(net: torch.nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        batch = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        net(batch.to(memory_format=torch.channels_last)).square().sum().backward()
        optimiser.step()

    net, optimiser = make()
    for seed in range(3):
        step(net, optimiser, seed)
    state = round_trip({"net": net.state_dict(), "optimiser": optimiser.state_dict()})
    other, other_optimiser = make()
    other.load_state_dict(state["net"])
    other_optimiser.load_state_dict(state["optimiser"])
    for seed in range(3, 6):
        step(net, optimiser, seed)
        step(other, other_optimiser, seed)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_arrays_are_not_copied_on_the_way_out() -> None:
    array, tensor = np.zeros((4, 4)), torch.zeros(4, 4)
    _, arrays = take_apart({"a": array, "t": tensor})
    assert np.shares_memory(arrays["a"], array)
    assert np.shares_memory(arrays["t"], tensor.numpy())


def test_ordered_dicts_become_dicts() -> None:
    assert type(round_trip({"a": OrderedDict(b=1)})["a"]) is dict


class Odd:
    """What nobody can save without pickle."""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Odd(), "state at 'a/1': cannot save a tests.train.test_state_tree.Odd; allowed: dicts, lists"),
        ({1, 2}, "state at 'a/1': cannot save a builtins.set"),
        (b"x", "cannot save a builtins.bytes"),
        (3j, "cannot save a builtins.complex"),
        (np.array(["x"]), "state at 'a/1': cannot save the numpy dtype dtype('<U1')"),
        (np.array([Odd()]), "cannot save the numpy dtype dtype('O')"),
        (np.zeros(2, ">f4"), "cannot save the numpy dtype dtype('>f4')"),
        (np.zeros(2, "datetime64[s]"), "cannot save the numpy dtype"),
        (np.ma.zeros(2), "cannot save a numpy.ma"),
        (torch.zeros(2, dtype=torch.complex64), "cannot save a sparse, quantized or complex tensor"),
        (torch.eye(2).to_sparse(), "cannot save a sparse, quantized or complex tensor"),
        ({(1, 2): 3}, "state at 'a/1': a key must be a string, number, boolean or None, got (1, 2)"),
    ],
)
def test_what_is_refused(value: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        take_apart({"a": [0, value]})
    assert message in str(caught.value)


def test_parts_that_do_not_belong_together() -> None:
    tree, _ = take_apart({"a": np.zeros(2)})
    with pytest.raises(ValueError, match="the array 'a' is missing"):
        put_together(tree, {})
    with pytest.raises(ValueError, match="unknown kind 'code'"):
        put_together({"$": "code", "name": "a"}, {"a": np.zeros(2)})

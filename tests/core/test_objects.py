"""`put` and `get`: what goes in comes out, arrays without a copy, references as values."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import pickle
from typing import Any

import numpy as np
import pytest

import rlray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    tags: list[str]


Named = collections.namedtuple("Named", "left right")
_cyclic: list[Any] = [1]
_cyclic.append(_cyclic)

VALUES: list[Any] = [
    None,
    True,
    -(2**80),
    3.5,
    float("inf"),
    2 + 3j,
    "ünïcødé \0 \U0001f40d",
    b"",
    b"\xff" * 2_000_000,
    pytest.param(bytearray(b"mutable"), marks=pytest.mark.differs("ray", "Ray makes bytes of a bytearray")),
    [1, [2, (3,)], {4}],
    {"a": {"b": [None]}, 1: 2},
    frozenset({1, 2}),
    range(5),
    slice(1, None, 2),
    Ellipsis,
    int,
    Colour.RED,
    Point(1.0, ["t"]),
    Named(1, 2),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
    collections.OrderedDict(a=1),
    collections.defaultdict(list, {"k": [1]}),
    "x" * 3_000_000,
    list(range(50_000)),
]

ARRAYS: list[np.ndarray[Any, Any]] = [
    np.zeros(0),
    np.array(5.0),
    np.arange(10, dtype=np.int8),
    np.arange(300_000, dtype=np.float32).reshape(3, 100, 1000),
    np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
    np.arange(400_000.0)[::2],
    np.arange(400_000)[::-1],
    np.ones((500, 500), dtype=bool),
    np.array(["some", "strings"] * 20_000),
    np.array([{"o": 1}, None], dtype=object),
    np.array([(1, 2.0)] * 30_000, dtype=[("i", "i4"), ("f", "f8")]),
    np.arange(200_000, dtype=">i4"),
    np.array([np.datetime64("2026-01-01")] * 20_000),
    np.ma.masked_array(np.arange(50_000.0), mask=np.arange(50_000) % 2),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:24])
def test_round_trip(value: Any) -> None:
    out = rlray.get(rlray.put(value))
    assert type(out) is type(value)
    assert out == value
    assert rlray.get(rlray.remote(lambda x: x).remote(value)) == value


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_arrays_round_trip(array: np.ndarray[Any, Any]) -> None:
    for out in (rlray.get(rlray.put(array)), rlray.get(rlray.remote(lambda x: x).remote(array))):
        assert type(out) is type(array)
        assert out.dtype == array.dtype
        assert out.shape == array.shape
        np.testing.assert_array_equal(np.asarray(out), np.asarray(array))


def test_cycles_and_shared_parts_survive() -> None:
    out = rlray.get(rlray.put(_cyclic))
    assert out[1] is out
    part = np.zeros(100_000)
    first, second = rlray.get(rlray.put([part, part]))
    assert first is second


def test_put_copies_and_get_does_not() -> None:
    source = np.zeros(1_000_000)
    ref = rlray.put(source)
    source[:] = 1
    first, second = rlray.get(ref), rlray.get(ref)
    assert first[0] == 0, "put must take the value as it was"
    assert np.shares_memory(first, second) or first.__array_interface__["data"] == second.__array_interface__["data"]


def test_arrays_from_the_store_are_read_only() -> None:
    out = rlray.get(rlray.put(np.zeros(1_000_000)))
    assert not out.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        out[0] = 1
    copy = out.copy()
    copy[0] = 1
    assert out[0] == 0


def test_arrays_inside_containers_are_not_copied_either() -> None:
    ref = rlray.put({"deep": [np.arange(500_000), {"er": np.ones((1000, 200))}], "text": "t"})
    first, second = rlray.get([ref, ref])
    for a, b in ((first["deep"][0], second["deep"][0]), (first["deep"][1]["er"], second["deep"][1]["er"])):
        assert a.__array_interface__["data"] == b.__array_interface__["data"]
        assert not a.flags.writeable
    assert first["deep"][0][-1] == 499_999


def test_arrays_are_aligned_for_vector_instructions() -> None:
    values = rlray.get(rlray.put([b"x" * 7, np.arange(200_000.0), "odd", np.arange(100_001, dtype=np.uint8)]))
    assert values[1].__array_interface__["data"][0] % 64 == 0
    assert values[3].__array_interface__["data"][0] % 64 == 0


def test_a_task_reads_a_put_array_without_a_copy() -> None:
    """One put, many readers: the readers' view is read-only and right to the last byte."""
    array = np.random.default_rng(0).integers(0, 255, 8_000_000, dtype=np.uint8)
    ref = rlray.put(array)
    look = rlray.remote(lambda x: (int(x.sum()), x.flags.writeable, x.flags.owndata))
    assert rlray.get([look.remote(ref) for _ in range(4)]) == [(int(array.sum()), False, False)] * 4


def test_results_of_tasks_are_not_copied_by_get() -> None:
    ref = rlray.remote(lambda: np.arange(1_000_000)).remote()
    first, second = rlray.get(ref), rlray.get(ref)
    assert first.__array_interface__["data"] == second.__array_interface__["data"]


def test_pickle_buffers_of_any_class_travel_out_of_band() -> None:
    class Holder:
        def __init__(self, data: bytearray) -> None:
            self.data = data

        def __reduce_ex__(self, protocol: int) -> Any:
            return _rebuild, (pickle.PickleBuffer(self.data),)

    out = rlray.get(rlray.put(Holder(bytearray(b"ab" * 500_000))))
    assert bytes(out[:4]) == b"abab"
    assert len(out) == 1_000_000


def _rebuild(data: Any) -> memoryview:
    return memoryview(data)


def test_get_takes_one_reference_or_a_list() -> None:
    refs = [rlray.put(i) for i in range(3)]
    assert rlray.get(refs[2]) == 2
    assert rlray.get(refs[::-1]) == [2, 1, 0]
    assert rlray.get([refs[0]] * 3) == [0, 0, 0]
    assert rlray.get([]) == []


def test_get_and_put_refuse_what_they_cannot_take() -> None:
    ref = rlray.put(1)
    for wrong in (5, "ref", {ref: 1}):
        with pytest.raises((TypeError, ValueError), match=type(wrong).__name__):
            rlray.get(wrong)
    with pytest.raises((TypeError, ValueError), match=r"7|int"):
        rlray.get([ref, 7])
    with pytest.raises(TypeError, match=r"(?i)list|wrap"):
        rlray.put(ref)


def test_references_have_identity() -> None:
    ref, other = rlray.put(1), rlray.put(1)
    same = rlray.get(rlray.put([ref]))[0]
    assert ref == same
    assert hash(ref) == hash(same)
    assert ref != other
    assert ref != 1
    assert {ref: "a"}[same] == "a"
    assert ref.hex() == same.hex()
    assert int(ref.hex(), 16) >= 0
    assert ref.hex() in repr(ref)
    assert ref.hex() != other.hex()


def test_plain_pickle_of_a_reference_loses_nothing_silently() -> None:
    """It either refuses, naming the type, or gives a reference that works."""
    ref = rlray.put("value")
    try:
        data = pickle.dumps(ref)
    except TypeError as error:
        message = str(error)
    else:
        message = "ObjectRef" if rlray.get(pickle.loads(data)) == "value" else "lost"
    assert "ObjectRef" in message

"""`rlray.empty`: arrays that are values without a copy, read-only from then on, and freed when nobody needs them."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import rlray
from tests.support import wait_until

MB = 1_000_000
CAPACITY = 80 * 1024 * 1024


@pytest.fixture(autouse=True, scope="module")
def _runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    rlray.init(num_cpus=2, object_store_memory=CAPACITY)
    yield
    rlray.shutdown()


@pytest.fixture(autouse=True)
def _all_memory_comes_back() -> Iterator[None]:
    """After a test nearly all of the store fits into one array again."""
    yield
    gc.collect()
    array = rlray.empty(75 * MB, np.uint8)
    array[-1] = 1


def place(array: np.ndarray[Any, Any]) -> int:
    """Where an array lies in this process."""
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize(
    ("shape", "dtype", "order"),
    [
        (500_000, float, "C"),
        ((300, 400), np.float32, "C"),
        ((300, 400), np.float32, "F"),
        ((2, 3, 100_000), "u1", "C"),
        ([100, 1000], np.complex64, "C"),
        (200_000, np.dtype([("a", "i4"), ("b", "f8")]), "C"),
        (np.int64(200_000), "M8[s]", "C"),
        ((200_000, 1), bool, "F"),
        (3, float, "C"),
        ((), float, "C"),
        ((0, 5), np.int8, "C"),
    ],
)
def test_it_is_an_ordinary_array_that_can_be_written(shape: Any, dtype: Any, order: Any) -> None:
    array, model = rlray.empty(shape, dtype, order=order), np.empty(shape, dtype, order)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype, array.strides) == (model.shape, model.dtype, model.strides)
    assert array.flags.writeable
    array[...] = np.ones(1, dtype)
    back = rlray.get(rlray.put(array))
    assert (back.shape, back.dtype) == (model.shape, model.dtype)
    assert back.flags.f_contiguous == model.flags.f_contiguous
    np.testing.assert_array_equal(back, array)


def test_the_default_is_numpys() -> None:
    assert rlray.empty(5).dtype == np.empty(5).dtype
    assert rlray.empty((300, 300)).flags.c_contiguous


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="object"):
        rlray.empty(10, object)
    with pytest.raises(ValueError, match="order"):
        rlray.empty(10, order="K")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        rlray.empty((-1, 5))
    with pytest.raises(TypeError):
        rlray.empty("five")  # type: ignore[arg-type]
    with pytest.raises(rlray.exceptions.ObjectStoreFullError):
        rlray.empty(CAPACITY + MB, np.uint8)


def test_put_copies_nothing_and_freezes() -> None:
    array = rlray.empty((1000, 1000))
    array[:] = 3
    ref = rlray.put(array)
    back = rlray.get(ref)
    assert place(back) == place(array)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    del ref, back
    gc.collect()
    others = [rlray.put(np.full(8 * MB, i, np.uint8)) for i in range(6)]
    assert (array == 3).all(), "the array keeps its memory after the value is gone"
    del others


def test_inside_other_values_with_more_of_its_kind_and_ordinary_arrays() -> None:
    first, second = rlray.empty((1000, 500)), rlray.empty(MB, np.uint8)
    first[:], second[:] = 1, 2
    value = {
        "first": first,
        "list": [second, np.full(300_000, 5.0)],
        "small": np.arange(10),
        "text": "t" * 50_000,
        "tuple": (first.reshape(-1), first.T, second.view(np.uint16)),
    }
    back = rlray.get(rlray.put(value))
    assert place(back["first"]) == place(first)
    assert place(back["list"][0]) == place(second)
    assert [place(array) for array in back["tuple"]] == [place(first), place(first), place(second)]
    assert back["tuple"][1].shape == (500, 1000)
    assert (back["list"][1] == 5.0).all()
    assert back["small"].tolist() == list(range(10))
    assert back["text"] == "t" * 50_000
    assert not first.flags.writeable
    assert not second.flags.writeable
    look = rlray.remote(lambda v: (v["first"].sum(), v["list"][0].sum(), v["tuple"][2].sum(), v["small"].sum()))
    assert rlray.get(look.remote(value)) == (500_000, 2 * MB, 0x0202 * MB // 2, 45)


def test_a_view_that_is_put_freezes_what_it_is_a_view_of() -> None:
    array = rlray.empty((1000, 300))
    array[:] = 1
    view = array.reshape(300, 1000)
    ref = rlray.put(view)
    assert not array.flags.writeable
    assert not view.flags.writeable
    assert place(rlray.get(ref)) == place(array)


def test_a_part_is_copied_and_the_rest_stays_writable() -> None:
    array = rlray.empty((1000, 300))
    array[:] = 1
    back = rlray.get(rlray.put(array[:700]))
    array[:] = 2
    assert (back == 1).all()
    strided = rlray.get(rlray.put(array[:, ::2]))
    array[:] = 3
    assert (strided == 2).all()


def test_putting_twice_shares_the_memory_as_long_as_anybody_needs_it() -> None:
    array = rlray.empty(MB)
    array[:] = 1
    first, second = rlray.put(array), rlray.put([array])
    at = place(array)
    del array, first
    gc.collect()
    others = [rlray.put(np.full(8 * MB, i, np.uint8)) for i in range(6)]
    [back] = rlray.get(second)
    assert place(back) == at
    assert (back == 1).all()
    del second
    gc.collect()
    others += [rlray.put(np.full(8 * MB, i, np.uint8)) for i in range(3)]
    assert (back == 1).all()
    del others


def test_results_of_tasks_are_not_copied() -> None:
    @rlray.remote
    def make() -> Any:
        array = rlray.empty((100, 5000))
        array[:] = 7
        return {"array": array, "n": 1}, array.nbytes

    value, nbytes = rlray.get(make.remote())
    assert nbytes == 4 * MB
    assert (value["array"] == 7).all()
    assert not value["array"].flags.writeable


@rlray.remote
class Maker:
    def __init__(self) -> None:
        self.array: Any = None

    def make(self, i: int) -> Any:
        self.array = rlray.empty(8 * MB, np.uint8)
        self.array[:] = i
        return self.array

    def again(self) -> Any:
        return [self.array]

    def look(self) -> tuple[int, int, bool]:
        return int(self.array[0]), int(self.array[-1]), self.array.flags.writeable

    def drop(self) -> None:
        self.array = None

    def overwrite(self, i: int) -> Any:
        if self.array is None:
            self.array = np.empty(8 * MB, np.uint8)
        self.array[:] = i
        return self.array

    def two(self, fail: bool) -> Any:
        array = rlray.empty(20 * MB, np.uint8)
        return array, (lambda: 1) if not fail else (x for x in ())

    def pid(self) -> int:
        return os.getpid()


def churn() -> None:
    """Use all memory that may be used again, so that what was freed too early is overwritten."""
    for _ in range(2):
        refs = [rlray.put(np.full(8 * MB, 99, np.uint8)) for _ in range(7)]
        del refs


def test_an_actor_may_keep_what_it_has_returned() -> None:
    maker = Maker.remote()
    ref = maker.make.remote(5)
    assert rlray.get(ref)[-1] == 5
    del ref
    churn()
    assert rlray.get(maker.look.remote()) == (5, 5, False)
    [again] = rlray.get(maker.again.remote())
    rlray.get(maker.drop.remote())
    churn()
    assert (again == 5).all()


def test_returning_twice_shares() -> None:
    maker = Maker.remote()
    first, again = maker.make.remote(6), maker.again.remote()
    assert (rlray.get(first) == 6).all()
    assert place(rlray.get(first)) == place(rlray.get(again)[0])
    del first
    rlray.get(maker.drop.remote())
    churn()
    assert (rlray.get(again)[0] == 6).all()


def test_an_actor_that_overwrites_its_own_buffer_returns_copies() -> None:
    maker = Maker.remote()
    refs = [maker.overwrite.remote(i) for i in range(5)]
    assert [int(array.min()) for array in rlray.get(refs)] == list(range(5))
    assert [int(array.max()) for array in rlray.get(refs)] == list(range(5))


def test_what_was_made_outlives_its_maker() -> None:
    maker = Maker.remote()
    refs = [maker.make.remote(i) for i in range(3)]
    array = rlray.get(refs[0])
    rlray.wait(refs, num_returns=3)
    os.kill(rlray.get(maker.pid.remote()), signal.SIGKILL)
    with pytest.raises(rlray.exceptions.RayActorError):
        rlray.get(maker.pid.remote())
    churn()
    assert (array == 0).all()
    assert [int(value[-1]) for value in rlray.get(refs)] == [0, 1, 2]


def test_a_result_that_cannot_be_pickled_leaks_nothing_of_the_others() -> None:
    maker = Maker.remote()
    for _ in range(6):
        with pytest.raises(TypeError, match="pickle"):
            rlray.get(maker.two.options(num_returns=2).remote(True))


def test_unused_arrays_are_freed() -> None:
    for _ in range(20):
        array = rlray.empty(30 * MB, np.uint8)
        array[0] = 1
        del array


def test_a_loop_asks_the_node_only_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that comes back is used again: neither making, nor putting, nor dropping takes a word with the node."""
    from rlray.core.engine import current

    client: Any = current()
    asked: list[str] = []
    before = client.values.extents._ask

    def ask(kind: str, *args: Any) -> Any:
        asked.append(kind)
        return before(kind, *args)

    monkeypatch.setattr(client.values.extents, "_ask", ask)
    places = set()
    for i in range(50):
        array = rlray.empty(4 * MB, np.uint8)
        array[0] = i
        ref = rlray.put(array)
        assert rlray.get(ref)[0] == i
        places.add(place(array))
        del array, ref
    assert len(asked) <= 5
    assert len(places) <= 5


def test_unused_memory_goes_back_to_the_node_after_a_while() -> None:
    from rlray.core.engine import current

    client: Any = current()
    rlray.put(np.ones(4 * MB, np.uint8))
    assert wait_until(lambda: not client.values.extents._extents, 10.0)

"""The allocator of the store against a slow oracle, and values through a real mapping."""

from __future__ import annotations

import os
import random
import weakref

import numpy as np
import pytest

from rlray.core import views
from rlray.core.local.store import PAGE, Arena, Extents, create_file, lay_out
from rlray.core.serialization import deserialize, serialize


class Keeper:
    """Something that an array can keep alive."""


class Pages:
    """The oracle: one extent per page, and for each extent those who hold it."""

    def __init__(self, count: int) -> None:
        self.owner: list[int | None] = [None] * (4 * count)  # addresses are more than may be taken
        self.touched: set[int] = set()
        self.holders: dict[int, set[int]] = {}

    @property
    def used(self) -> int:
        return sum(owner is not None for owner in self.owner)

    def longest_free_run(self) -> int:
        best = run = 0
        for owner in self.owner:
            run = run + 1 if owner is None else 0
            best = max(best, run)
        return best

    def take(self, extent: int, first: int, count: int, holder: int) -> None:
        assert self.owner[first : first + count] == [None] * count, "pages were given out twice"
        self.owner[first : first + count] = [extent] * count
        self.holders[extent] = {holder}
        self.touched |= set(range(first, first + count))

    def free(self, extent: int, holder: int) -> bool:
        had = bool(self.holders[extent])
        self.holders[extent].discard(holder)
        if not had or self.holders[extent]:
            return False
        self.owner = [None if owner == extent else owner for owner in self.owner]
        return True

    def hold(self, extent: int, holder: int) -> None:
        if self.holders[extent]:
            self.holders[extent].add(holder)


@pytest.mark.parametrize("seed", range(6))
def test_allocator_agrees_with_one_owner_per_page(seed: int) -> None:
    rng = random.Random(seed)
    pages = 64
    extents, oracle = Extents(pages * PAGE), Pages(pages)
    seen: list[int] = []
    for _ in range(2000):
        if rng.random() < 0.55:
            size = rng.randrange(1, 12 * PAGE)
            count = -(-size // PAGE)
            holder = rng.randrange(3)
            taken = extents.alloc(size, holder)
            if taken is None:
                assert oracle.used + count > pages or oracle.longest_free_run() < count, "there was room"
            else:
                extent, offset = taken
                assert offset % PAGE == 0
                oracle.take(extent, offset // PAGE, count, holder)
                seen.append(extent)
        elif seen:  # also extents that are gone already
            extent, holder = rng.choice(seen[-40:]), rng.randrange(3)
            if rng.random() < 0.2:
                extents.hold(extent, holder)
                oracle.hold(extent, holder)
            else:
                assert extents.free(extent, holder) == oracle.free(extent, holder)
        if rng.random() < 0.05:
            for offset, size in extents.trim():
                span = range(offset // PAGE, (offset + size) // PAGE)
                assert not any(oracle.owner[page] for page in span), "live pages would be given back"
                assert oracle.touched.issuperset(span), "pages given back that were never taken"
                oracle.touched -= set(span)
            assert oracle.touched == {page for page, owner in enumerate(oracle.owner) if owner is not None}
        extents.validate()
        assert extents.used == PAGE * oracle.used
        assert extents.resident == PAGE * len(oracle.touched)
        for holder in range(3):
            assert set(extents.held_by(holder)) == {e for e, holders in oracle.holders.items() if holder in holders}


def test_a_large_extent_finds_room_between_small_ones_that_stay() -> None:
    extents = Extents(64 * PAGE)
    taken = [extents.alloc(PAGE, holder=1) for _ in range(64)]
    assert extents.alloc(PAGE, holder=1) is None
    for extent in taken[::2]:
        assert extent is not None
        extents.free(extent[0], 1)
    assert extents.resident == 64 * PAGE
    assert extents.alloc(32 * PAGE, holder=1) is not None
    assert extents.resident == 96 * PAGE
    extents.trim()
    assert extents.resident == 64 * PAGE, "no more memory than was allowed"
    extents.validate()


def test_an_extent_that_is_gone_cannot_be_held_or_freed_again() -> None:
    extents = Extents(8 * PAGE)
    first = extents.alloc(PAGE, holder=1)
    assert first is not None
    assert extents.free(first[0], 1)
    second = extents.alloc(PAGE, holder=2)
    assert second is not None
    assert second[1] == first[1], "warm pages are used again"
    extents.hold(first[0], 9)
    assert not extents.free(first[0], 9)
    assert extents.held_by(2) == [second[0]]
    assert extents.held_by(9) == []


def test_values_survive_the_store_without_a_copy_and_hold_what_they_must() -> None:
    fd = create_file(1 << 24)
    arena = Arena(fd, 1 << 24)
    value = {
        "a": np.arange(100_000, dtype=np.float32).reshape(100, 1000),
        "b": [np.ones(7, np.int8), "text"],
        "c": np.zeros(0),
    }
    whole = serialize(value)
    spans, end = lay_out([buffer.nbytes for buffer in whole.buffers], PAGE)
    assert end <= 1 << 24
    for (offset, _), buffer in zip(spans, whole.buffers, strict=True):
        assert offset % 64 == 0
        arena.write(offset, buffer)
    head = (1 << 23, len(whole.data))
    arena.write(head[0], whole.data)

    keeper = Keeper()
    alive = weakref.ref(keeper)
    for parts in ((whole.data, *spans), (head, *spans)):
        data, buffers = arena.read(parts, keeper)
        back = deserialize(data, buffers)
        np.testing.assert_array_equal(back["a"], value["a"])
    del data, buffers, keeper
    np.testing.assert_array_equal(back["b"][0], value["b"][0])
    assert back["c"].shape == (0,)
    with pytest.raises(ValueError, match="read-only"):
        back["a"][0, 0] = 1.0
    view = back["a"][3:5, ::2]
    del back
    assert alive() is not None, "a view of a view keeps the extent"
    del view
    assert alive() is None, "nothing keeps it longer than the last view"
    os.close(fd)


def test_a_private_view_is_written_to_without_anybody_seeing_it() -> None:
    fd = create_file(1 << 20)
    arena = Arena(fd, 1 << 20)
    arena.write(PAGE + 64, bytes(range(200)) * 100)
    keeper = Keeper()
    alive = weakref.ref(keeper)
    _, [buffer] = arena.read((b"", (PAGE + 64, 20_000)), keeper)
    del keeper
    mine, other = views.writable(buffer), views.writable(buffer)
    assert bytes(mine) == bytes(range(200)) * 100
    mine[7:10] = b"abc"
    assert bytes(mine[6:11]) == b"\x06abc\x0a"
    assert bytes(buffer[6:11]) == bytes(other[6:11]) == bytes(range(6, 11))
    del buffer, other
    assert alive() is not None, "pages that were not written to still show the store"
    del mine
    assert alive() is None
    os.close(fd)


def test_without_a_mapping_left_a_private_view_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = create_file(1 << 20)
    arena = Arena(fd, 1 << 20)
    arena.write(0, b"a" * 10_000)
    _, [buffer] = arena.read((b"", (0, 10_000)), None)
    monkeypatch.setattr(views, "_mmap", lambda *_: views._FAILED)
    mine = views.writable(buffer)
    mine[0] = 0
    assert bytes(mine) == b"\0" + b"a" * 9_999
    assert bytes(buffer) == b"a" * 10_000
    os.close(fd)


def test_freed_pages_go_back_to_the_kernel() -> None:
    fd = create_file(1 << 26)
    arena = Arena(fd, 1 << 26)
    whole = serialize(np.ones(1 << 22, np.float64))
    arena.write(0, whole.buffers[0])
    before = os.fstat(fd).st_blocks
    assert before * 512 >= 1 << 25
    arena.give_back(0, 1 << 26)
    assert os.fstat(fd).st_blocks * 512 < 1 << 20
    os.close(fd)


@pytest.mark.parametrize("size", [(1 << 25) - 1, 1 << 25, (1 << 25) + 12_345])
def test_what_two_threads_copy_is_whole(size: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    target = bytearray(size)
    views.copy(memoryview(target), memoryview(source))
    np.testing.assert_array_equal(np.frombuffer(target, np.uint8), source)

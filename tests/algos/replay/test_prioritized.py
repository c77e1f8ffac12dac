"""Drawing by priority, against the oracle of what is held and the formulas of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlray.algos.replay import NStepReplay, Priorities, replay_bytes
from tests.algos.replay.world import DISCOUNT, World, assert_same, make_spec

ALL_ALIKE = Priorities(alpha=0.0)


def filled(capacity: int = 100, alpha: float = 0.5, plays: int = 4, **settings: Any) -> tuple[World, NStepReplay]:
    world = World(make_spec(), capacity, 1, seed=0)
    replay = NStepReplay(world.spec, capacity, 1, DISCOUNT, priorities=Priorities(alpha, **settings))
    for _ in range(plays):
        replay.add(world.play(0, 8, 2))
    return world, replay


def every(replay: NStepReplay, count: int = 4000) -> Any:
    """A batch in which each transition stands once."""
    batch = replay.sample(count, np.random.default_rng(0), beta=1.0)
    _, once = np.unique(batch.index, return_index=True)
    return batch, once


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_holds_and_gives_what_a_uniform_one_does(stack: int, seed: int) -> None:
    """Links, windows and forgetting are the same: with all priorities alike, each transition must come up too."""
    spec, rng = make_spec(stack), np.random.default_rng(seed)
    world = World(spec, 150, 3, seed)
    replay = NStepReplay(spec, 150, 3, DISCOUNT, priorities=ALL_ALIKE)
    for turn in range(80):
        stream, lost = int(rng.integers(2)), rng.random() < 0.1
        fragment = world.play(stream, int(rng.integers(1, 9)), 2, lost)
        if not lost:
            replay.add(fragment)
        if turn % 5 == 4:
            assert_same(world, replay, rng)
            drawn = replay.sample(64, rng)
            replay.update(drawn.index, rng.random(64))
    assert world.written > 2 * 150


def test_transitions_come_up_in_proportion_to_their_priority_to_the_power_of_alpha() -> None:
    _, replay = filled(alpha=0.5, floor=1e-9)
    batch, once = every(replay)
    index = batch.index[once]
    priority = np.random.default_rng(1).uniform(0.1, 9, len(index))
    replay.update(index, priority)
    share = np.sqrt(priority) / np.sqrt(priority).sum()
    count = 20_000
    drawn = replay.sample(count, np.random.default_rng(2))
    seen = np.array([(drawn.index == i).sum() for i in index])
    np.testing.assert_allclose(seen, count * share, atol=2)  # stratified: never more than a part at either end


def test_weights_are_those_of_section_3_4() -> None:
    _, replay = filled(alpha=0.7, floor=0.01)
    batch, once = every(replay)
    index = batch.index[once]
    priority = np.random.default_rng(1).uniform(0, 9, len(index))
    replay.update(index, priority)
    raised = dict(zip(index.tolist(), (priority + 0.01) ** 0.7, strict=True))
    for beta in (0.0, 0.4, 1.0):
        drawn = replay.sample(64, np.random.default_rng(3), beta=beta)
        part = np.array([raised[i] for i in drawn.index.tolist()]) / sum(raised.values())
        weight = (replay.eligible * part) ** -beta
        np.testing.assert_allclose(drawn.weight, weight / weight.max(), rtol=1e-5)
        assert drawn.weight.dtype == np.float32
    uniform = NStepReplay(make_spec(), 100)
    uniform.add(World(make_spec(), 100, 1, seed=0).play(0, 8, 2))
    assert (uniform.sample(8, np.random.default_rng(0), beta=0.4).weight == 1).all()


def test_every_part_of_the_sum_is_drawn_from_once() -> None:
    """Half of the sum on one transition: it is half of every batch, not only on average."""
    _, replay = filled(alpha=1.0, floor=1e-12)
    batch, once = every(replay)
    index = batch.index[once]
    others = len(index) - 1
    replay.update(index, np.r_[float(others), np.ones(others)])
    for seed in range(20):
        drawn = replay.sample(64, np.random.default_rng(seed))
        assert abs((drawn.index == index[0]).sum() - 32) <= 1


def test_new_transitions_have_the_greatest_priority_that_ever_was() -> None:
    world, replay = filled(alpha=1.0)
    batch, once = every(replay)
    assert len(set(batch.weight.tolist())) == 1
    old = batch.index[once]
    replay.update(old[:1], np.array([8.0]))
    replay.update(old, np.full(len(old), 2.0))  # nobody has 8 any more
    replay.add(world.play(0, 8, 2))
    drawn = replay.sample(40_000, np.random.default_rng(0), beta=0.0)
    index, count = np.unique(drawn.index, return_counts=True)
    new = ~np.isin(index, old)
    assert new.sum() >= 14
    np.testing.assert_allclose(count[new].mean() / count[~new].mean(), 4, rtol=0.01)


def test_priorities_may_come_with_the_fragment() -> None:
    """Some known and some not, with windows that end in the next fragment."""
    world = World(make_spec(), 400, 3, seed=4)
    replay = NStepReplay(world.spec, 400, 3, DISCOUNT, priorities=Priorities(alpha=1.0, floor=1e-9))
    expected: dict[bytes, float] = {}
    rng = np.random.default_rng(0)
    for _ in range(6):
        fragment = world.play(0, 8, 2)
        given = rng.uniform(0.5, 3, (8, 2)).astype(np.float32)
        given[rng.random((8, 2)) < 0.3] = np.nan
        given[~fragment.valid] = -7.0  # nobody looks there
        fragment.extras["priority"] = given
        replay.add(fragment)
        for t, b in np.argwhere(fragment.valid & ~np.isnan(given)):
            expected[fragment.obs[t, b].tobytes()] = float(given[t, b])
    drawn = replay.sample(2000, rng, beta=1.0)
    p = (1 / drawn.weight) / (1 / drawn.weight).max()  # weights undo the priorities
    known = [expected.get(obs.tobytes(), np.nan) for obs in drawn.s_tm1]
    scale = np.nanmedian(np.array(known) / p)
    np.testing.assert_allclose((p * scale)[~np.isnan(known)], np.array(known)[~np.isnan(known)], rtol=1e-4)
    unknown = (p * scale)[np.isnan(known)]
    assert len(unknown) > 100
    assert unknown.max() <= max(expected.values()) * (1 + 1e-4)
    assert unknown.min() >= 1 - 1e-4  # the greatest so far, and 1 before any


def test_late_priorities_do_not_hit_what_has_taken_their_place() -> None:
    world, replay = filled(capacity=60, alpha=1.0, plays=2)
    early = replay.sample(256, np.random.default_rng(0)).index
    for _ in range(4):  # the ring turns over
        replay.add(world.play(0, 8, 2))
    assert not np.isin(early, replay.sample(256, np.random.default_rng(0)).index).any()
    before = replay.state()["drawing"]["probability"].copy()
    replay.update(early, np.full(256, 1e6))
    replay.update(early + 10**9, np.full(256, 1e6))  # nor what was never given out
    np.testing.assert_array_equal(replay.state()["drawing"]["probability"], before)
    assert replay.state()["drawing"]["greatest"] == 1.0


def test_of_an_index_that_stands_twice_the_last_priority_holds() -> None:
    _, replay = filled(alpha=1.0, floor=1e-9)
    batch, once = every(replay)
    index = batch.index[once]
    replay.update(np.r_[index, index], np.r_[np.full(len(index), 7.0), np.arange(1, len(index) + 1)])
    held = replay.state()["drawing"]["probability"]
    np.testing.assert_allclose(held[index % replay.capacity], np.arange(1, len(index) + 1), rtol=1e-6)


def test_what_is_no_priority_is_refused() -> None:
    world, replay = filled()
    index = replay.sample(2, np.random.default_rng(0)).index
    for wrong in (-0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"priority must be finite and not negative, got .*absolute TD error"):
            replay.update(index, np.array([1.0, wrong]))
    fragment = world.play(0, 8, 2)
    held = len(replay)
    for given, message in (
        (np.ones(8, np.float32), r'fragment.extras\["priority"\] must be \[T, B\] = \[8, 2\], got \[8\]'),
        (np.full((8, 2), -1, np.float32), r"must be finite and not negative, got -1.0 \(and \d+ more"),
    ):
        fragment.extras["priority"] = given
        with pytest.raises(ValueError, match=message):
            replay.add(fragment)
    assert len(replay) == held  # and nothing was taken in
    for alpha, floor, message in ((1.1, 1e-6, "alpha must lie in 0 ... 1, got 1.1"), (1, 0, "floor must be more than")):
        with pytest.raises(ValueError, match=message):
            Priorities(alpha, floor)


def test_save_and_load_goes_on_the_same() -> None:
    world, replay = filled()
    rng = np.random.default_rng(0)
    replay.update(replay.sample(32, rng).index, rng.uniform(0, 5, 32))
    other = NStepReplay(world.spec, 100, 1, DISCOUNT, priorities=Priorities(0.5))
    other.load_state(replay.state())
    for turn in range(8):
        fragment = world.play(0, 8, 2)
        fragment.extras["priority"] = rng.uniform(0, 3, (8, 2)).astype(np.float32)
        drawn = []
        for each in (replay, other):
            each.add(fragment)
            drawn.append(each.sample(32, np.random.default_rng(turn), beta=0.5))
            each.update(drawn[-1].index, np.linspace(0, 6, 32))
        for name, array in vars(drawn[0]).items():
            np.testing.assert_array_equal(array, getattr(drawn[1], name))
    for wrong in (None, Priorities(0.6)):
        with pytest.raises(ValueError, match=r"the saved replay has alpha 0.5, this one (None|0.6)"):
            NStepReplay(world.spec, 100, 1, DISCOUNT, priorities=wrong).load_state(replay.state())


def test_what_priorities_cost_in_memory() -> None:
    spec = make_spec()
    assert replay_bytes(spec, 1000, prioritized=True) - replay_bytes(spec, 1000) == 1000 * 4 + 1024 * 16
    assert filled()[1].memory_bytes() == replay_bytes(spec, 100, prioritized=True)

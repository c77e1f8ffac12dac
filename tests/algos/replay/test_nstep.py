"""The ring of frames and its n-step transitions against the oracle."""

from __future__ import annotations

import os
import sys
import tracemalloc

import numpy as np
import pytest
from gymnasium import spaces

from rlray.algos.replay import NStepReplay, replay_bytes
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec
from tests.algos.replay.world import DISCOUNT, World, assert_same, make_spec


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("stack", "pad", "floats"), [(1, "zero", True), (4, "zero", False), (4, "repeat", False), (4, "repeat", True)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_the_oracle(n_step: int, stack: int, pad: str, floats: bool, seed: int) -> None:
    spec = make_spec(stack, pad, floats, box=floats)
    world = World(spec, capacity=150, n_step=n_step, seed=seed, clip=seed == 1)
    replay = NStepReplay(spec, 150, n_step, DISCOUNT, clip_reward=seed == 1)
    rng = np.random.default_rng(seed)
    alive, next_stream, most = [0, 1], 2, 0
    widths: dict[int, int] = {}
    for turn in range(120):
        if rng.random() < 0.1:  # a simulator is killed and replaced
            alive[rng.integers(2)], next_stream = next_stream, next_stream + 1
        stream = alive[rng.integers(2)]
        lost = rng.random() < 0.1
        columns = widths.setdefault(stream, int(rng.integers(1, 4)))
        fragment = world.play(stream, int(rng.integers(1, 9)), columns, lost)
        if not lost:
            replay.add(fragment)
        if turn % 5 == 4:
            most = max(most, assert_same(world, replay, rng))
    assert world.written > 2 * 150
    assert most > 50


def test_a_starved_stream_does_not_hang_on_to_what_was_overwritten() -> None:
    spec = make_spec(stack=4)
    world, rng = World(spec, 60, 3, seed=5), np.random.default_rng(0)
    replay = NStepReplay(spec, 60, 3, DISCOUNT)
    for round_ in range(6):
        replay.add(world.play(0, 4, 2))
        for _ in range(round_ + 1):  # from the third round on the ring has turned before stream 0 goes on
            replay.add(world.play(1, 8, 2))
            assert_same(world, replay, rng)


@pytest.mark.parametrize("seed", range(8))
def test_a_tiny_ring_agrees_too(seed: int) -> None:
    """Its edge falls into every possible place: within a row, between steps and their final observations."""
    spec, rng = make_spec(stack=4), np.random.default_rng(seed)
    capacity = int(rng.integers(18, 30))
    world, replay = World(spec, capacity, 2, seed), NStepReplay(spec, capacity, 2, DISCOUNT)
    for _ in range(60):
        replay.add(world.play(int(rng.integers(2)), int(rng.integers(1, 4)), 3))
        assert_same(world, replay, rng)


def test_nothing_is_linked_over_an_end_even_without_its_first_flag() -> None:
    spec = make_spec(stack=4)
    world, replay = World(spec, 400, 1, seed=3), NStepReplay(spec, 400, 1, DISCOUNT)
    for _ in range(20):
        fragment = world.play(0, 8, 2)
        fragment.first[1:] = False  # said by the end before it
        replay.add(fragment)
        assert_same(world, replay, world.rng)
    fragment = world.play(0, 8, 2)
    fragment.first[:] = False  # the first row's is now unknown: a gap, never a wrong stack
    replay.add(fragment)
    held = world.transitions()
    batch = replay.sample(1000, world.rng)
    assert all(seen.tobytes() in held for seen in batch.s_tm1)


def test_dead_streams_are_forgotten() -> None:
    spec = make_spec()
    world, replay = World(spec, 50, 1, seed=0), NStepReplay(spec, 50)
    for stream in range(200):
        replay.add(world.play(stream, 2, 2))
    assert len(replay.state()["streams"]) <= 50 // 4 + 1
    assert replay.fill == 1.0


def test_every_eligible_transition_is_equally_likely() -> None:
    spec = make_spec()
    for capacity, plays in ((100, 30), (400, 3)):  # drawn by rejection, and from the list
        world, replay = World(spec, capacity, 3, seed=2), NStepReplay(spec, capacity, 3)
        for k in range(plays):
            replay.add(world.play(0 if plays == 30 else k, 4, 9))
        if plays == 3:
            assert 2 * replay.eligible < len(replay)
        count = replay.eligible
        batch = replay.sample(400 * count, np.random.default_rng(0))
        _, seen = np.unique(batch.s_tm1.reshape(len(batch.r_t), -1), axis=0, return_counts=True)
        assert len(seen) == count
        assert abs(seen - 400).max() < 6 * 20  # six standard deviations


def test_sampling_fills_the_given_arrays() -> None:
    spec = make_spec(stack=4)
    world, replay = World(spec, 100, 1, seed=0), NStepReplay(spec, 100)
    replay.add(world.play(0, 20, 2))
    batch = replay.make_batch(8)
    assert replay.sample(8, np.random.default_rng(1), out=batch) is batch
    fresh = replay.sample(8, np.random.default_rng(1))
    for name, array in vars(fresh).items():
        np.testing.assert_array_equal(array, getattr(batch, name))


@pytest.mark.parametrize("dummy", [False, True])
def test_a_frame_crosses_memory_once(dummy: bool) -> None:
    """Taking a fragment in makes no copy of its frames beside the one in the ring."""
    space = spaces.Box(0, 255, (64, 64), np.uint8)
    replay = NStepReplay(EnvSpec("Big-v0", space, spaces.Discrete(2)), 300)
    shape, ends = (64, 4), np.zeros((64, 4), np.bool_)
    valid = ~ends
    valid[5, 1] = not dummy
    fragment = Fragment(
        stream=0, sequence=0, obs=np.ones((*shape, 64, 64), np.uint8), first=ends, action=np.zeros(shape, np.int64),
        reward=np.zeros(shape, np.float32), terminated=ends, truncated=ends, valid=valid,
        final_index=np.zeros((0, 2), np.int64), final_obs=np.zeros((0, 64, 64), np.uint8),
        last_obs=np.zeros((4, 64, 64), np.uint8),
    )  # fmt: skip
    tracemalloc.start()
    replay.add(fragment)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < fragment.obs.nbytes / 4
    assert len(replay) == 256 - dummy


def test_save_and_load_goes_on_the_same() -> None:
    spec = make_spec(stack=4)
    world, replay = World(spec, 100, 3, seed=0), NStepReplay(spec, 100, 3, DISCOUNT)
    for _ in range(8):
        replay.add(world.play(0, 8, 2))
    other = NStepReplay(spec, 100, 3, DISCOUNT)
    other.load_state(replay.state())
    for _ in range(3):
        fragment = world.play(0, 8, 2)
        for each in (replay, other):
            each.add(fragment)
            assert_same(world, each, np.random.default_rng(0))
    with pytest.raises(ValueError, match="n_step 3, this one 1"):
        NStepReplay(spec, 100, 1).load_state(replay.state())


def test_a_million_pong_frames_take_7_gigabytes_and_none_at_start() -> None:
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    spec = EnvSpec("Pong", space, spaces.Discrete(6), frame_stack=4)
    assert 7.0e9 < replay_bytes(spec, 1_000_000) < 7.2e9
    if not sys.platform.startswith("linux"):
        pytest.skip("resident memory is read from /proc")

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    replay = NStepReplay(spec, 1_000_000)
    assert resident() - before < 50e6
    assert replay.memory_bytes() == replay_bytes(spec, 1_000_000)


def test_rejects_what_does_not_fit() -> None:
    spec = make_spec()
    world, replay = World(spec, 10, 1, seed=0), NStepReplay(spec, 10)
    with pytest.raises(ValueError, match="does not fit a replay of capacity 10"):
        replay.add(world.play(0, 20, 1))
    with pytest.raises(ValueError, match=r"must be \[T, B, \*frame_shape\] = \[2, 1, 2, 2\] for Test-v0"):
        replay.add(World(make_spec(floats=True), 10, 1, seed=0).play(0, 2, 1))
    broken = world.play(1, 8, 1)
    broken.truncated[0], broken.valid[0] = True, True
    broken.final_index, broken.final_obs = broken.final_index[:0], broken.final_obs[:0]
    with pytest.raises(ValueError, match="final_index must list every ended step"):
        replay.add(broken)
    for arguments, message in (((1,), "capacity"), ((10, 0), "n_step"), ((10, 1, 1.5), "discount")):
        with pytest.raises(ValueError, match=message):
            NStepReplay(spec, *arguments)
    with pytest.raises(TypeError, match="the observation space of T is Dict"):
        replay_bytes(EnvSpec("T", spaces.Dict(), spaces.Discrete(2)), 10)

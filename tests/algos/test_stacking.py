"""Stacks made again from single frames, against the observations that the environment gave."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from gymnasium import spaces

from rlray.algos.stacking import Stacker
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec

STEPS, ENVS, DEPTH = 23, 3, 4


def played(pad: str, seed: int) -> tuple[EnvSpec, np.ndarray, np.ndarray, Fragment]:
    """A long fragment of random frames, with the whole observations and the whole last ones beside it."""
    rng = np.random.default_rng(seed)
    spec = EnvSpec("X", spaces.Box(0, 255, (DEPTH, 2, 2), np.uint8), spaces.Discrete(2), frame_stack=DEPTH, pad=pad)
    frames = rng.integers(1, 255, (STEPS + 1, ENVS, 2, 2), np.uint8)
    ended = rng.random((STEPS, ENVS)) < 0.2
    first = np.concatenate([np.ones((1, ENVS), np.bool_), ended])
    obs = np.zeros((STEPS + 1, ENVS, DEPTH, 2, 2), np.uint8)
    for t in range(STEPS + 1):
        for b in range(ENVS):
            if first[t, b]:
                obs[t, b] = frames[t, b] if pad == "repeat" else 0
                obs[t, b, -1] = frames[t, b]
            else:
                obs[t, b, :-1], obs[t, b, -1] = obs[t - 1, b, 1:], frames[t, b]
    index = np.argwhere(ended)
    last_frames = rng.integers(1, 255, (len(index), 2, 2), np.uint8)
    finals = np.stack(
        [np.concatenate([obs[t, b, 1:], last[None]]) for (t, b), last in zip(index, last_frames, strict=True)]
    )
    no = np.zeros((STEPS, ENVS), np.bool_)
    fragment = Fragment(
        stream=3, sequence=0, obs=frames[:-1], first=first[:-1], action=no, reward=no.astype(np.float32),
        terminated=ended, truncated=no, valid=~no, final_index=index, final_obs=last_frames, last_obs=obs[-1],
    )  # fmt: skip
    return spec, obs[:-1], finals, fragment


def cut(fragment: Fragment, begin: int, end: int) -> Fragment:
    inside = (fragment.final_index[:, 0] >= begin) & (fragment.final_index[:, 0] < end)
    return replace(
        fragment,
        obs=fragment.obs[begin:end],
        first=fragment.first[begin:end],
        final_index=fragment.final_index[inside] - [begin, 0],
        final_obs=fragment.final_obs[inside],
    )


@pytest.mark.parametrize("pad", ["zero", "repeat"])
@pytest.mark.parametrize("seed", range(4))
def test_observations_are_those_that_the_policy_saw_across_fragments(pad: str, seed: int) -> None:
    spec, obs, finals, whole = played(pad, seed)
    stacker, seen, ends = Stacker(spec), [], []
    bounds = [0, 1, 2, 9, 10, STEPS]
    for begin, end in pairwise(bounds):
        if begin == 9:  # what a resume does
            state = stacker.state()
            stacker = Stacker(spec)
            stacker.load_state(state)
        made, last = stacker.observations(cut(whole, begin, end))
        seen.append(made)
        ends.append(last)
    np.testing.assert_array_equal(np.concatenate(seen), obs)
    np.testing.assert_array_equal(np.concatenate(ends), finals)


def test_without_stacked_frames_nothing_is_copied() -> None:
    _, _, _, fragment = played("zero", 0)
    spec = EnvSpec("X", spaces.Box(0, 255, (2, 2), np.uint8), spaces.Discrete(2))
    obs, finals = Stacker(spec).observations(fragment)
    assert obs is fragment.obs
    assert finals is fragment.final_obs

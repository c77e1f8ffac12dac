"""What a learner saves: all of it, and only what a file can hold. Going on from it is bit for bit the same."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlray.algos import Fragment, LearnerContext, get_algorithm
from rlray.algos.dqn.learner import DQNLearner
from rlray.envs.types import EnvSpec
from rlray.train.checkpoint import load_checkpoint, save_checkpoint
from rlray.train.state_tree import put_together, take_apart
from tests.algos.dqn.switches import RAINBOW, subsets, with_switches
from tests.algos.toys import Catch, Corridor, Toy, fragments

DQN = get_algorithm("dqn")
SETTINGS: dict[str, Any] = {
    "network": {"kind": "mlp", "hidden": [12, 8]}, "batch_size": 8, "samples_per_step": 2, "warmup_steps": 60,
    "replay_capacity": 150, "learning_rate": {"points": [[0, 1e-2], [1, 0]], "of": "run"}, "target_update_every": 3,
}  # fmt: skip
PICTURES = {**SETTINGS, "network": {"kind": "conv", "filters": 8, "kernels": 3, "strides": 1, "hidden": 16}}


def make(settings: dict[str, Any], seed: int, spec: EnvSpec = Corridor.spec) -> DQNLearner:
    learner = DQN.make_learner(spec, DQN.config.model_validate(settings), LearnerContext("cpu", seed, 1000))
    assert isinstance(learner, DQNLearner)
    return learner


def play(env: Toy, count: int) -> list[Fragment]:
    policy = DQN.make_policy(env.spec, DQN.config.model_validate(PICTURES if isinstance(env, Catch) else SETTINGS))
    return list(itertools.islice(fragments(env, policy, np.random.default_rng(0), 6), count))


PARTS = play(Corridor(4), 20)  # 480 steps: the ring has turned over more than once when half of them are in


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint does it, arrays copied."""
    tree, arrays = take_apart(state)
    copied = {name: array.copy() for name, array in arrays.items()}
    found: dict[str, Any] = put_together(json.loads(json.dumps(tree, allow_nan=False)), copied)
    return found


def assert_goes_on_the_same(first: DQNLearner, second: DQNLearner, parts: list[Fragment], saved: Any) -> None:
    """``first`` goes on by itself, ``second`` from what ``saved`` returns, and every number is the same."""
    state = saved(first.state())
    without = [first.learn(fragment) for fragment in parts]
    second.load_state(state)
    assert [second.learn(fragment) for fragment in parts] == without
    assert sum(metrics["updates"] for metrics in without) > 20
    one, other = through_json(first.state()), through_json(second.state())
    assert_same(one, other)
    assert_same(dict(first.weights()), dict(second.weights()))


def assert_same(one: Any, other: Any, at: str = "state") -> None:
    assert type(one) is type(other), at
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            assert_same(one[key], other[key], f"{at}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), at
        for k, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, at=f"{at}/{k}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, err_msg=at)
    else:
        assert one == other, at


@pytest.mark.parametrize("switches", [s for _, s in subsets()], ids=[name for name, _ in subsets()])
def test_every_subset_goes_on_bit_for_bit(switches: dict[str, Any]) -> None:
    """A then B, against A, saved, loaded into a fresh learner of another seed, then B."""
    settings = with_switches(SETTINGS, switches)
    first = make(settings, seed=1)
    for fragment in PARTS[:10]:
        first.learn(fragment)
    assert_goes_on_the_same(first, make(settings, seed=2), PARTS[10:], through_json)


def test_rainbow_from_pictures_goes_on_from_a_file(tmp_path: Path) -> None:
    """With stacked frames, the normalisation of pixels, and files."""
    settings, parts = with_switches(PICTURES, RAINBOW), play(Catch(4), 24)
    first = make(settings, 1, Catch.spec)
    for fragment in parts[:12]:
        first.learn(fragment)

    def saved(state: dict[str, Any]) -> dict[str, Any]:
        return load_checkpoint(save_checkpoint(tmp_path / "step_1", {"learner": state}))["learner"]

    assert_goes_on_the_same(first, make(settings, 2, Catch.spec), parts[12:], saved)


class Forgetful(nn.Module):
    """Draws from torch's own generator."""

    def __init__(self, spec: EnvSpec, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, 8), nn.Dropout(0.5), nn.Linear(8, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_what_a_network_of_ones_own_draws_goes_on_too() -> None:
    settings = {**SETTINGS, "network": f"{__name__}:Forgetful"}
    first = make(settings, seed=1)
    for fragment in PARTS[:10]:
        first.learn(fragment)
    assert_goes_on_the_same(first, make(settings, seed=2), PARTS[10:], through_json)


def test_before_the_warm_up_too() -> None:
    settings = with_switches(SETTINGS, RAINBOW)
    first = make(settings, seed=1)
    first.learn(PARTS[0])
    assert_goes_on_the_same(first, make(settings, seed=2), PARTS[1:], through_json)


def test_without_its_replay_a_state_warms_up_again() -> None:
    first, second = make(SETTINGS, seed=1), make(SETTINGS, seed=2)
    for fragment in PARTS[:10]:
        first.learn(fragment)
    state = first.state()
    del state["replay"]
    second.load_state(through_json(state))
    assert_same(dict(first.weights()), dict(second.weights()))
    counts = [second.learn(fragment)["updates"] for fragment in PARTS[10:]]
    assert counts[0] == counts[1] == 0
    assert counts[-1] == 6
    assert second._updater.updates == first._updater.updates + sum(counts)


def test_the_frames_are_not_copied_into_the_state() -> None:
    learner = make(SETTINGS, seed=1)
    for fragment in PARTS[:10]:
        learner.learn(fragment)
    state = learner.state()["replay"]
    assert state["at"].keys() == learner._replay._at.keys()
    for name, array in state["at"].items():
        assert np.shares_memory(array, learner._replay._at[name]), name
    _, arrays = take_apart(state)
    assert any(np.shares_memory(array, learner._replay._at["frame"]) for array in arrays.values())


def test_what_was_loaded_is_not_shared() -> None:
    first, second = make(with_switches(SETTINGS, RAINBOW), 1), make(with_switches(SETTINGS, RAINBOW), 2)
    for fragment in PARTS[:10]:
        first.learn(fragment)
    state = through_json(first.state())
    second.load_state(state)
    for fragment in PARTS[10:]:
        second.learn(fragment)
    assert_same(state, through_json(first.state()))


def test_a_replay_made_with_other_settings_is_refused() -> None:
    first, other = make(SETTINGS, seed=1), make({**SETTINGS, "discount": 0.9}, seed=1)
    for fragment in PARTS[:4]:
        first.learn(fragment)
    with pytest.raises(ValueError, match=r"the saved replay has discount 0.99, this one 0.9: .* without the saved"):
        other.load_state(first.state())

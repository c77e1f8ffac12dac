"""Sequences are cut, joined and looked at without an episode's end ever going astray."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rlray.algos import Fragment, get_algorithm
from rlray.algos.actor_critic import ActorCritic
from rlray.algos.policy_gradient.intake import Intake
from rlray.algos.policy_gradient.policy import make_network
from rlray.algos.policy_gradient.sequences import Sequences, end_to_end, side_by_side, unroll
from tests.algos.toys import Catch, Endings, Toy, fragments

ALGORITHM = get_algorithm("impala")
SMALL = {"network": {"kind": "conv", "filters": 4, "kernels": 3, "strides": 1, "hidden": 8}}
MLP = {"network": {"kind": "mlp", "hidden": 8}}


def played(env: Toy, settings: dict[str, Any], count: int, length: int = 7) -> tuple[ActorCritic, list[Fragment]]:
    config = ALGORITHM.config.model_validate(settings)
    policy = ALGORITHM.make_policy(env.spec, config)
    found = list(itertools.islice(fragments(env, policy, np.random.default_rng(0), length), count))
    return make_network(env.spec, config, "impala", seed=1)[0], found


def sequences(env: Toy, settings: dict[str, Any], parts: list[Fragment]) -> list[Sequences]:
    intake = Intake(env.spec, ALGORITHM.config.model_validate(settings))
    return [Sequences.of(part, intake.take(part)) for part in parts]


@pytest.mark.parametrize(("env", "settings"), [(Endings(5), MLP), (Catch(5), SMALL)], ids=["vectors", "pictures"])
def test_the_value_of_what_really_came_next(env: Toy, settings: dict[str, Any]) -> None:
    """One observation at a time, without any knowledge of how they lie in memory."""
    network, parts = played(env, settings, 2)
    fragment, batch = parts[1], sequences(env, settings, parts)[1]
    found = unroll(network, batch)
    finals = {(int(t), int(b)): k for k, (t, b) in enumerate(fragment.final_index)}
    assert len(finals) > 3
    with torch.no_grad():
        for t, b in itertools.product(range(7), range(5)):
            outputs, value, _ = network(batch.obs[t, b][None, None])
            torch.testing.assert_close(found.outputs[t, b], outputs[0, 0])
            torch.testing.assert_close(found.value[t, b], value[0, 0])
            following = batch.obs[t + 1, b] if t < 6 else batch.last_obs[b]
            if (t, b) in finals:
                following = batch.finals[finals[t, b]]
            torch.testing.assert_close(found.next_value[t, b], network.value(following[None])[0])
    assert found.value.requires_grad
    assert not found.next_value.requires_grad


def test_some_sequences_of_several_fragments() -> None:
    """Whatever is chosen, each sequence says the same as within its own fragment."""
    network, parts = played(Endings(4), MLP, 3)
    apart = sequences(Endings(4), MLP, parts)
    whole = side_by_side(apart)
    assert len(whole) == 12
    said = torch.cat([unroll(network, part).next_value for part in apart], dim=1)
    torch.testing.assert_close(unroll(network, whole).next_value, said)
    chosen = torch.tensor([11, 0, 5, 4])
    some = whole.at(chosen)
    assert len(some) == 4
    torch.testing.assert_close(unroll(network, some).next_value, said[:, chosen])
    for name in ("obs", "action", "log_prob", "reward", "terminated", "truncated", "valid"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[:, chosen]), name
    assert torch.equal(some.last_obs, whole.last_obs[chosen])
    assert len(some.finals) == int((some.terminated | some.truncated).sum()) < len(whole.finals)


def test_fragments_that_follow_each_other_are_one_sequence() -> None:
    """As one long fragment would have been: also what came next where one of them ended."""
    network, parts = played(Endings(4), MLP, 3)
    (long,) = played(Endings(4), MLP, 1, length=21)[1]
    joined, (whole,) = end_to_end(sequences(Endings(4), MLP, parts)), sequences(Endings(4), MLP, [long])
    for name, tensor in vars(whole).items():
        assert torch.equal(getattr(joined, name), tensor), name
    torch.testing.assert_close(unroll(network, joined).next_value, unroll(network, whole).next_value)


def test_single_steps_are_those_that_are_valid() -> None:
    network, (fragment,) = played(Endings(4), MLP, 1)
    fragment.valid[2, 1] = fragment.valid[0, 3] = False
    (batch,) = sequences(Endings(4), MLP, [fragment])
    steps = batch.single_steps()
    assert len(steps) == 7 * 4 - 2
    for name in ("obs", "action", "log_prob", "reward", "terminated", "truncated", "valid"):
        assert torch.equal(getattr(steps, name)[0], getattr(batch, name)[batch.valid]), name
    chosen = torch.tensor([20, 3, 4])
    said = unroll(network, steps.at(chosen), ahead=False)
    torch.testing.assert_close(said.value[0], unroll(network, batch).value[batch.valid][chosen])
    assert said.next_value is None


def test_read_only_memory_is_copied_and_rewards_are_scaled() -> None:
    _, (fragment,) = played(Endings(4), MLP, 1)
    frozen = {name: array.copy() for name, array in vars(fragment).items() if isinstance(array, np.ndarray)}
    for array in frozen.values():
        array.setflags(write=False)
    (batch,) = sequences(Endings(4), {**MLP, "scale_reward": 0.5}, [replace(fragment, **frozen)])
    np.testing.assert_array_equal(batch.reward.numpy(), fragment.reward * np.float32(0.5))
    batch.obs.zero_()
    assert frozen["obs"].any()

"""Recurrent networks: what is said along sequences is what is said step by step, whatever begins and ends in them."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import ValidationError
from torch import Tensor

from rlray.algos import Fragment, LearnerContext, Policy, get_algorithm
from rlray.algos.actor_critic import ActorCritic
from rlray.algos.advantages import Ends, gae
from rlray.algos.network_config import NetworkConfig
from rlray.algos.policy_gradient.intake import Intake
from rlray.algos.policy_gradient.policy import MEMORY, VALUE
from rlray.algos.policy_gradient.sequences import Sequences, side_by_side, unroll
from rlray.algos.recurrent import Course
from rlray.algos.types import RecurrentPolicy, StatefulPolicy
from rlray.envs.types import EnvSpec
from tests.algos.toys import Catch, Corridor, Endings, Idle, Recall, Toy, Waiting, fragments, mean_return

CELLS = pytest.mark.parametrize("cell", ["lstm", "gru"])
ALL = pytest.mark.parametrize("name", ["ppo", "impala", "appo"])
CONV: dict[str, Any] = {"kind": "conv", "filters": 4, "kernels": 3, "strides": 1, "hidden": 8, "input_norm": "divide"}


def settings_of(cell: str | None, **settings: Any) -> dict[str, Any]:
    size = {"recurrent": cell, "recurrent_size": 6} if cell else {}
    return {"network": {"kind": "mlp", "hidden": 8, "activation": "tanh", **size}, **settings}


def both(name: str, env: Toy, settings: dict[str, Any], seed: int = 0, steps: int = 1000) -> tuple[Policy, Any]:
    """A policy and a learner with the same weights."""
    algorithm = get_algorithm(name)
    config = algorithm.config.model_validate(settings)
    policy = algorithm.make_policy(env.spec, config)
    learner = algorithm.make_learner(env.spec, config, LearnerContext("cpu", seed, steps))
    policy.load(learner.weights())
    return policy, learner


def play(env: Toy, policy: Policy, count: int, length: int, seed: int = 0) -> list[Fragment]:
    return list(itertools.islice(fragments(env, policy, np.random.default_rng(seed), length), count))


def step_by_step(network: ActorCritic, batch: Sequences) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, values and values of the true next observations, one observation of one environment at a time."""
    finals = {(int(t), int(b)): final for (t, b), final in zip(batch.final_index, batch.finals, strict=True)}
    outputs, values, following = ([[None] * len(batch) for _ in batch.valid] for _ in range(3))
    for b in range(len(batch)):
        memory = batch.memory[b][None]
        for t in range(len(batch.valid)):
            if batch.first[t, b]:
                memory = torch.zeros_like(memory)
            said = network(batch.obs[t, b][None, None], memory)
            memory = said.memory
            after = finals.get((t, b), batch.obs[t + 1, b] if t + 1 < len(batch.valid) else batch.last_obs[b])
            outputs[t][b], values[t][b] = said.outputs[0, 0], network.value_norm(said.value[0, 0])
            following[t][b] = network.value(after[None], memory)[0].detach()
    return tuple(torch.stack([torch.stack(row) for row in rows]) for rows in (outputs, values, following))


def sequences(env: Toy, settings: dict[str, Any], parts: list[Fragment]) -> list[Sequences]:
    intake = Intake(env.spec, get_algorithm("impala").config.model_validate(settings))
    return [Sequences.of(part, intake.take(part)) for part in parts]


@CELLS
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("env", [Endings, Waiting, Idle])
def test_unrolled_it_says_what_it_says_step_by_step(env: type[Toy], shared: bool, cell: str) -> None:
    """Numbers and gradients, across ends of both kinds, steps that are not valid, and the fragments' own ends."""
    settings = settings_of(cell, shared=shared)
    policy, learner = both("impala", env(5), settings)
    batch = sequences(env(5), settings, play(env(5), policy, 3, 7))[2]
    assert all(bool(some.any()) for some in (batch.truncated, batch.terminated, batch.memory))
    network, gradients = learner._network, []
    found, expected = unroll(network, batch), step_by_step(network, batch)
    keep = batch.valid
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[keep], other[keep], atol=1e-6, rtol=1e-5)
    for outputs, value, _ in (found, expected):
        network.zero_grad()
        (outputs[keep].square().sum() + value[keep].sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not found.next_value.requires_grad


@CELLS
def test_sequences_of_other_lengths_and_some_of_them_say_the_same(cell: str) -> None:
    """Zeros stand before the shorter ones: what is remembered is from where they begin."""
    settings = settings_of(cell)
    policy, learner = both("impala", Corridor(3), settings)
    long, short = (play(Corridor(envs), policy, 2, length) for envs, length in ((3, 11), (2, 6)))
    apart = [sequences(Corridor(3), settings, part)[1] for part in (long, short)]
    assert all(part.memory.any() for part in apart)
    whole = unroll(learner._network, side_by_side(apart))
    for part, columns, begin in ((apart[0], slice(0, 3), 0), (apart[1], slice(3, 5), 5)):
        for one, other in zip(whole, step_by_step(learner._network, part), strict=True):
            torch.testing.assert_close(one[begin:, columns], other, atol=1e-6, rtol=1e-5)
    chosen = torch.tensor([4, 0])
    some = unroll(learner._network, side_by_side(apart).at(chosen))
    torch.testing.assert_close(some.next_value[5:], whole.next_value[5:, chosen])


@CELLS
@pytest.mark.parametrize("env", [Endings, Waiting])
def test_ppo_learns_from_what_was_remembered_where_values_are_asked_for(env: type[Toy], cell: str) -> None:
    """Its advantages are those of values that were found step by step; its network says what the policy said."""
    settings = settings_of(cell, rollout_steps=10_000)
    policy, learner = both("ppo", env(4), settings)
    parts = play(env(4), policy, 2, 9) + play(env(3), policy, 1, 6)
    for part in parts:
        learner.learn(part)
    rollout = learner._builder.take()
    assert int(rollout.valid.sum()) == sum(part.steps for part in parts)
    assert rollout.valid.shape == (11, 9)
    said = learner._network(rollout.obs.transpose(0, 1), rollout.memory, Course(rollout.first.T))
    values = learner._network.value_norm(said.value).T
    torch.testing.assert_close(values[rollout.valid], rollout.value[rollout.valid], atol=1e-6, rtol=1e-5)
    begin = 0
    for part, batch in zip(parts, sequences(env(4), settings, parts), strict=True):
        *_, following = step_by_step(learner._network, batch)
        ends = Ends(batch.terminated, batch.truncated, batch.valid)
        expected, _ = gae(batch.reward, torch.from_numpy(part.extras[VALUE]), following, ends, 0.99, 0.95)
        found = rollout.advantage[begin : begin + len(batch), : len(part.valid)]
        torch.testing.assert_close(found.T[batch.valid], expected[batch.valid], atol=1e-5, rtol=1e-5)
        begin += len(batch)


class Glimpse(Catch):
    """`Catch`, of which only the newest frame is shown."""

    spec = EnvSpec("Glimpse-v0", spaces.Box(0, 255, (1, 6, 6), np.uint8), spaces.Discrete(3))

    def look(self, state: dict[str, int]) -> np.ndarray:
        return super().look(state)[1:]


@ALL
@pytest.mark.parametrize(("cell", "env", "network"), [("lstm", Corridor, {}), ("gru", Glimpse, CONV)])
def test_before_an_update_the_learner_agrees_with_who_acted(
    name: str, cell: str, env: type[Toy], network: dict[str, Any]
) -> None:
    settings = settings_of(cell, rollout_steps=1000, minibatch_size=1000, epochs=1)
    settings["network"] |= network
    policy, learner = both(name, env(4), settings)
    learner._network.actor[1].weight.data.mul_(300)  # so that what is remembered decides
    policy.load(learner.weights())
    played, metrics = play(env(4), policy, 10, 25), {}
    for part in played:
        metrics |= learner.learn(part)
    assert metrics["updates"] == 1
    assert metrics["approx_kl"] < 1e-9
    _, confused = both(name, env(4), settings)
    confused._network.load_state_dict(policy._network.state_dict())
    for part in played:
        part.extras[MEMORY][0] = 0.0
        metrics |= confused.learn(part)
    assert metrics["approx_kl"] > 1e-5, "what was remembered must matter"


@ALL
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_same_seed_twice_and_a_state_that_is_all_there_is(name: str, cell: str) -> None:
    """Also with fragments that have not been learned from: at 3 a round has begun."""
    settings = settings_of(cell, rollout_steps=64, minibatch_size=32, epochs=2)
    policy, straight = both(name, Corridor(4), settings)
    (_, again), (_, begun), (_, resumed), (_, other) = (
        both(name, Corridor(4), settings, seed) for seed in (0, 0, 0, 1)
    )
    played = play(Corridor(4), policy, 6, 8)
    for learner, parts in ((straight, played), (again, played), (begun, played[:3]), (other, played)):
        for part in copy.deepcopy(parts):
            learner.learn(part)
    resumed.load_state(copy.deepcopy(begun.state()))
    for part in copy.deepcopy(played[3:]):
        resumed.learn(part)
    one, *same, another = (learner.weights() for learner in (straight, again, resumed, other))
    for weights in same:
        assert all(np.array_equal(weights[key], one[key]) for key in one)
    assert not all(np.array_equal(another[key], one[key]) for key in one)


@CELLS
def test_a_policy_remembers_until_an_episode_begins_and_its_state_is_that_memory(cell: str) -> None:
    policy, _ = both("ppo", Endings(3), settings_of(cell))
    assert isinstance(policy, RecurrentPolicy)
    assert isinstance(policy, StatefulPolicy)
    obs, rng, none = np.eye(6, dtype=np.float32)[:3], np.random.default_rng(0), np.zeros(3, np.bool_)
    empty = policy.state()
    with pytest.raises(RuntimeError, match=r"call begin\(first\) before act"):
        policy.act(obs, 0, rng)
    with pytest.raises(RuntimeError, match=r"call begin\(first\) before act"):
        policy.begin(none)

    def step(first: np.ndarray) -> dict[str, np.ndarray]:
        policy.begin(first)
        return policy.act(obs, 0, rng)[1]

    fresh, later, state = step(~none), step(none), copy.deepcopy(policy.state())
    assert not fresh[MEMORY].any()
    assert (later[VALUE] != fresh[VALUE]).all()
    mixed = step(np.array([True, False, False]))
    assert mixed[VALUE][0] == pytest.approx(fresh[VALUE][0])
    assert (mixed[VALUE][1:] != later[VALUE][1:]).all()
    policy.load_state(state)
    np.testing.assert_array_equal(step(np.array([True, False, False]))[VALUE], mixed[VALUE])
    policy.load_state(empty)
    with pytest.raises(RuntimeError, match="before act"):
        policy.act(obs, 0, rng)
    policy.begin(~none)
    with pytest.raises(ValueError, match="about 2 environments, but episodes of 3 are remembered"):
        policy.begin(none[:2])
    policy.begin(~none[:2])
    policy.begin(none[:2])
    assert len(policy.act_greedy(obs[:2])) == 2


@pytest.mark.parametrize("name", ["dqn", "apex", "pqn", "sac"])
def test_who_learns_from_single_steps_refuses_it(name: str) -> None:
    with pytest.raises(ValidationError, match=r"network\.recurrent: gru is not for this .*use ppo, impala or appo"):
        get_algorithm(name).config.model_validate({"network": {"kind": "mlp", "recurrent": "gru"}})


def test_who_makes_networks_without_a_memory_cannot_overlook_that_one_is_wanted() -> None:
    with pytest.raises(ValueError, match="lstm is not for this algorithm"):
        NetworkConfig(recurrent="lstm").resolved(Endings.spec)


class MyNet(torch.nn.Linear):
    """One of the user's own, behind which there is to be a memory."""

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(6, 5)
        self.features = 5


def test_behind_a_network_of_ones_own() -> None:
    settings = settings_of("lstm")
    settings["network"] = {"kind": f"{__name__}:MyNet", "recurrent": "lstm", "recurrent_size": 4}
    policy, learner = both("impala", Endings(3), settings)
    batch = sequences(Endings(3), settings, play(Endings(3), policy, 2, 5))[1]
    assert batch.memory.shape == (3, 8)
    for one, other in zip(unroll(learner._network, batch), step_by_step(learner._network, batch), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_size_without_a_memory_is_refused() -> None:
    with pytest.raises(ValidationError, match="recurrent_size 8 has no effect without recurrent"):
        get_algorithm("ppo").config.model_validate({"network": {"recurrent_size": 8}})


@pytest.mark.parametrize(
    ("name", "cell"), [("ppo", "gru"), ("ppo", None), ("impala", "lstm"), ("impala", None), ("appo", "gru")]
)
def test_recalls_what_it_was_shown(name: str, cell: str | None) -> None:
    """Without a memory nothing can be done that is better than to toss a coin."""
    settings = settings_of(cell, rollout_steps=640, minibatch_size=160, epochs=2, learning_rate=1e-2)
    policy, learner = both(name, Recall(32), settings)
    for part in itertools.islice(fragments(Recall(32), policy, np.random.default_rng(0), 20), 16):
        learner.learn(part)
        policy.load(learner.weights())
    found = mean_return(Recall(16, seed=1), policy, 160)
    assert found > 0.9 if cell else abs(found) < 0.3

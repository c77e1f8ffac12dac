"""The learner's contract: cadence, metrics, determinism, state."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlray.algos import Fragment, LearnerContext, get_algorithm
from rlray.algos.dqn.learner import DQNLearner
from rlray.envs.types import EnvSpec
from tests.algos.toys import Catch, Corridor, fragments

DQN = get_algorithm("dqn")
SETTINGS: dict[str, Any] = {
    "network": {"kind": "conv", "filters": 8, "kernels": 3, "strides": 1, "hidden": 16, "dueling": True},
    "n_step": 2, "batch_size": 16, "samples_per_step": 4, "warmup_steps": 64, "replay_capacity": 300,
    "learning_rate": {"points": [[0, 1e-3], [1, 0]], "of": "run"}, "target_update_every": 10, "epsilon": 1.0,
}  # fmt: skip


def make_learner(seed: int = 0, device: str = "cpu", **settings: Any) -> DQNLearner:
    config = DQN.config.model_validate({**SETTINGS, **settings})
    learner = DQN.make_learner(Catch.spec, config, LearnerContext(device, seed, total_steps=1000))
    assert isinstance(learner, DQNLearner)
    return learner


def play(count: int, length: int = 5, envs: int = 4, seed: int = 0) -> list[Fragment]:
    policy = DQN.make_policy(Catch.spec, DQN.config.model_validate(SETTINGS))
    return list(itertools.islice(fragments(Catch(envs, seed), policy, np.random.default_rng(seed), length), count))


def assert_equal_weights(one: Any, other: Any) -> None:
    one, other = one.weights(), other.weights()
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_updates_follow_the_steps_whatever_the_length_of_fragments() -> None:
    for length in (1, 5, 16):
        learner, steps, updates, since = make_learner(), 0, 0, 0
        for fragment in play(100 // length, length):
            held = len(learner._replay) + fragment.steps + len(fragment.final_index)
            updates += int(learner.learn(fragment)["updates"])
            steps += fragment.steps
            since += fragment.steps if held >= 64 else 0
            assert updates == since * 4 // 16
        assert updates > 50


def test_dummy_reset_steps_are_not_counted() -> None:
    learner = make_learner(warmup_steps=1)
    (fragment,) = play(1, length=8)
    fragment.valid[4:], fragment.terminated[4:], fragment.truncated[4:] = False, False, False
    kept = fragment.final_index[:, 0] < 4
    fragment.final_index, fragment.final_obs = fragment.final_index[kept], fragment.final_obs[kept]
    assert learner.learn(fragment)["updates"] == 16 * 4 // 16


def test_metrics_are_finite_and_have_a_place_in_the_documentation() -> None:
    learner = make_learner()
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    seen = {}
    for number, fragment in enumerate(play(20)):
        metrics = learner.learn(fragment)
        assert ("loss" in metrics) == (metrics["updates"] > 0)
        assert np.isfinite(list(metrics.values())).all()
        assert metrics["lr"] == pytest.approx(1e-3 * (1 - (number + 1) * 20 / 1000))
        seen |= metrics
    assert seen.keys() == {"updates", "replay_fill", "epsilon", "lr", "loss", "q_mean", "td_error", "grad_norm"}
    assert seen["replay_fill"] == 1.0
    for name in seen:
        tag = name.replace("_", "/", 1) if name.startswith("replay_") else f"learner/{name}"
        assert f"`{tag}`" in text, tag


def test_the_normalisation_is_measured_at_the_end_of_warmup_and_goes_with_the_weights() -> None:
    learner, parts = make_learner(), play(20)
    for fragment in parts:
        learner.learn(fragment)
        fitted = bool(learner.weights()["input.fitted"])
        assert fitted == (len(learner._replay) >= 64)
        if fitted:
            break
    shift = learner.weights()["input.shift"]
    for fragment in parts[5:]:
        learner.learn(fragment)
    np.testing.assert_array_equal(learner.weights()["input.shift"], shift)
    assert shift.any()


def test_the_target_network_moves_as_told() -> None:
    copied, tracked = make_learner(target_update_every=10**6), make_learner(target_tau=0.25, target_update_every=1)
    begin = copy.deepcopy(copied._target.state_dict())
    for fragment in play(10):
        copied.learn(fragment)
    for name, tensor in copied._target.state_dict().items():
        assert torch.equal(tensor, begin[name])
    for fragment in play(4):
        tracked.learn(fragment)
    before = copy.deepcopy(tracked._target.state_dict())
    tracked._update()
    online = tracked._network.body.state_dict()
    for name, tensor in tracked._target.state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * online[name])
    copied._updates = 10**6 - 1
    copied._update()
    for name, tensor in copied._target.state_dict().items():
        assert torch.equal(tensor, copied._network.body.state_dict()[name])


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    one, same, other = make_learner(7), make_learner(7), make_learner(8)
    for fragment in play(12):
        for learner in (one, same, other):
            learner.learn(fragment)
    assert one._updates > 20
    assert_equal_weights(one, same)
    assert not np.array_equal(one.weights()["body.0.0.weight"], other.weights()["body.0.0.weight"])


def test_the_online_network_chooses_the_action_only_if_double() -> None:
    """A target network that prefers the worst action tells the two apart."""
    errors = {}
    for double in (True, False):
        learner = make_learner(double=double, n_step=1, discount=1.0)
        for fragment in play(3):
            learner._replay.add(fragment)
        with torch.no_grad():
            for body, bias in ((learner._network.body, [9.0, 0.0, 0.0]), (learner._target, [0.0, 0.0, 60.0])):
                head: Any = body[1]  # type: ignore[index]
                head.output.weight.zero_()
                head.output.bias.copy_(torch.tensor(bias))
        errors[double] = float(learner._update()[2])
    assert errors[False] > errors[True] + 20


def test_weights_are_a_copy() -> None:
    learner = make_learner()
    held = learner.weights()
    before = {name: array.copy() for name, array in held.items()}
    for fragment in play(8):
        learner.learn(fragment)
    assert all(np.array_equal(held[name], before[name]) for name in held)
    assert not np.array_equal(learner.weights()["body.0.0.weight"], before["body.0.0.weight"])


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    """Replay included: bit for bit."""
    first, parts = make_learner(), play(24)
    for fragment in parts[:12]:
        first.learn(fragment)
    second = make_learner(seed=5)
    second.load_state(copy.deepcopy(first.state()))
    assert_equal_weights(first, second)
    for fragment in parts[12:]:
        assert first.learn(fragment) == second.learn(fragment)
    assert_equal_weights(first, second)


def test_after_loading_without_a_replay_it_warms_up_again() -> None:
    first, parts = make_learner(), play(24)
    for fragment in parts[:12]:
        first.learn(fragment)
    state = copy.deepcopy({name: part for name, part in first.state().items() if name != "replay"})
    second = make_learner()
    second.load_state(state)
    counts = [second.learn(fragment)["updates"] for fragment in parts[12:]]
    assert counts[0] == counts[1] == 0
    assert counts[-1] == 5
    np.testing.assert_array_equal(second.weights()["input.shift"], first.weights()["input.shift"])
    assert second._updates == first._updates + sum(counts)
    assert state["updates"] == first._updates  # what was loaded is not shared


def test_the_state_holds_only_what_can_be_saved() -> None:
    learner = make_learner()
    for fragment in play(8):
        learner.learn(fragment)

    def check(value: Any) -> None:
        if type(value) in (dict, list, tuple):
            for item in value.values() if isinstance(value, dict) else value:
                check(item)
        else:
            assert value is None or type(value) in (str, int, float, bool, np.ndarray, torch.Tensor), type(value)

    check(learner.state())


def test_a_loss_that_is_no_number_stops_learning() -> None:
    learner, parts = make_learner(), play(5)
    for fragment in parts[:4]:
        learner.learn(fragment)
    parts[4].reward[:] = np.inf
    with pytest.raises(FloatingPointError, match=r"loss became .* use a smaller learning_rate or max_grad_norm"):
        learner.learn(parts[4])


def test_gradients_are_clipped_as_told() -> None:
    """With plain steps of size 1 the parameters move by no more than the norm allowed."""
    for limit in (1e-4, None):
        learner = make_learner(max_grad_norm=limit)
        learner._optimizer = torch.optim.SGD(learner._parameters, lr=1.0)  # type: ignore[assignment]
        for fragment in play(3):
            learner._replay.add(fragment)
        before = torch.cat([p.detach().flatten().clone() for p in learner._parameters])
        norm = float(learner._update()[3])
        moved = (torch.cat([p.detach().flatten() for p in learner._parameters]) - before).norm()
        assert norm > 1e-3
        assert float(moved) == pytest.approx(norm if limit is None else limit, rel=0.02)


def test_rewards_are_clipped_as_told() -> None:
    """Untrained values are near 0, so that a target of 50 is a large error and one clipped to 1 is not."""
    errors = {}
    for clip in (True, False):
        learner = make_learner(clip_reward=clip)
        for fragment in play(3):
            fragment.reward[:] = 50
            learner._replay.add(fragment)
        errors[clip] = float(learner._update()[2])
    assert errors[True] < 5 < 40 < errors[False]


def test_the_step_size_follows_its_schedule() -> None:
    learner = make_learner(learning_rate=[[0, 1e-3], [120, 1e-3], [120, 0]])
    parts = play(12)
    for fragment in parts[:5]:
        learner.learn(fragment)
    before = learner.weights()
    assert learner._updates > 0
    for fragment in parts[5:]:
        assert learner.learn(fragment)["updates"] == 5
    for name, array in learner.weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_bfloat16_is_close_to_float32() -> None:
    exact, rough = make_learner(), make_learner(precision="bfloat16")
    for fragment in play(4):
        one, two = exact.learn(fragment), rough.learn(fragment)
    assert one["updates"] > 0
    assert two["loss"] == pytest.approx(one["loss"], rel=0.1)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.1)
    assert two["loss"] != one["loss"]


def test_actions_may_begin_at_any_number() -> None:
    config = DQN.config.model_validate({**SETTINGS, "network": {"kind": "mlp", "hidden": 8}})
    policy = DQN.make_policy(Corridor.spec, config)
    learner = DQN.make_learner(Corridor.spec, config, LearnerContext("cpu", 0, 1000))
    for fragment in itertools.islice(fragments(Corridor(4), policy, np.random.default_rng(0), 8), 6):
        assert set(np.unique(fragment.action)) <= {1, 2}
        learner.learn(fragment)
    assert learner._updates > 0


def test_other_action_spaces_are_refused() -> None:
    spec = EnvSpec("Box-v0", Catch.spec.observation_space, spaces.Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match="dqn needs a Discrete action space, but Box-v0 has"):
        DQN.make_learner(spec, DQN.config.model_validate(SETTINGS), LearnerContext("cpu", 0, 1000))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_same() -> None:
    here, there = make_learner(), make_learner(device="cuda")
    for fragment in play(8):
        one, two = here.learn(fragment), there.learn(fragment)
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=0.05, abs=1e-3), name
    for name, array in there.weights().items():
        np.testing.assert_allclose(array, here.weights()[name], atol=5e-3, err_msg=name)
    again = make_learner(seed=3, device="cuda")
    again.load_state(copy.deepcopy(there.state()))
    assert_equal_weights(there, again)

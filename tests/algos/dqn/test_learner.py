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
from tests.algos.dqn.switches import CATEGORICAL, QUANTILE, RAINBOW, with_switches
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


@pytest.mark.parametrize("switches", [{}, RAINBOW], ids=["plain", "rainbow"])
def test_metrics_are_finite_and_have_a_place_in_the_documentation(switches: dict[str, Any]) -> None:
    learner = make_learner(**with_switches(SETTINGS, switches))
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    seen = {}
    for number, fragment in enumerate(play(20)):
        metrics = learner.learn(fragment)
        assert ("loss" in metrics) == (metrics["updates"] > 0)
        assert np.isfinite(list(metrics.values())).all()
        assert metrics["lr"] == pytest.approx(1e-3 * (1 - (number + 1) * 20 / 1000))
        seen |= metrics
    names = {"updates", "replay_fill", "epsilon", "lr", "loss", "q_mean", "td_error", "grad_norm"}
    assert seen.keys() == names | ({"replay_beta", "noise"} if switches else set())
    assert seen["replay_fill"] == 1.0
    if switches:
        assert seen["replay_beta"] == pytest.approx(0.4 + 0.6 * 400 / 1000)
        assert seen["noise"] == pytest.approx(0.5 / 4, rel=0.7)  # where it began, more or less
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
    begin = copy.deepcopy(copied._updater.target.state_dict())
    for fragment in play(10):
        copied.learn(fragment)
    for name, tensor in copied._updater.target.state_dict().items():
        assert torch.equal(tensor, begin[name])
    for fragment in play(4):
        tracked.learn(fragment)
    before = copy.deepcopy(tracked._updater.target.state_dict())
    tracked._update()
    online = tracked._updater.network.body.state_dict()
    for name, tensor in tracked._updater.target.state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * online[name])
    copied._updater.updates = 10**6 - 1
    copied._update()
    for name, tensor in copied._updater.target.state_dict().items():
        assert torch.equal(tensor, copied._updater.network.body.state_dict()[name])


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    one, same, other = make_learner(7), make_learner(7), make_learner(8)
    for fragment in play(12):
        for learner in (one, same, other):
            learner.learn(fragment)
    assert one._updater.updates > 20
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
            for body, bias in (
                (learner._updater.network.body, [9.0, 0.0, 0.0]),
                (learner._updater.target, [0.0, 0.0, 60.0]),
            ):
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


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_loss_that_is_no_number_stops_learning(prioritized: bool) -> None:
    learner, parts = make_learner(prioritized=prioritized), play(5)
    for fragment in parts[:4]:
        learner.learn(fragment)
    parts[4].reward[:] = np.inf
    with pytest.raises(FloatingPointError, match=r"loss became .* use a smaller learning_rate or max_grad_norm"):
        learner.learn(parts[4])


def test_gradients_are_clipped_as_told() -> None:
    """With plain steps of size 1 the parameters move by no more than the norm allowed."""
    for limit in (1e-4, None):
        learner = make_learner(max_grad_norm=limit)
        learner._updater.optimizer = torch.optim.SGD(learner._updater.parameters, lr=1.0)  # type: ignore[assignment]
        for fragment in play(3):
            learner._replay.add(fragment)
        before = torch.cat([p.detach().flatten().clone() for p in learner._updater.parameters])
        norm = float(learner._update()[3])
        moved = (torch.cat([p.detach().flatten() for p in learner._updater.parameters]) - before).norm()
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
    assert learner._updater.updates > 0
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


def test_a_replayed_transition_gets_the_priority_that_its_update_found() -> None:
    """Its absolute TD error, as the updater has it; those that came with the fragment count until then."""
    learner = make_learner(prioritized=True, priority_alpha=1.0, n_step=1)
    for number, fragment in enumerate(play(3)):
        fragment.extras["priority"] = np.full(fragment.first.shape, 1.5 + number, np.float32)
        learner._replay.add(fragment)
    drawing = learner._replay.state()["drawing"]
    assert drawing["greatest"] == 3.5
    before = drawing["probability"].copy()
    assert set(before[before > 0].round(3)) == {1.5, 2.5, 3.5}
    td_error = float(learner._update()[2])
    after = learner._replay.state()["drawing"]["probability"]
    changed = after[after != before]
    assert 8 < len(changed) <= 16
    assert changed.mean() == pytest.approx(td_error, rel=0.3)


def test_weights_in_the_loss_are_those_of_the_replay() -> None:
    """Half the weights are half the loss, and priorities know nothing of them."""
    plain, weighed = make_learner(), make_learner()
    weighed._replay.add(play(1)[0])
    batch, _ = weighed._loader.next(np.random.default_rng(0))
    half = batch._replace(weight=torch.full_like(batch.weight, 0.5))
    one = plain._updater.update(batch._replace(weight=torch.ones_like(batch.weight)))
    two = weighed._updater.update(half)
    assert float(two.figures[0]) == pytest.approx(0.5 * float(one.figures[0]), rel=1e-5)
    torch.testing.assert_close(one.priority, two.priority)


@pytest.mark.parametrize("kind", [{}, CATEGORICAL, QUANTILE], ids=["mean", "categorical", "quantile"])
def test_what_an_update_reports(kind: dict[str, Any]) -> None:
    """Values and TD errors are those of the means, before the step; all actions count in the mean value."""
    learner = make_learner(**with_switches(SETTINGS, kind))
    learner._replay.add(play(1)[0])
    batch, _ = learner._loader.next(np.random.default_rng(0))
    updater = learner._updater
    with torch.no_grad():
        q_tm1 = updater.head.q_values(updater.network(batch.s_tm1))
        q_t = updater.head.q_values(updater.network(batch.s_t))  # the target network begins as the online one
    target = batch.r_t + batch.discount_t * q_t.max(dim=1).values
    td_error = target - q_tm1[torch.arange(16), batch.a_tm1]
    _, q_mean, absolute, _ = updater.update(batch).figures.tolist()
    assert q_mean == pytest.approx(float(q_tm1.mean()), abs=1e-6)
    assert absolute == pytest.approx(float(td_error.abs().mean()), rel=1e-5)


def test_each_part_of_an_update_has_noise_of_its_own() -> None:
    """What chooses, what is aimed at and what learns: three samples an update, and none twice."""
    learner, seen = make_learner(**with_switches(SETTINGS, {"network": {"noisy": True}})), []
    for fragment in play(3):
        learner._replay.add(fragment)
    normal = learner._updater._normal

    def watched(rows: int, size: int) -> torch.Tensor:
        seen.append(normal(rows, size))
        return seen[-1]

    learner._updater._normal = watched  # type: ignore[method-assign]
    learner._update()
    learner._update()
    assert len(seen) == 6
    assert all(len(drawn) == 1 for drawn in seen)
    assert len({float(drawn[0, 0]) for drawn in seen}) == 6


def test_actions_may_begin_at_any_number() -> None:
    config = DQN.config.model_validate({**SETTINGS, "network": {"kind": "mlp", "hidden": 8}})
    policy = DQN.make_policy(Corridor.spec, config)
    learner = DQN.make_learner(Corridor.spec, config, LearnerContext("cpu", 0, 1000))
    for fragment in itertools.islice(fragments(Corridor(4), policy, np.random.default_rng(0), 8), 6):
        assert set(np.unique(fragment.action)) <= {1, 2}
        learner.learn(fragment)
    assert learner._updater.updates > 0


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rainbow_learns_on_a_gpu_the_same_twice() -> None:
    """Priorities come back from the GPU one update late, but always."""
    one, same = (make_learner(device="cuda", **with_switches(SETTINGS, RAINBOW)) for _ in range(2))
    for fragment in play(8):
        left, right = one.learn(fragment), same.learn(fragment)
        for name in left:
            assert left[name] == pytest.approx(right[name], rel=1e-3), name
    assert one._replay.state()["drawing"]["greatest"] != 1.0

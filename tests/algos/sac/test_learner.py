"""SAC's contract: what an update does and reports, its switches, determinism, state."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlray.algos import Fragment, LearnerContext, get_algorithm
from rlray.algos.sac.learner import SACLearner
from rlray.algos.sac.network import CRITICS, Stacked
from rlray.algos.sac.policy import SACPolicy
from rlray.algos.squashed import squash
from rlray.train.checkpoint import load_checkpoint, save_checkpoint
from rlray.train.state_tree import take_apart
from tests.algos.toys import Aim, AimFar, Catch, Idle, fragments

SAC = get_algorithm("sac")
SETTINGS: dict[str, Any] = {
    "network": {"kind": "mlp", "hidden": [12, 8]}, "batch_size": 16, "samples_per_step": 3, "warmup_steps": 60,
    "replay_capacity": 150, "learning_rate": {"points": [[0, 1e-2], [1, 0]], "of": "run"}, "random_steps": 60,
}  # fmt: skip
SWITCHES: list[dict[str, Any]] = [
    {},
    {"n_step": 3, "prioritized": True, "network": {**SETTINGS["network"], "input_norm": "per_pixel"}},
    {"policy_every": 2, "tune_temperature": False, "max_grad_norm": 0.5},
]


def make(seed: int = 0, device: str = "cpu", env: Any = Idle, **settings: Any) -> SACLearner:
    config = SAC.config.model_validate({**SETTINGS, **settings})
    learner = SAC.make_learner(env.spec, config, LearnerContext(device, seed, total_steps=1000))
    assert isinstance(learner, SACLearner)
    return learner


def make_policy(env: Any = Idle, **settings: Any) -> SACPolicy:
    policy = SAC.make_policy(env.spec, SAC.config.model_validate({**SETTINGS, **settings}))
    assert isinstance(policy, SACPolicy)
    return policy


def play(count: int, env: Any = Idle, **settings: Any) -> list[Fragment]:
    made = fragments(env(4), make_policy(env, **settings), np.random.default_rng(0), 6)
    return list(itertools.islice(made, count))


PARTS = play(20)  # 480 steps: the ring has turned over more than once when half of them are in


def state_of(learner: SACLearner) -> tuple[Any, dict[str, np.ndarray]]:
    """All of it, copied."""
    tree, arrays = take_apart(learner.state())
    return copy.deepcopy(tree), {name: array.copy() for name, array in arrays.items()}


def assert_same(one: SACLearner, other: SACLearner) -> None:
    (tree, arrays), (their_tree, theirs) = state_of(one), state_of(other)
    assert tree == their_tree
    assert arrays.keys() == theirs.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], theirs[name], err_msg=name)


def test_updates_follow_the_steps() -> None:
    learner = make()
    updates = [int(learner.learn(fragment)["updates"]) for fragment in PARTS[:5]]
    assert updates == [0, 4, 5, 4, 5]  # 72 transitions for 24 steps; warm after the second fragment


def test_metrics_are_finite_and_have_a_place_in_the_documentation() -> None:
    learner, seen = make(prioritized=True), {}
    for fragment in PARTS[:4]:
        metrics = learner.learn(fragment)
        assert np.isfinite(list(metrics.values())).all()
        seen |= metrics
    expected = {"updates", "lr", "replay_fill", "replay_beta", "loss", "q_mean", "td_error", "grad_norm"}
    assert seen.keys() == expected | {"policy_loss", "entropy", "temperature"}
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in seen.keys() - {"updates", "replay_fill", "replay_beta"}:
        assert f"`learner/{name}`" in text, name


def test_two_critics_side_by_side_are_two_critics() -> None:
    layers = torch.nn.Sequential(Stacked(CRITICS, 5, 7), torch.nn.Tanh(), Stacked(CRITICS, 7, 1))
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    together = layers(x.expand(CRITICS, -1, -1)).squeeze(2)
    for number in range(CRITICS):
        first, last = layers[0], layers[2]
        alone = (x @ first.weight[number] + first.bias[number]).tanh() @ last.weight[number] + last.bias[number]
        torch.testing.assert_close(together[number], alone[:, 0])
    assert not torch.equal(together[0], together[1])


def test_orthogonal_weights() -> None:
    updater = make(network={"kind": "mlp", "hidden": [8, 8], "init": "orthogonal"})._updater
    for weight in (*updater.critics.layers[2].weight, updater.actor.body[3].weight):
        torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(8))
    assert updater.critics.layers[4].weight.square().sum().item() == pytest.approx(2, rel=1e-4)
    assert updater.actor.body[5].weight.abs().max().item() <= 0.01


def test_memory_is_that_of_the_replay() -> None:
    assert SAC.memory is not None
    parts = SAC.memory(Idle.spec, SAC.config.model_validate(SETTINGS))
    assert sum(part.bytes for part in parts) == make()._replay.memory_bytes()


def test_an_update_is_what_the_paper_says() -> None:
    """All gradients of one update, against those of its losses written out."""
    learner = make(discount=0.9, scale_reward=0.5, n_step=2)
    learner._replay.add(PARTS[0])
    updater = learner._updater
    batch, _ = learner._loader.next(np.random.default_rng(0))
    before = copy.deepcopy((updater.actor, updater.critics, updater.targets))
    generator = torch.Generator().manual_seed(0)
    noise_t, noise = (torch.randn(16, 1, generator=generator) for _ in range(2))
    updater._generator.manual_seed(0)
    figures = updater.update(batch).figures.tolist()

    actor, critics, targets = before
    with torch.no_grad():
        a_t, log_prob_t = squash(actor(batch.s_t), noise_t)
        value = targets(batch.s_t, a_t).min(dim=0).values - 1.0 * log_prob_t
        target = 0.5 * batch.r_t + batch.discount_t * value
    q = critics(batch.s_tm1, batch.a_tm1)
    loss = 0.5 * (target - q[0]).square().mean() + 0.5 * (target - q[1]).square().mean()
    of_critics = torch.autograd.grad(loss, list(critics.parameters()))
    actions, log_prob = squash(actor(batch.s_tm1), noise)
    policy_loss = (log_prob - critics(batch.s_tm1, actions).min(dim=0).values).mean()
    of_actor = torch.autograd.grad(policy_loss, list(actor.parameters()))
    for expected, parameter in zip((*of_actor, *of_critics), updater._parameters, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    norm = torch.cat([grad.flatten() for grad in (*of_actor, *of_critics)]).norm()
    td_error = (target - q).abs().mean()
    wanted = (loss, q.mean(), td_error, norm, policy_loss, -log_prob.mean(), torch.tensor(1.0))
    assert figures == pytest.approx([one.item() for one in wanted], rel=1e-4, abs=1e-6)


def test_the_target_critics_follow() -> None:
    learner = make(target_tau=0.25)
    for fragment in PARTS[:3]:
        learner.learn(fragment)
    before = copy.deepcopy(learner._updater.targets.state_dict())
    learner._update()
    online = learner._updater.critics.state_dict()
    for name, tensor in learner._updater.targets.state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * online[name])


@pytest.mark.parametrize(("target", "rises"), [(-9.0, False), (9.0, True)])
def test_the_temperature_moves_towards_its_target(target: float, rises: bool) -> None:
    learner = make(target_entropy=target, temperature=0.3)
    seen = [learner.learn(fragment).get("temperature", 0.3) for fragment in PARTS[:8]]
    assert seen[0] == 0.3
    assert (seen[-1] > 0.32) if rises else (seen[-1] < 0.28)


def test_a_temperature_that_is_not_tuned_stays() -> None:
    learner = make(tune_temperature=False, temperature=0.3)
    for fragment in PARTS[:8]:
        learner.learn(fragment)
    assert float(learner._updater.log_alpha.detach().exp()) == pytest.approx(0.3)


def test_the_policy_waits_for_its_turn() -> None:
    learner = make(policy_every=3)
    for fragment in PARTS[:2]:
        learner._replay.add(fragment)
    moved = []
    for _ in range(7):
        before = learner.weights()["body.1.weight"], learner._updater.critics.layers[0].weight.detach().clone()
        learner._update()
        moved.append(not np.array_equal(before[0], learner.weights()["body.1.weight"]))
        assert not torch.equal(before[1], learner._updater.critics.layers[0].weight)
    assert moved == [True, False, False, True, False, False, True]


def test_gradients_are_clipped_as_told() -> None:
    """With plain steps of size 1 the parameters move by no more than the norm allowed."""
    for limit in (1e-3, None):
        learner = make(max_grad_norm=limit)
        learner._updater.optimizer = torch.optim.SGD(learner._updater._parameters, lr=1.0)  # type: ignore[assignment]
        learner._replay.add(PARTS[0])
        before = torch.cat([p.detach().flatten().clone() for p in learner._updater._parameters])
        norm = float(learner._update()[3])
        moved = (torch.cat([p.detach().flatten() for p in learner._updater._parameters]) - before).norm()
        assert norm > 0.1
        assert float(moved) == pytest.approx(norm if limit is None else limit, rel=0.02)


def test_weights_in_the_loss_are_those_of_the_replay() -> None:
    """Half the weights are half the loss, and priorities know nothing of them."""
    plain, weighed = make(), make()
    weighed._replay.add(PARTS[0])
    batch, _ = weighed._loader.next(np.random.default_rng(0))
    one = plain._updater.update(batch)
    two = weighed._updater.update(batch._replace(weight=torch.full_like(batch.weight, 0.5)))
    assert float(two.figures[0]) == pytest.approx(0.5 * float(one.figures[0]), rel=1e-5)
    torch.testing.assert_close(one.priority, two.priority)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_same_seed_twice_is_the_same_and_another_is_not(switches: dict[str, Any]) -> None:
    one, same, other = (make(seed, **switches) for seed in (7, 7, 8))
    for fragment in PARTS[:10]:
        for learner in (one, same, other):
            learner.learn(fragment)
    assert_same(one, same)
    assert not np.array_equal(one.weights()["body.1.weight"], other.weights()["body.1.weight"])


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_going_on_from_a_file_is_bit_for_bit_the_same(switches: dict[str, Any], tmp_path: Path) -> None:
    first, second = make(1, **switches), make(2, **switches)
    for fragment in PARTS[:10]:  # half a batch is owed then
        first.learn(fragment)
    saved = load_checkpoint(save_checkpoint(tmp_path / "step_1", {"learner": first.state()}))["learner"]
    without = [first.learn(fragment) for fragment in PARTS[10:]]
    second.load_state(saved)
    assert [second.learn(fragment) for fragment in PARTS[10:]] == without
    assert_same(first, second)
    kept = load_checkpoint(tmp_path / "step_1")["learner"]["updater"]["of_policy"]
    assert torch.equal(torch.as_tensor(saved["updater"]["of_policy"]), torch.as_tensor(kept)), "it was copied"


def test_weights_are_a_copy_that_policies_take() -> None:
    learner, policy = make(), make_policy()
    obs = np.eye(6, dtype=np.float32)
    for fragment in PARTS[:5]:
        learner.learn(fragment)
    held = learner.weights()
    policy.load(held)
    with torch.no_grad():
        expected = learner._updater.actor(torch.from_numpy(obs))[:, :1].tanh().numpy()
    np.testing.assert_allclose(policy.act_greedy(obs), expected, atol=1e-6)
    before = {name: array.copy() for name, array in held.items()}
    learner.learn(PARTS[5])
    assert all(np.array_equal(held[name], before[name]) for name in held)
    np.testing.assert_allclose(policy.act_greedy(obs), expected, atol=1e-6)


def test_the_policy_is_random_first_and_then_draws_its_own() -> None:
    policy, obs = make_policy(AimFar, random_steps=100), np.zeros((4_000, 2), np.float32)
    weights = {name: array.copy() for name, array in make(env=AimFar).weights().items()}
    for name in weights:
        weights[name][:] = 0
    weights["body.5.bias"][:] = [0.5, -0.5, -3, -3]
    policy.load(weights)
    obs.flags.writeable = False
    early, extras = policy.act(obs, 99, np.random.default_rng(0))
    late, _ = policy.act(obs, 100, np.random.default_rng(0))
    assert extras == {}
    for actions in (early, late):
        assert (actions.dtype, actions.shape) == (np.float64, (4_000, 2, 1))
        assert all(AimFar.spec.action_space.contains(action) for action in actions)
    np.testing.assert_allclose(early.mean(axis=0)[:, 0], [10.5, -2], atol=0.15)
    np.testing.assert_allclose(late.mean(axis=0)[:, 0], [10.5 + 0.5 * np.tanh(0.5), -2 - 4 * np.tanh(0.5)], atol=0.02)
    np.testing.assert_allclose(policy.act_greedy(obs)[0, :, 0], [10.5 + 0.5 * np.tanh(0.5), -2 - 4 * np.tanh(0.5)])
    again, _ = policy.act(obs, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(late, again)


def test_a_loss_that_is_no_number_stops_learning() -> None:
    learner, parts = make(), copy.deepcopy(PARTS[:4])
    for fragment in parts[:3]:
        learner.learn(fragment)
    parts[3].reward[:] = np.inf
    with pytest.raises(FloatingPointError, match=r"sac: the loss became .* use a smaller learning_rate"):
        learner.learn(parts[3])


def test_numbered_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="sac needs actions that are a Box of floats, but Catch-v0 has Discrete"):
        make(env=Catch)
    with pytest.raises(ValueError, match="sac needs actions that are a Box of floats, but Catch-v0 has Discrete"):
        make_policy(Catch)


class Features(torch.nn.Module):
    """Someone's own network."""

    features = 3

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(*spec.observation_space.shape, self.features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).relu()


class Mute(Features):
    """Does not say how many."""

    features = None  # type: ignore[assignment]

    def __init__(self, spec: Any) -> None:
        torch.nn.Module.__init__(self)


def test_a_network_of_ones_own_comes_before_actor_and_critics() -> None:
    learner, policy = make(env=Aim, network=f"{__name__}:Features"), make_policy(Aim, network=f"{__name__}:Features")
    before = learner._updater.critics.trunk.layer.weight.detach().clone()
    for fragment in play(6, Aim):
        learner.learn(fragment)
    policy.load(learner.weights())
    assert policy.act_greedy(np.zeros((3, 2), np.float32)).shape == (3, 2)
    assert not torch.equal(before, learner._updater.critics.trunk.layer.weight)
    with pytest.raises(TypeError, match=r"must say how many features it returns \(self.features\), got None"):
        make(env=Aim, network=f"{__name__}:Mute")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_same_twice() -> None:
    one, same = (make(device="cuda", prioritized=True) for _ in range(2))
    for fragment in PARTS[:8]:
        left, right = one.learn(fragment), same.learn(fragment)
        for name in left:
            assert left[name] == pytest.approx(right[name], rel=1e-3), name
    again = make(seed=3, device="cuda", prioritized=True)
    again.load_state(copy.deepcopy(one.state()))
    assert_same(one, again)

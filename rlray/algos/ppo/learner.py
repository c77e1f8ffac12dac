"""Turns fragments into a better policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlray.algos.networks import autocast, computes_in_bfloat16, export_gradients, export_weights
from rlray.algos.policy_gradient.policy import make_network
from rlray.algos.ppo.config import PPOConfig
from rlray.algos.ppo.loss import ppo_loss
from rlray.algos.ppo.rollout import Rollout, RolloutBuilder
from rlray.algos.recurrent import Course
from rlray.algos.types import Fragment, LearnerContext, Metrics, NotFinite, Weights
from rlray.envs.types import EnvSpec

_ROWS_AT_ONCE = 256  # observations whose float32 stays in a CPU's cache
_VALUE_RATE = 0.1  # how far the value's normalisation moves towards a round's targets


class PPOLearner:
    """PPO with generalised advantage estimation.

    Guarantees: the same spec, settings, context and fragments give the same weights, bit for bit on a CPU with the
    same count of threads. Fragments are gathered until they have ``rollout_steps`` steps; then there is a round of
    updates. A truncated episode bootstraps from its true last observation. Fragments of older weights are taken as
    they are: the ratio is to the policy that acted.

    A recurrent network learns from whole sequences, one environment's steps in a fragment, and begins them with what
    the policy that acted remembered there. So do values at truncation and at the fragment's end.

    Raises: ValueError for an action space that is neither Discrete nor a Box of floats, or where the network does not
    fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: PPOConfig, context: LearnerContext) -> None:
        self._config, self._context = config, context
        network, self._actions = make_network(spec, config, "ppo", context.seed)
        self._network = network.to(context.device)
        self._parameters = list(self._network.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate.at(0, context.total_steps),
                                           eps=config.adam_eps, fused=True)  # fmt: skip
        self._rng = np.random.default_rng(context.seed)
        self._builder = RolloutBuilder(spec, config, self._values)
        self._steps = self._updates = 0

    def learn(self, fragment: Fragment) -> Metrics:
        """Take in a fragment; a round of updates if there are enough.

        Always in the result: ``updates``, ``lr``, ``entropy_coef``. After a round also ``loss``, ``policy_loss``,
        ``value_loss``, ``entropy``, ``approx_kl``, ``clip_fraction``, ``grad_norm`` (means over it) and
        ``explained_variance`` (of the targets, by the values that acted).

        Raises: NotFinite where the loss is no longer finite; it holds the round that led there.
        """
        config = self._config
        self._steps += fragment.steps
        if self._network.input.needs_fit and not config.normalize_obs:
            self._network.input.fit(fragment.obs.reshape(-1, *fragment.obs.shape[2:]))
        self._builder.add(fragment)
        rate = config.learning_rate.at(self._steps, self._context.total_steps)
        metrics: Metrics = {"updates": 0.0, "lr": rate, "entropy_coef": self._now(config.entropy)}
        if self._builder.steps >= config.rollout_steps:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            metrics |= self._round(self._builder.take())
        return metrics

    def weights(self) -> Weights:
        """A copy of the network's weights and normalisations, on the CPU."""
        return export_weights(self._network)

    def gradients(self) -> Weights:
        """Copies of the gradients of the last update, after clipping."""
        return export_gradients(self._network)

    def state(self) -> dict[str, Any]:
        """Everything: network, optimiser, counters, random numbers, normalisations, fragments not yet learned from."""
        return {
            "network": dict(self._network.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "rng": self._rng.bit_generator.state,
            "builder": self._builder.state(),
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied. Raises: RuntimeError (torch's) where names or shapes differ."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._rng.bit_generator.state = state["rng"]
        self._builder.load_state(state["builder"])
        self._steps, self._updates = state["steps"], state["updates"]

    def _now(self, schedule: Any) -> float:
        return float(schedule.at(self._steps, self._context.total_steps))

    @torch.no_grad()
    def _values(self, obs: NDArray[Any], before: NDArray[Any], memory: NDArray[np.float32]) -> Tensor:
        """As `rlray.algos.ppo.rollout.Values`: the memory that policies had is taken on by the step ``before``."""
        network, device = self._network, self._context.device
        with autocast(device, self._config.precision):
            past = None
            if network.memory_size:
                past = network(_tensor(before[None]).to(device), _tensor(memory).to(device)).memory
            return network.value(_tensor(obs).to(device), past).float().cpu()

    def _round(self, rollout: Rollout) -> Metrics:
        """Go through a rollout ``epochs`` times."""
        config, network, device = self._config, self._network, self._context.device
        if config.normalize_obs:
            network.input.fit_to(*self._builder.moments())
        target, value = rollout.target[rollout.valid], rollout.value[rollout.valid]
        if config.normalize_value:
            network.value_norm.fit(target, _VALUE_RATE)
        variance = target.var()
        explained = float(1 - (target - value).var() / variance) if variance > 0 else 0.0
        rollout = rollout.to(device)
        normalised = replace(rollout, obs=self._normalised(rollout.obs))
        parts = min(max(1, round(len(target) / config.minibatch_size)), len(rollout))
        seen: list[Tensor] = []
        for _ in range(config.epochs):
            order = torch.from_numpy(self._rng.permutation(len(rollout))).to(device)
            seen += [self._update(batch) for batch in normalised.minibatches(order, parts)]
            if config.target_kl is not None and float(seen[-1][4]) > 1.5 * config.target_kl:
                break
        names = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm")
        means = torch.stack(seen).mean(dim=0).tolist()
        metrics = {"updates": float(len(seen)), **dict(zip(names, means, strict=True)), "explained_variance": explained}
        if not all(map(np.isfinite, (metrics["loss"], metrics["grad_norm"]))):
            raise NotFinite(
                f"ppo: the loss became {metrics['loss']} (gradient norm {metrics['grad_norm']}) within the updates up "
                f"to {self._updates}: use a smaller learning_rate, normalize_reward or scale_reward, and look for "
                f"infinite or enormous numbers in the observations and rewards",
                vars(rollout),
            )
        return metrics

    @torch.no_grad()
    def _normalised(self, obs: Tensor) -> Tensor:
        """``obs`` [N, L, ...] as the network's first layer takes them, once for all epochs of a round.

        In float32, or in the precision to which that layer would convert them.
        """
        device, precision = self._context.device, self._config.precision
        dtype = torch.bfloat16 if computes_in_bfloat16(device, precision) else torch.float32
        flat = obs.flatten(0, 1)
        rows: Tensor | None = None
        for begin in range(0, len(flat), _ROWS_AT_ONCE):
            some = self._network.input.rows(flat[begin : begin + _ROWS_AT_ONCE])
            if rows is None:
                rows = some.new_empty((len(flat), *some.shape[1:]), dtype=dtype)
            rows[begin : begin + _ROWS_AT_ONCE] = some
        assert rows is not None
        return rows.view(*obs.shape[:2], *rows.shape[1:])

    def _update(self, batch: Rollout) -> Tensor:
        """One gradient step on ``batch``, whose observations are normalised; returns what is reported of it [7]."""
        config, network = self._config, self._network
        keep = batch.valid
        with autocast(self._context.device, config.precision):
            said = network.of_rows(batch.obs.transpose(0, 1), batch.memory, Course(batch.first.T))
        outputs, value = (along.transpose(0, 1)[keep] for along in (said.outputs, said.value))
        advantage = batch.advantage[keep]
        if config.normalize_advantage and len(advantage) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        loss = ppo_loss(
            self._actions.log_prob(outputs, batch.action[keep]),
            self._actions.entropy(outputs),
            value,
            batch.log_prob[keep],
            network.value_norm.inverse(batch.value[keep]),
            advantage,
            network.value_norm.inverse(batch.target[keep]),
            self._now(config.clip),
            config.clip_value,
            config.value_coef,
            self._now(config.entropy),
        )
        self._optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm or float("inf"))
        self._optimizer.step()
        self._updates += 1
        return torch.stack([*(part.detach() for part in loss), norm.detach()])


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())  # torch warns of read-only memory

"""Turns fragments into a better policy, whichever policy has played them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rlray.algos.advantages import vtrace
from rlray.algos.impala.config import ImpalaConfig
from rlray.algos.impala.loss import Acted, explained, policy_gradient
from rlray.algos.networks import autocast, export_gradients, export_weights
from rlray.algos.policy_gradient.intake import Intake
from rlray.algos.policy_gradient.policy import make_network
from rlray.algos.policy_gradient.sequences import Sequences, Unrolled, end_to_end, side_by_side, unroll
from rlray.algos.schedules import Schedule
from rlray.algos.types import Fragment, LearnerContext, Metrics, NotFinite, Weights
from rlray.envs.types import EnvSpec

_FAR = 20.0  # log ratios beyond it are as good as infinite, and would become that in float32 soon after


class Corrected(NamedTuple):
    """What V-trace says of steps by the weights of one moment, each [T, B]."""

    target: Tensor
    advantage: Tensor
    rho: Tensor
    log_prob: Tensor
    """Of the actions, by these weights."""


class ImpalaLearner:
    """An actor and a critic that V-trace corrects for the difference between who acted and who learns.

    Guarantees: the same spec, settings, context and fragments give the same weights, bit for bit on a CPU with the
    same count of threads. Fragments are gathered until they have ``rollout_steps`` steps; those of a stream are one
    sequence. Then targets and advantages are worked out with the weights of that moment, and there is a round of
    updates, each on steps from anywhere in it. A truncated episode bootstraps from its true last observation.

    Raises: ValueError for an action space that is neither Discrete nor a Box of floats, or where the network does not
    fit the observations.
    """

    algorithm = "impala"

    def __init__(self, spec: EnvSpec, config: ImpalaConfig, context: LearnerContext) -> None:
        self._config, self._context = config, context
        network, self._actions = make_network(spec, config, self.algorithm, context.seed)
        self._network = network.to(context.device)
        self._parameters = list(self._network.parameters())
        self._optimizer = _optimizer(config, self._parameters)
        self._rng = np.random.default_rng(context.seed)
        self._intake = Intake(spec, config)
        self._gathered: dict[int, list[Sequences]] = {}  # by stream
        self._gathered_steps = 0
        self._steps = self._updates = 0

    def learn(self, fragment: Fragment) -> Metrics:
        """Take in a fragment; a round of updates if there are enough.

        Always in the result: ``updates``, ``lr``, ``entropy_coef``. After a round also ``loss``, ``policy_loss``,
        ``value_loss``, ``entropy``, ``approx_kl``, ``rho``, ``explained_variance``, ``grad_norm`` and what
        `policy_loss` adds, means over its updates.

        Raises: NotFinite where the loss is no longer finite; it holds the round that led there.
        """
        config = self._config
        self._steps += fragment.steps
        if self._network.input.needs_fit and not config.normalize_obs:
            self._network.input.fit(fragment.obs.reshape(-1, *fragment.obs.shape[2:]))
        stream = self._gathered.setdefault(fragment.stream, [])
        stream.append(Sequences.of(fragment, self._intake.take(fragment)))
        self._gathered_steps += fragment.steps
        rate = self.now(config.learning_rate)
        metrics: Metrics = {"updates": 0.0, "lr": rate, "entropy_coef": self.now(config.entropy)}
        if self._gathered_steps >= config.rollout_steps:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            gathered = [parts for _, parts in sorted(self._gathered.items())]
            if self._network.memory_size:
                whole = side_by_side(list(chain(*gathered)))
            else:
                whole = side_by_side([end_to_end(parts) for parts in gathered])
            self._gathered, self._gathered_steps = {}, 0
            metrics |= self._round(whole.to(self._context.device))
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
            "intake": self._intake.state(),
            "gathered": {str(one): [dict(vars(part)) for part in parts] for one, parts in self._gathered.items()},
            "gathered_steps": self._gathered_steps,
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied. Raises: RuntimeError (torch's) where names or shapes differ."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._rng.bit_generator.state = state["rng"]
        self._intake.load_state(state["intake"])
        self._gathered = {
            int(one): [Sequences(**copy.deepcopy(dict(part))) for part in parts]
            for one, parts in state["gathered"].items()
        }
        self._gathered_steps = state["gathered_steps"]
        self._steps, self._updates = state["steps"], state["updates"]

    def policy_loss(self, acted: Acted) -> tuple[Tensor, dict[str, Tensor]]:
        """The policy's part of the loss, and what else is to be reported of it: scalars."""
        return policy_gradient(acted, self._config.clip_rho), {}

    def now(self, schedule: Schedule) -> float:
        """Its value after the steps so far."""
        return schedule.at(self._steps, self._context.total_steps)

    def _round(self, whole: Sequences) -> Metrics:
        """Go through the sequences ``epochs`` times."""
        config = self._config
        if config.normalize_obs:
            self._network.input.fit_to(*self._intake.moments())
        parts = max(1, round(int(whole.valid.sum()) / config.minibatch_size))
        if parts * config.epochs == 1:
            seen = [self._update(whole, None)]
        else:
            items, corrected = self._corrected_once(whole)
            seen = []
            for _ in range(config.epochs):
                for part in np.array_split(self._rng.permutation(len(items)), min(parts, len(items))):
                    chosen = torch.from_numpy(part).to(self._context.device)
                    seen.append(self._update(items.at(chosen), Corrected(*(each[:, chosen] for each in corrected))))
        means = torch.stack([torch.stack(list(one.values())) for one in seen]).mean(dim=0).tolist()
        metrics = {"updates": float(len(seen)), **dict(zip(seen[0], means, strict=True))}
        if not all(map(np.isfinite, (metrics["loss"], metrics["grad_norm"]))):
            raise NotFinite(
                f"{self.algorithm}: the loss became {metrics['loss']} (gradient norm {metrics['grad_norm']}) within "
                f"the updates up to {self._updates}: use a smaller learning_rate, normalize_reward or scale_reward, "
                f"and look for infinite or enormous numbers in the observations and rewards",
                vars(whole),
            )
        return metrics

    def _run(self, batch: Sequences, ahead: bool) -> tuple[Unrolled, Tensor]:
        """What the network says, and the log-probabilities [T, B] of the actions by it."""
        with autocast(self._context.device, self._config.precision):
            unrolled = unroll(self._network, batch, ahead)
        log_prob = self._actions.log_prob(unrolled.outputs.flatten(0, 1), batch.action.flatten(0, 1))
        return unrolled, log_prob.view_as(unrolled.value)

    def _corrected(self, batch: Sequences, unrolled: Unrolled, log_prob: Tensor) -> Corrected:
        """What V-trace says by the weights of this moment."""
        config, (_, value, next_value) = self._config, unrolled
        assert next_value is not None
        log_ratio = (log_prob.detach() - batch.log_prob).clamp(-_FAR, _FAR)
        settings = (config.discount, config.vtrace_lambda, config.clip_rho, config.clip_c)
        found = vtrace(log_ratio, batch.reward, value, next_value, batch.ends, *settings)
        return Corrected(*found, log_prob.detach())

    @torch.no_grad()
    def _corrected_once(self, whole: Sequences) -> tuple[Sequences, Corrected]:
        """The same for a round, of which minibatches are then chosen: of single steps, as nothing looks ahead any more,
        but of whole sequences where the network remembers."""
        if self._network.memory_size:
            played = whole.valid.any(dim=0)  # fragments of one step may be nothing but a reset
            whole = whole.at(played.nonzero().squeeze(1))
        corrected = self._corrected(whole, *self._run(whole, ahead=True))
        if self._network.memory_size:
            return whole, corrected
        return whole.single_steps(), Corrected(*(each[whole.valid][None] for each in corrected))

    def _update(self, batch: Sequences, corrected: Corrected | None) -> dict[str, Tensor]:
        """One gradient step; returns what is reported of it."""
        config = self._config
        unrolled, log_prob = self._run(batch, ahead=corrected is None)
        flat, value = unrolled.outputs.flatten(0, 1), unrolled.value
        target, advantage, rho, before = corrected or self._corrected(batch, unrolled, log_prob)
        keep = batch.valid
        if config.normalize_advantage:
            kept = advantage[keep]
            advantage = (advantage - kept.mean()) / (kept.std(correction=min(1, len(kept) - 1)) + 1e-8)
        log_ratio, since = ((log_prob - old).clamp(-_FAR, _FAR) for old in (batch.log_prob, before))
        acted = Acted(log_prob[keep], log_ratio[keep], since[keep], advantage[keep], rho[keep])
        policy_loss, others = self.policy_loss(acted)
        value_loss = 0.5 * (value - target)[keep].square().mean()
        entropy = self._actions.entropy(flat).view_as(value)[keep].mean()
        loss = policy_loss + config.value_coef * value_loss - self.now(config.entropy) * entropy
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm or float("inf"))
        self._optimizer.step()
        self._updates += 1
        with torch.no_grad():
            reported = {
                "loss": loss,
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy,
                "approx_kl": (acted.log_ratio.exp() - 1 - acted.log_ratio).mean(),
                "rho": acted.rho.mean(),
                "explained_variance": explained(value[keep], target[keep]),
                "grad_norm": norm,
                **others,
            }
        return {name: number.detach() for name, number in reported.items()}


def _optimizer(config: ImpalaConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, eps=config.optimizer_eps, fused=True)
    decay = 0.99 if config.rmsprop_decay is None else config.rmsprop_decay
    return torch.optim.RMSprop(parameters, alpha=decay, eps=config.optimizer_eps)

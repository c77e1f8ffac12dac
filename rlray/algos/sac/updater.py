"""One gradient step of SAC: critics, actor, temperature and targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlray.algos.networks import InputNorm, export_gradients, export_weights
from rlray.algos.replaying import Updated
from rlray.algos.sac.config import SACConfig
from rlray.algos.sac.loss import critic_loss, policy_loss, soft_target, temperature_gradient
from rlray.algos.sac.network import make_networks
from rlray.algos.squashed import SquashedGaussian, squash
from rlray.algos.targets import Target
from rlray.algos.transfer import TensorBatch
from rlray.algos.types import LearnerContext, Metrics, Weights
from rlray.envs.types import EnvSpec


class SACUpdater:
    """Actor and critics that learn from batches, and target critics that follow them: an `Updater`.

    All gradients of an update are taken at the same weights, then there is one step of Adam for all.

    Guarantees: the same arguments and batches give the same weights, bit for bit on a CPU with the same count of
    threads. Nothing waits for a GPU here.

    Raises: ValueError where the network does not fit the observations.
    """

    figures: tuple[str, ...] = ("loss", "q_mean", "td_error", "grad_norm", "policy_loss", "entropy", "temperature")

    def __init__(self, spec: EnvSpec, settings: SACConfig, context: LearnerContext, actions: SquashedGaussian) -> None:
        self._settings, self._context = settings, context
        device, self._size = context.device, actions.size
        actor, critics = make_networks(spec, settings.network, actions.size, context.seed)
        self.actor, self.critics = actor.to(device), critics.to(device)
        self._following = Target(self.critics)
        self.targets = self._following.network
        self.log_alpha = nn.Parameter(torch.tensor(math.log(settings.temperature), device=device))
        self._of_actor, self._of_critics = list(self.actor.parameters()), list(self.critics.parameters())
        self._parameters = [*self._of_actor, *self._of_critics]
        self._target_entropy = float(-actions.size if settings.target_entropy == "auto" else settings.target_entropy)
        self._unit = actions.unit(device)
        self.optimizer = torch.optim.Adam(
            [*self._parameters, self.log_alpha],
            lr=settings.learning_rate.at(0, context.total_steps),
            eps=settings.adam_eps,
            fused=True,
        )
        self._generator = torch.Generator(device).manual_seed(context.seed)  # of the actions drawn
        self._of_policy = torch.zeros(2, device=device)  # policy_loss and entropy of the last update that had them
        self.updates = 0

    @property
    def input(self) -> InputNorm:
        """How observations are normalised."""
        return self.actor.input

    def set_rate(self, steps: int) -> float:
        """Let Adam's step size be what it is after ``steps`` agent steps, and return it."""
        rate = self._settings.learning_rate.at(steps, self._context.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def update(self, batch: TensorBatch) -> Updated:
        """One gradient step of the critics, one of actor and temperature where it is due, one move of the targets."""
        settings = self._settings
        alpha = self.log_alpha.detach().exp()
        self.optimizer.zero_grad()
        with torch.no_grad():
            x_tm1, x_t = self.input(batch.s_tm1), self.input(batch.s_t)
            a_t, log_prob_t = squash(self.actor.body(x_t), self._noise(len(x_t)))
            q_t = self.targets(x_t, a_t)
        target = soft_target(settings.scale_reward * batch.r_t, batch.discount_t, q_t, log_prob_t, alpha)
        q_tm1 = self.critics(x_tm1, self._unit(batch.a_tm1))
        loss, td_error = critic_loss(q_tm1, target, batch.weight)
        loss.backward(inputs=self._of_critics)  # type: ignore[no-untyped-call]
        if self.updates % settings.policy_every == 0:
            self._of_policy = self._policy_gradients(x_tm1, alpha)
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, settings.max_grad_norm or float("inf"))
        self.optimizer.step()
        self._following.move(settings.target_tau)
        self.updates += 1
        off = td_error.abs().mean(dim=0)
        own = torch.stack((loss.detach(), q_tm1.detach().mean(), off.mean(), grad_norm))
        return Updated(off, torch.cat((own, self._of_policy, alpha[None])))

    def metrics(self) -> Metrics:
        """Nothing but the figures."""
        return {}

    def weights(self) -> Weights:
        """A copy of the actor's weights and of its input's normalisation, on the CPU."""
        return export_weights(self.actor)

    def gradients(self) -> Weights:
        """Copies of the gradients of the last update, after clipping; the actor's only where it was due."""
        return {**export_gradients(self.actor), **export_gradients(self.critics, "critics.")}

    def state(self) -> dict[str, Any]:
        """Networks, temperature, optimiser, counters and random numbers. Tensors are not copied.

        Torch's own generators are among the latter: networks of one's own may draw from them.
        """
        return {
            "actor": dict(self.actor.state_dict()),
            "critics": dict(self.critics.state_dict()),
            "targets": dict(self.targets.state_dict()),
            "log_alpha": self.log_alpha.detach(),
            "optimizer": self.optimizer.state_dict(),
            "of_policy": self._of_policy,
            "updates": self.updates,
            "noise": self._generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if self._context.device == "cuda" else None,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied.

        Raises: RuntimeError (torch's) where networks have other names or shapes.
        """
        self.actor.load_state_dict(state["actor"])
        self.critics.load_state_dict(state["critics"])
        self.targets.load_state_dict(state["targets"])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._of_policy = state["of_policy"].clone().to(self._context.device)
        self.updates = state["updates"]
        self._generator.set_state(state["noise"])
        torch.set_rng_state(state["torch"])
        if self._context.device == "cuda" and state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"])

    def _policy_gradients(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Gradients for actor and temperature; returns the policy's loss and its entropy [2]."""
        with torch.no_grad():
            features = self.critics.trunk(x)
        actions, log_prob = squash(self.actor.body(x), self._noise(len(x)))
        loss = policy_loss(self.critics.of_features(features, actions), log_prob, alpha)
        loss.backward(inputs=self._of_actor)  # type: ignore[no-untyped-call]
        if self._settings.tune_temperature:
            self.log_alpha.grad = temperature_gradient(log_prob, self._target_entropy)
        return torch.stack((loss.detach(), -log_prob.detach().mean()))

    def _noise(self, rows: int) -> Tensor:
        return torch.randn(rows, self._size, generator=self._generator, device=self._context.device)

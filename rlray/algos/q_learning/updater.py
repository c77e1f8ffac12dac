"""One gradient step of Q-learning: the networks, the target, the optimiser, and the noise in between."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlray.algos.networks import InputNorm, autocast, computes_in_bfloat16, export_gradients, export_weights
from rlray.algos.noise import Noise
from rlray.algos.q_learning.heads import make_head
from rlray.algos.q_learning.losses import of_action
from rlray.algos.q_learning.network import make_q_network
from rlray.algos.q_learning.settings import QLearningSettings
from rlray.algos.replaying import Updated
from rlray.algos.replica import Replica
from rlray.algos.targets import Target
from rlray.algos.transfer import TensorBatch
from rlray.algos.types import LearnerContext, Metrics, Weights
from rlray.envs.types import EnvSpec


class QUpdater:
    """An online network that learns from batches, and a target network that follows it: an `Updater`.

    Guarantees: the same arguments and batches give the same weights, bit for bit on a CPU with the same count of
    threads. Nothing waits for a GPU here.

    Args:
        actions: how many there are; those in batches are counted from ``first_action``.

    Raises: ValueError where the network does not fit the observations.
    """

    figures: tuple[str, ...] = ("loss", "q_mean", "td_error", "grad_norm")

    def __init__(
        self, spec: EnvSpec, settings: QLearningSettings, context: LearnerContext, actions: int, first_action: int = 0
    ) -> None:
        self._settings, self._context, self._first_action = settings, context, first_action
        device = context.device
        self.head = make_head(settings, device)
        self.network = make_q_network(spec, settings.network, actions, context.seed, self.head.size).to(device)
        self._following = Target(self.network.body)
        self.target = self._following.network
        self.parameters = list(self.network.parameters())
        rate = settings.learning_rate.at(0, context.total_steps)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
            self.parameters, lr=rate, eps=settings.adam_eps, fused=True
        )
        # A network of one's own may do what bfloat16 parameters do not allow.
        bfloat16 = computes_in_bfloat16(device, settings.precision) and ":" not in settings.network.kind
        self._online, self._frozen = Replica(self.network.body, bfloat16), Replica(self.target, bfloat16)
        self._noise, self._target_noise = Noise(self._online.network), Noise(self._frozen.network)
        self._generator = torch.Generator(device).manual_seed(context.seed)  # of the noise
        self.updates = 0

    @property
    def input(self) -> InputNorm:
        """How observations are normalised."""
        return self.network.input

    def set_rate(self, steps: int) -> float:
        """Let Adam's step size be what it is after ``steps`` agent steps, and return it."""
        rate = self._settings.learning_rate.at(steps, self._context.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def update(self, batch: TensorBatch) -> Updated:
        """One gradient step, and one of the target network where it is due."""
        network, settings, device = self.network, self._settings, self._context.device
        with torch.no_grad(), autocast(device, settings.precision):
            x_t = network.input(batch.s_t)  # both networks see the same
            self._target_noise.draw(self._normal)
            outputs_t = network.shaped(self._frozen.network(x_t))
            q_t = chooser = self.head.q_values(outputs_t)
            if settings.double:
                self._noise.draw(self._normal)
                chooser = self.head.q_values(network.shaped(self._online.network(x_t)))
            a_t = chooser.argmax(dim=1)
        self._noise.draw(self._normal)
        # A context of its own: autocast keeps converted weights, and those made without gradients would be reused.
        with autocast(device, settings.precision):
            outputs_tm1 = network.shaped(self._online.network(network.input(batch.s_tm1)))
        a_tm1 = batch.a_tm1 - self._first_action
        losses = self.head.losses(outputs_tm1, a_tm1, batch, outputs_t, a_t)
        loss = (losses.loss * batch.weight).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._online.return_gradients()
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm or float("inf"))
        self.optimizer.step()
        self._online.refresh()
        self.updates += 1
        if self.updates % settings.target_update_every == 0:
            self._following.move(settings.target_tau)
            self._frozen.refresh()
        with torch.no_grad():
            q_tm1 = self.head.q_values(outputs_tm1)
            td_error = batch.r_t + batch.discount_t * of_action(q_t, a_t) - of_action(q_tm1, a_tm1)
            figures = torch.stack((loss.detach(), q_tm1.mean(), td_error.abs().mean(), grad_norm))
        return Updated(losses.priority, figures)

    def metrics(self) -> Metrics:
        """``noise``, the mean absolute size of the noise in the weights, where there are noisy layers."""
        return {"noise": float(Noise(self.network).size())} if self._noise else {}

    def weights(self) -> Weights:
        """A copy of the online network's weights and of its input's normalisation, on the CPU."""
        return export_weights(self.network)

    def gradients(self) -> Weights:
        """Copies of the online network's gradients of the last update, after clipping."""
        return export_gradients(self.network)

    def state(self) -> dict[str, Any]:
        """Networks, optimiser, counters and random numbers. Tensors are not copied.

        Torch's own generators are among the latter: networks of one's own may draw from them.
        """
        return {
            "network": dict(self.network.state_dict()),
            "target": dict(self.target.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "noise": self._generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if self._context.device == "cuda" else None,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied.

        Raises: RuntimeError (torch's) where networks have other names or shapes.
        """
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        self._online.refresh()
        self._frozen.refresh()
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.updates = state["updates"]
        self._generator.set_state(state["noise"])
        torch.set_rng_state(state["torch"])
        if self._context.device == "cuda" and state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"])

    def _normal(self, rows: int, size: int) -> Tensor:
        return torch.randn(rows, size, generator=self._generator, device=self._context.device)

"""Turns fragments into better action values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlray.algos.networks import autocast, export_gradients, export_weights
from rlray.algos.pqn import discrete_actions
from rlray.algos.pqn.config import PQNConfig
from rlray.algos.pqn.rollout import Rollout, RolloutBuilder
from rlray.algos.q_learning.losses import of_action
from rlray.algos.q_learning.network import make_q_network
from rlray.algos.types import Fragment, LearnerContext, Metrics, NotFinite, Weights
from rlray.envs.types import EnvSpec


class PQNLearner:
    """Parallel Q-learning: no replay, no target network; normalised layers keep the values in bounds.

    Guarantees: the same spec, settings, context and fragments give the same weights, bit for bit on a CPU with the same
    count of threads. Fragments are gathered until they have ``rollout_steps`` steps; then there is a round of
    updates. A truncated episode bootstraps from its true last observation.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: PQNConfig, context: LearnerContext) -> None:
        space = discrete_actions(spec)
        self._config, self._context, self._start = config, context, int(space.start)
        self._network = make_q_network(spec, config.network, int(space.n), context.seed).to(context.device)
        self._parameters = list(self._network.parameters())
        self._optimizer = torch.optim.RAdam(self._parameters, config.learning_rate.at(0, context.total_steps))
        self._rng = np.random.default_rng(context.seed)
        self._builder = RolloutBuilder(spec, config, self._best)
        self._steps = self._updates = 0

    def learn(self, fragment: Fragment) -> Metrics:
        """Take in a fragment; a round of updates if there are enough.

        Always in the result: ``updates``, ``lr``, ``epsilon``. After a round also ``loss``, ``q_mean``, ``td_error``
        and ``grad_norm`` (means over it).

        Raises: NotFinite where the loss is no longer finite; it holds the round that led there.
        """
        config = self._config
        self._steps += fragment.steps
        if self._network.input.needs_fit:
            self._network.input.fit(fragment.obs.reshape(-1, *fragment.obs.shape[2:]))
        self._builder.add(fragment)
        rate = config.learning_rate.at(self._steps, self._context.total_steps)
        metrics: Metrics = {"updates": 0.0, "lr": rate, "epsilon": config.epsilon.at(self._steps)}
        if self._builder.steps >= config.rollout_steps:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            metrics |= self._round(self._builder.take())
        return metrics

    def weights(self) -> Weights:
        """A copy of the network's weights and of its input's normalisation, on the CPU."""
        return export_weights(self._network)

    def gradients(self) -> Weights:
        """Copies of the gradients of the last update, after clipping."""
        return export_gradients(self._network)

    def state(self) -> dict[str, Any]:
        """Everything: network, optimiser, counters, random numbers, fragments not yet learned from."""
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

    @torch.no_grad()
    def _best(self, obs: NDArray[Any]) -> Tensor:
        """Values [N] of the best actions in observations [N, ...], on the CPU."""
        shared = torch.from_numpy(obs if obs.flags.writeable else obs.copy())  # torch warns of read-only memory
        return self._q(shared.to(self._context.device)).amax(dim=1).cpu()

    def _q(self, obs: Tensor) -> Tensor:
        """Values [N, A] float32."""
        with autocast(self._context.device, self._config.precision):
            values: Tensor = self._network(obs).squeeze(2)
        return values

    def _round(self, rollout: Rollout) -> Metrics:
        """Go through a rollout ``epochs`` times."""
        config, device = self._config, self._context.device
        rollout = rollout.to(device)
        parts = max(1, round(len(rollout) / config.minibatch_size))
        seen: list[Tensor] = []
        for _ in range(config.epochs):
            order = self._rng.permutation(len(rollout))
            seen += [
                self._update(rollout.at(torch.from_numpy(part).to(device))) for part in np.array_split(order, parts)
            ]
        names = ("loss", "q_mean", "td_error", "grad_norm")
        metrics = {"updates": float(len(seen)), **dict(zip(names, torch.stack(seen).mean(dim=0).tolist(), strict=True))}
        if not all(map(np.isfinite, (metrics["loss"], metrics["grad_norm"]))):
            raise NotFinite(
                f"pqn: the loss became {metrics['loss']} (gradient norm {metrics['grad_norm']}) within the updates up "
                f"to {self._updates}: use a smaller learning_rate, clip_reward or scale_reward, and network: "
                f"{{layer_norm: true}}",
                vars(rollout),
            )
        return metrics

    def _update(self, batch: Rollout) -> Tensor:
        """One gradient step on half the mean squared error; returns what is reported of it [4]."""
        q = self._q(batch.obs)
        error = of_action(q, batch.action - self._start) - batch.target
        loss = 0.5 * error.square().mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm or float("inf"))
        self._optimizer.step()
        self._updates += 1
        return torch.stack([loss.detach(), q.detach().mean(), error.detach().abs().mean(), norm.detach()])

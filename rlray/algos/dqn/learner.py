"""Turns fragments into better action values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlray.algos.dqn import discrete_actions
from rlray.algos.dqn.config import DQNConfig
from rlray.algos.dqn.loss import q_learning_loss
from rlray.algos.networks import autocast, export_weights, make_q_network
from rlray.algos.replay import NStepReplay
from rlray.algos.transfer import BatchLoader, TensorBatch
from rlray.algos.types import Fragment, LearnerContext, Metrics, NotFinite, Weights
from rlray.envs.types import EnvSpec

FRAMES_FOR_NORM = 5_000


class DQNLearner:
    """Double DQN with n-step returns, a uniform replay and a target network.

    Guarantees: the same spec, settings, context and fragments give the same weights, bit for bit on a CPU with the
    same count of threads. Updates follow the steps: after warm-up, ``samples_per_step`` transitions are replayed for
    every agent step taken in, whatever the sizes of fragments.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: DQNConfig, context: LearnerContext) -> None:
        space = discrete_actions(spec)
        self._first_action = int(space.start)
        self._config, self._context = config, context
        network = make_q_network(spec, config.network, int(space.n), context.seed)
        self._network = network.to(context.device)
        self._target = copy.deepcopy(network.body).requires_grad_(False)
        self._parameters = list(network.parameters())
        theirs = network.body.state_dict(keep_vars=True)
        self._pairs = [(own, theirs[name]) for name, own in self._target.state_dict(keep_vars=True).items()]
        self._optimizer = torch.optim.Adam(
            self._parameters, lr=config.learning_rate.at(0, context.total_steps), eps=config.adam_eps, fused=True
        )
        self._replay = NStepReplay(
            spec, config.replay_capacity, config.n_step, config.discount, clip_reward=config.clip_reward
        )
        self._loader = BatchLoader(self._replay, config.batch_size, context.device)
        self._rng = np.random.default_rng(context.seed)
        self._batch: TensorBatch  # the last one
        self._steps = 0  # agent steps taken in
        self._updates = 0
        self._owed = 0.0  # transitions still to be replayed for the steps taken in

    def learn(self, fragment: Fragment) -> Metrics:
        """Put ``fragment`` into the replay and do the updates that are due.

        Returns ``updates``, ``replay_fill``, ``epsilon``, ``lr``; where there were updates also their means
        ``loss``, ``q_mean``, ``td_error``, ``grad_norm``.

        Raises: NotFinite where a loss was infinite or not a number; the weights are then spoilt.
        """
        self._replay.add(fragment)
        self._steps += fragment.steps
        config, rate = self._config, self._config.learning_rate.at(self._steps, self._context.total_steps)
        updates, sums = 0, torch.zeros(4, device=self._context.device)
        if self._warmed_up():
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._owed += fragment.steps * config.samples_per_step
            while self._owed >= config.batch_size:
                self._owed -= config.batch_size
                sums += (update := self._update())
                updates += 1
                if update.device.type == "cpu" and not bool(update.isfinite().all()):
                    break  # the batch at hand is the one; on a GPU to look would mean to wait
        metrics = {
            "updates": float(updates),
            "replay_fill": self._replay.fill,
            "epsilon": config.epsilon.at(self._steps),
            "lr": rate,
        }
        if updates:
            names = ("loss", "q_mean", "td_error", "grad_norm")
            metrics.update(zip(names, (sums / updates).tolist(), strict=True))
            self._check_finite(metrics)
        return metrics

    def weights(self) -> Weights:
        """A copy of the online network's weights and of its input's normalisation, on the CPU."""
        return export_weights(self._network)

    def state(self) -> dict[str, Any]:
        """All of it; tensors and what the replay holds are not copied."""
        return {
            "replay": self._replay.state(),
            "network": dict(self._network.state_dict()),
            "target": dict(self._target.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "rng": self._rng.bit_generator.state,
            "steps": self._steps,
            "updates": self._updates,
            "owed": self._owed,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied. Without the key "replay" the replay keeps what it holds, and fills to
        the warm-up again.

        Raises: RuntimeError (torch's) where networks have other names or shapes.
        """
        self._network.load_state_dict(state["network"])
        self._target.load_state_dict(state["target"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._rng.bit_generator.state = state["rng"]
        self._steps, self._updates, self._owed = state["steps"], state["updates"], state["owed"]
        if "replay" in state:
            self._replay.load_state(state["replay"])

    def _warmed_up(self) -> bool:
        """Whether the replay holds enough; the first time that it does, the input's normalisation is measured."""
        if len(self._replay) < self._config.warmup_steps or not self._replay.eligible:
            return False
        if self._network.input.needs_fit:
            self._network.input.fit(self._replay.frames(FRAMES_FOR_NORM))
        return True

    def _update(self) -> Tensor:
        """One gradient step; returns loss, mean q, mean absolute TD error and gradient norm [4]."""
        config, network = self._config, self._network
        self._batch = s_tm1, a_tm1, r_t, discount_t, s_t = self._loader.next(self._rng)
        with torch.no_grad(), autocast(self._context.device, config.precision):
            x_t = network.input(s_t)  # both networks see the same
            q_t_value = self._target(x_t).float()
            q_t_selector = network.body(x_t).float() if config.double else q_t_value
        # A context of its own: autocast keeps converted weights, and those made without gradients would be reused.
        with autocast(self._context.device, config.precision):
            q_tm1 = network(s_tm1)
        losses, td_error = q_learning_loss(
            q_tm1, a_tm1 - self._first_action, r_t, discount_t, q_t_value, q_t_selector, config.huber_delta
        )
        loss = losses.mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, config.max_grad_norm or float("inf"))
        self._optimizer.step()
        self._updates += 1
        if self._updates % config.target_update_every == 0:
            self._move_target()
        return torch.stack((loss.detach(), q_tm1.detach().mean(), td_error.abs().mean(), grad_norm.detach()))

    @torch.no_grad()
    def _move_target(self) -> None:
        for own, theirs in self._pairs:
            if own.is_floating_point():
                own.lerp_(theirs, self._config.target_tau)
            else:
                own.copy_(theirs)

    def _check_finite(self, metrics: Metrics) -> None:
        if not all(map(np.isfinite, (metrics["loss"], metrics["grad_norm"]))):
            raise NotFinite(
                f"dqn: the loss became {metrics['loss']} (gradient norm {metrics['grad_norm']}) within the updates up "
                f"to {self._updates}: use a smaller learning_rate or max_grad_norm, set clip_reward, and look for "
                f"infinite or enormous numbers in the observations and rewards",
                self._batch._asdict(),
            )

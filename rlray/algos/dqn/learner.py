"""Turns fragments into better action values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlray.algos.dqn import discrete_actions
from rlray.algos.dqn.config import DQNConfig
from rlray.algos.q_learning.updater import QUpdater
from rlray.algos.replay import NStepReplay, Priorities
from rlray.algos.transfer import BatchLoader, PriorityReturn, TensorBatch
from rlray.algos.types import Fragment, LearnerContext, Metrics, NotFinite, Weights
from rlray.envs.types import EnvSpec

FRAMES_FOR_NORM = 5_000


class DQNLearner:
    """Q-learning from a replay: which kind, the settings say.

    Guarantees: the same spec, settings, context and fragments give the same weights, bit for bit on a CPU with the
    same count of threads; so does going on from a saved state. Updates follow the steps: after warm-up,
    ``samples_per_step`` transitions are replayed for every agent step taken in, whatever the sizes of fragments.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: DQNConfig, context: LearnerContext) -> None:
        space = discrete_actions(spec)
        self._config, self._context = config, context
        self._updater = QUpdater(spec, config, context, int(space.n), int(space.start))
        self._replay = NStepReplay(
            spec,
            config.replay_capacity,
            config.n_step,
            config.discount,
            clip_reward=config.clip_reward,
            priorities=Priorities(config.priority_alpha, config.priority_floor) if config.prioritized else None,
        )
        self._loader = BatchLoader(self._replay, config.batch_size, context.device)
        self._returning = PriorityReturn(self._replay) if config.prioritized else None
        self._rng = np.random.default_rng(context.seed)
        self._batch: TensorBatch  # the last one
        self._steps = 0  # agent steps taken in
        self._owed = 0.0  # transitions still to be replayed for the steps taken in

    def learn(self, fragment: Fragment) -> Metrics:
        """Put ``fragment`` into the replay and do the updates that are due.

        Returns ``updates``, ``replay_fill``, ``epsilon``, ``lr``, and by priority ``replay_beta``; where there were
        updates also their means ``loss``, ``q_mean``, ``td_error``, ``grad_norm``, and with noisy layers ``noise``.

        Raises: NotFinite where a loss was infinite or not a number; the weights are then spoilt.
        """
        self._replay.add(fragment)
        self._steps += fragment.steps
        config = self._config
        rate = self._updater.set_rate(self._steps)
        updates, sums = 0, torch.zeros(4, device=self._context.device)
        if self._warmed_up():
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
        if config.prioritized:
            metrics["replay_beta"] = self._beta()
        if updates:
            names = ("loss", "q_mean", "td_error", "grad_norm")
            metrics.update(zip(names, (sums / updates).tolist(), strict=True))
            self._check_finite(metrics["loss"], metrics["grad_norm"])
            if self._returning is not None:
                self._returning.settle()
            metrics.update(self._updater.metrics())
        return metrics

    def weights(self) -> Weights:
        """A copy of the online network's weights and of its input's normalisation, on the CPU."""
        return self._updater.weights()

    def state(self) -> dict[str, Any]:
        """All that learning goes on from. Nothing is copied: use it before the next `learn`.

        What the replay holds, by far the largest part, lies under ``replay``.
        """
        return {
            "updater": self._updater.state(),
            "rng": self._rng.bit_generator.state,
            "steps": self._steps,
            "owed": self._owed,
            "replay": self._replay.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied. Without ``replay`` in it, the replay fills to the warm-up again.

        Raises:
            RuntimeError: (torch's) networks have other names or shapes.
            ValueError: the replay was made with other settings.
        """
        if "replay" in state:
            self._replay.load_state(state["replay"])
        self._updater.load_state(state["updater"])
        self._rng.bit_generator.state = state["rng"]
        self._steps, self._owed = state["steps"], state["owed"]

    def _warmed_up(self) -> bool:
        """Whether the replay holds enough; the first time that it does, the input's normalisation is measured."""
        if len(self._replay) < self._config.warmup_steps or not self._replay.eligible:
            return False
        if self._updater.network.input.needs_fit:
            self._updater.network.input.fit(self._replay.frames(FRAMES_FOR_NORM))
        return True

    def _update(self) -> Tensor:
        """One gradient step; returns loss, mean q, mean absolute TD error and gradient norm [4]."""
        batch, index = self._loader.next(self._rng, self._beta())
        self._batch = batch
        updated = self._updater.update(batch)
        if self._returning is not None:
            self._returning.give(index, updated.priority)
        return updated.figures

    def _beta(self) -> float:
        return self._config.priority_beta.at(self._steps, self._context.total_steps)

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        if not (np.isfinite(loss) and np.isfinite(grad_norm)):
            raise NotFinite(
                f"dqn: the loss became {loss} (gradient norm {grad_norm}) within the updates up to "
                f"{self._updater.updates}: use a smaller learning_rate or max_grad_norm, set clip_reward, and look for "
                f"infinite or enormous numbers in the observations and rewards",
                self._batch._asdict(),
            )

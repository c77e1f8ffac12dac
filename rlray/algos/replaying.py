"""From fragments to updates: what learners with a replay do besides their gradient steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rlray.algos.networks import InputNorm
from rlray.algos.replay import NStepReplay
from rlray.algos.replay.settings import ReplaySettings
from rlray.algos.transfer import BatchLoader, PriorityReturn, TensorBatch
from rlray.algos.types import Fragment, LearnerContext, Metrics, NotFinite, Weights

FRAMES_FOR_NORM = 5_000


class Updated(NamedTuple):
    """What a gradient step saw."""

    priority: Tensor  # [B] of each transition
    figures: Tensor  # one number for each of `Updater.figures`


class Updater(Protocol):
    """What learns from batches: networks, targets, optimiser. Nothing in it waits for a GPU."""

    figures: tuple[str, ...]  # the names of what an update reports; "loss" and "grad_norm" are among them
    updates: int  # gradient steps so far

    @property
    def input(self) -> InputNorm:
        """How observations are normalised."""

    def set_rate(self, steps: int) -> float:
        """Let the optimiser's step size be what it is after ``steps`` agent steps, and return it."""

    def update(self, batch: TensorBatch) -> Updated:
        """One gradient step."""

    def metrics(self) -> Metrics:
        """What is to be reported of the networks as they are now."""

    def weights(self) -> Weights:
        """A copy of what policies run with, on the CPU."""

    def gradients(self) -> Weights:
        """Copies of the gradients of the last update, after clipping, by name."""

    def state(self) -> dict[str, Any]:
        """All that learning goes on from. Tensors are not copied."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied."""


class ReplayLearner:
    """Puts fragments into a replay and lets an `Updater` learn from what is drawn from it.

    Guarantees: updates follow the steps: after warm-up, ``samples_per_step`` transitions are replayed for every agent
    step taken in, whatever the sizes of fragments. Where the updater is deterministic, so is this.

    Args:
        name: of the algorithm, for errors.
    """

    def __init__(
        self,
        name: str,
        replay: NStepReplay,
        updater: Updater,
        settings: ReplaySettings,
        batch_size: int,
        context: LearnerContext,
    ) -> None:
        self._name, self._replay, self._updater = name, replay, updater
        self._settings, self._batch_size, self._context = settings, batch_size, context
        self._loader = BatchLoader(replay, batch_size, context.device)
        self._returning = PriorityReturn(replay) if settings.prioritized else None
        self._rng = np.random.default_rng(context.seed)
        self._batch: TensorBatch  # the last one
        self._steps = 0  # agent steps taken in
        self._owed = 0.0  # transitions still to be replayed for the steps taken in

    def learn(self, fragment: Fragment) -> Metrics:
        """Put ``fragment`` into the replay and do the updates that are due.

        Returns ``updates``, ``replay_fill``, ``lr``, and by priority ``replay_beta``; where there were updates also the
        means of the updater's figures and its metrics.

        Raises: NotFinite where a loss was infinite or not a number; the weights are then spoilt.
        """
        self._replay.add(fragment)
        self._steps += fragment.steps
        updater = self._updater
        rate = updater.set_rate(self._steps)
        updates, sums = 0, torch.zeros(len(updater.figures), device=self._context.device)
        if self._warmed_up():
            self._owed += fragment.steps * self._settings.samples_per_step
            while self._owed >= self._batch_size:
                self._owed -= self._batch_size
                sums += (update := self._update())
                updates += 1
                if update.device.type == "cpu" and not bool(update.isfinite().all()):
                    break  # the batch at hand is the one; on a GPU to look would mean to wait
        metrics = {"updates": float(updates), "replay_fill": self._replay.fill, "lr": rate}
        if self._settings.prioritized:
            metrics["replay_beta"] = self._beta()
        if updates:
            metrics.update(zip(updater.figures, (sums / updates).tolist(), strict=True))
            self._check_finite(metrics["loss"], metrics["grad_norm"])
            if self._returning is not None:
                self._returning.settle()
            metrics.update(updater.metrics())
        return metrics

    def weights(self) -> Weights:
        """A copy of what policies run with, on the CPU."""
        return self._updater.weights()

    def gradients(self) -> Weights:
        """Copies of the gradients of the last update, after clipping."""
        return self._updater.gradients()

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
        if len(self._replay) < self._settings.warmup_steps or not self._replay.eligible:
            return False
        if self._updater.input.needs_fit:
            self._updater.input.fit(self._replay.frames(FRAMES_FOR_NORM))
        return True

    def _update(self) -> Tensor:
        """One gradient step; returns its figures."""
        batch, index = self._loader.next(self._rng, self._beta())
        self._batch = batch
        updated = self._updater.update(batch)
        if self._returning is not None:
            self._returning.give(index, updated.priority)
        return updated.figures

    def _beta(self) -> float:
        return self._settings.priority_beta.at(self._steps, self._context.total_steps)

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        if not (np.isfinite(loss) and np.isfinite(grad_norm)):
            raise NotFinite(
                f"{self._name}: the loss became {loss} (gradient norm {grad_norm}) within the updates up to "
                f"{self._updater.updates}: use a smaller learning_rate or max_grad_norm, set clip_reward, and look for "
                f"infinite or enormous numbers in the observations and rewards",
                self._batch._asdict(),
            )

"""Turns batches that a replay elsewhere has drawn into better action values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rlray.algos.apex import discrete_actions
from rlray.algos.apex.config import ApexConfig
from rlray.algos.apex.drawn import Drawn, Returned
from rlray.algos.q_learning.updater import QUpdater
from rlray.algos.transfer import TensorBatch
from rlray.algos.types import LearnerContext, Metrics, NotFinite, Weights
from rlray.envs.types import EnvSpec


class ApexLearner:
    """The updates of DQN.

    Guarantees: the same spec, settings, context and batches give the same weights, bit for bit on a CPU with the same
    count of threads; so does going on from a saved state.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: ApexConfig, context: LearnerContext) -> None:
        space = discrete_actions(spec)
        self._context = context
        self._updater = QUpdater(spec, config, context, int(space.n), int(space.start))

    def learn_drawn(self, drawn: Drawn) -> tuple[Metrics, Returned]:
        """One update for each batch of ``drawn``, and the priorities that they found.

        Metrics: ``updates``, ``lr``; the means ``loss``, ``q_mean``, ``td_error``, ``grad_norm``, and with noisy layers
        ``noise``.

        Raises: NotFinite where a loss was infinite or not a number; the weights are then spoilt.
        """
        updater = self._updater
        if updater.network.input.needs_fit and drawn.frames is not None:
            updater.network.input.fit(drawn.frames)
        rate = updater.set_rate(drawn.steps)
        arrays, figures, priorities = vars(drawn.batches), [], []
        for k in range(len(drawn.batches.index)):
            # Copied, since what has travelled is read-only, which torch does not know.
            batch = TensorBatch(*(torch.from_numpy(np.array(arrays[name][k])) for name in TensorBatch._fields))
            updated = updater.update(TensorBatch(*(tensor.to(self._context.device) for tensor in batch)))
            figures.append(updated.figures)
            priorities.append(updated.priority)
            if self._context.device == "cpu":  # on a GPU to look would mean to wait
                self._check_finite(updated.figures.tolist(), batch)
        means = torch.stack(figures).mean(dim=0).tolist()
        self._check_finite(means, batch)
        names = ("loss", "q_mean", "td_error", "grad_norm")
        metrics = {"updates": float(len(figures)), "lr": rate, **dict(zip(names, means, strict=True))}
        priority = torch.stack(priorities).cpu().numpy()
        return {**metrics, **updater.metrics()}, Returned(np.array(drawn.batches.index), priority)

    def weights(self) -> Weights:
        """A copy of the online network's weights and of its input's normalisation, on the CPU."""
        return self._updater.weights()

    def gradients(self) -> Weights:
        """Copies of the gradients of the last update, after clipping."""
        return self._updater.gradients()

    def state(self) -> dict[str, Any]:
        """Networks, optimiser, counters and random numbers. Nothing is copied: use it before the next update."""
        return {"updater": self._updater.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied. Raises: RuntimeError (torch's) where networks differ."""
        self._updater.load_state(state["updater"])

    def _check_finite(self, figures: list[float], batch: TensorBatch) -> None:
        loss, _, _, grad_norm = figures
        if not (np.isfinite(loss) and np.isfinite(grad_norm)):
            raise NotFinite(
                f"apex: the loss became {loss} (gradient norm {grad_norm}) within the updates up to "
                f"{self._updater.updates}: use a smaller learning_rate or max_grad_norm, set clip_reward, and look for "
                f"infinite or enormous numbers in the observations and rewards",
                batch._asdict(),
            )

"""Turns the outcomes of trials into a better policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlray.algos.es.config import ESConfig
from rlray.algos.es.gradient import centred_ranks, estimate
from rlray.algos.es.policy import Network
from rlray.algos.es.trials import OFFSET, SEEN, SQUARES, TOTAL
from rlray.algos.running import RunningMoments
from rlray.algos.types import LearnerContext, Metrics, NotFinite, Outcomes, Weights
from rlray.envs.types import EnvSpec

_STD_FLOOR = 0.01
"""Least deviation that observations are divided by, in their own units."""


class ESLearner:
    """Evolution strategies with mirrored sampling and centred ranks, on the CPU.

    Guarantees: the same spec, settings, context and outcomes give the same weights, bit for bit on a CPU with the same
    count of threads. Outcomes are gathered until there are ``population`` trials; then there is one update.

    Raises: as `Network`.
    """

    def __init__(self, spec: EnvSpec, config: ESConfig, context: LearnerContext) -> None:
        self._config, self._context = config, context
        self._network = network = Network(spec, config)
        self._noise: NDArray[np.float32] = context.shared
        self._theta = torch.from_numpy(network.first(np.random.default_rng(context.seed)))
        self._optimizer = self._make_optimizer()
        self._moments = RunningMoments((network.inputs,)) if config.normalize_obs else None
        self._waiting: list[Outcomes] = []
        self._steps = self._updates = 0

    def learn(self, outcomes: Outcomes) -> Metrics:
        """Take in what some trials came to; one update if that makes a generation.

        Always in the result: ``updates`` and ``lr``. After an update also ``trial_mean``, ``trial_max`` and
        ``trial_std`` (of the trials' mean returns), ``grad_norm``, ``weight_norm`` and ``step_norm`` (how far the
        parameters moved).

        Raises: NotFinite where the parameters are no longer finite; it holds the generation that led there.
        """
        self._steps += outcomes.steps
        self._waiting.append(outcomes)
        rate = self._config.learning_rate.at(self._steps, self._context.total_steps)
        metrics: Metrics = {"updates": 0.0, "lr": rate}
        if sum(len(one.trial) for one in self._waiting) >= self._config.population:
            gathered, self._waiting = self._waiting, []
            metrics |= self._update(gathered, rate)
        return metrics

    def weights(self) -> Weights:
        """``theta``, and ``mean`` and ``std`` of the observations: copies."""
        inputs = self._network.inputs
        mean: NDArray[np.float64] = np.zeros(inputs)
        std: NDArray[np.float64] = np.ones(inputs)
        if self._moments is not None and self._moments.count:
            mean, std = self._moments.mean, np.maximum(self._moments.std, _STD_FLOOR)
        return {
            "theta": self._theta.numpy().copy(),
            "mean": mean.astype(np.float32),
            "std": std.astype(np.float32),
        }

    def gradients(self) -> Weights:
        """A copy of the last generation's estimate, as ``theta``; empty before the first."""
        estimate = self._theta.grad
        return {} if estimate is None else {"theta": estimate.numpy().copy()}

    def state(self) -> dict[str, Any]:
        """Everything: parameters, optimiser, counters, normalisation, outcomes not yet learned from."""
        return {
            "theta": self._theta,
            "optimizer": self._optimizer.state_dict(),
            "moments": None if self._moments is None else self._moments.state(),
            "waiting": [vars(one) for one in self._waiting],
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied. Raises: RuntimeError (torch's) where sizes differ."""
        self._theta.copy_(state["theta"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if self._moments is not None:
            self._moments.load_state(state["moments"])
        self._waiting = [Outcomes(**copy.deepcopy(dict(one))) for one in state["waiting"]]
        self._steps, self._updates = state["steps"], state["updates"]

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self._config
        rate = config.learning_rate.at(0, self._context.total_steps)
        if config.optimizer == "adam":
            return torch.optim.AdamW(
                [self._theta], rate, (config.momentum, 0.999), weight_decay=config.weight_decay, maximize=True
            )
        return torch.optim.SGD([self._theta], rate, config.momentum, weight_decay=config.weight_decay, maximize=True)

    def _update(self, gathered: list[Outcomes], rate: float) -> Metrics:
        config = self._config
        gathered.sort(key=lambda one: (one.round, int(one.trial[0])))  # not by arrival
        fitness = np.concatenate([one.returns.mean(axis=1) for one in gathered])
        offsets = np.concatenate([one.extras[OFFSET] for one in gathered])
        ranks = centred_ranks(fitness)
        gains = ranks[0::2] - ranks[1::2]  # a trial, and its mirror image right after it
        gradient = torch.from_numpy(estimate(self._noise, offsets[0::2], gains, self._network.size, config.sigma))
        before = self._theta.clone()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._theta.grad = gradient
        self._optimizer.step()
        self._updates += 1
        if self._moments is not None:
            seen = [np.concatenate([one.extras[name] for one in gathered]) for name in (SEEN, TOTAL, SQUARES)]
            self._moments.add_sums(*(sums.sum(axis=0) for sums in seen))  # by trial: however they came in parts
        if not torch.isfinite(self._theta).all():
            raise NotFinite(
                f"es: parameters are no longer finite after update {self._updates}: use a smaller learning_rate",
                {"outcomes": [vars(one) for one in gathered], "gradient": gradient},
            )
        return {
            "updates": 1.0,
            "trial_mean": float(fitness.mean()),
            "trial_max": float(fitness.max()),
            "trial_std": float(fitness.std()),
            "grad_norm": float(gradient.norm()),
            "weight_norm": float(self._theta.norm()),
            "step_norm": float((self._theta - before).norm()),
        }

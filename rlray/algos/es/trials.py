"""What tasks play: the policy of the moment, disturbed by pieces of a table of noise that all processes share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.es.config import ESConfig
from rlray.algos.es.policy import Network, Normalizer
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec

OFFSET = "offset"
"""Extra of outcomes, [N] int64: where in the table the trial's noise begins."""
SEEN, TOTAL, SQUARES = "obs_count", "obs_total", "obs_squares"
"""Extras, with ``normalize_obs``: [N] and [N, D] float64, how many observations there were, and their sums."""


class ESTrials:
    """Mirrored sampling (Salimans et al. 2017, section 2.1): trial 2i adds a piece of noise, 2i + 1 subtracts it.

    Raises: as `Network`; ValueError for a table that is smaller than the policy.
    """

    def __init__(self, spec: EnvSpec, config: ESConfig) -> None:
        self._config, self._network = config, Network(spec, config)
        if config.noise_size < self._network.size:
            raise ValueError(
                f"noise_size {config.noise_size:,} is smaller than the policy, which has {self._network.size:,} "
                f"parameters: make it some hundred times as large"
            )
        self.count, self.group = config.population, 2
        self.episodes, self.max_steps = config.episodes, config.max_steps
        self.same_episodes = config.same_episodes == "generation"

    def shared(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """The table: ``noise_size`` standard normal numbers, float32."""
        return rng.standard_normal(self._config.noise_size, np.float32)

    def cast(self, weights: Weights, shared: Any, slots: int) -> ESCast:
        """Disturbed policies, ``slots`` of them side by side."""
        return ESCast(self._network, self._config, weights, shared, slots)


class ESCast:
    """As `rlray.algos.types.Cast`. Policies of different parameters run together, in batched products."""

    def __init__(
        self, network: Network, config: ESConfig, weights: Weights, noise: NDArray[np.float32], slots: int
    ) -> None:
        self._network, self._noise = network, noise
        self._sigma = np.float32(config.sigma)
        self._sampled = config.sample_actions and network.numbered
        self._theta = weights["theta"]
        self._normalized = Normalizer(weights, config.normalize_obs)
        self._parameters = np.empty((slots, network.size), np.float32)
        self._rngs: list[np.random.Generator | None] = [None] * slots
        self._running = b""  # the slots that self._layers are of
        self._trials = np.zeros(slots, np.int64)  # by slot: which of the trials so far it plays
        self._numbers: list[int] = []  # of the trials so far, in the order of their beginning
        self._offsets: list[int] = []
        self._moments = _Moments(slots, network.inputs) if config.normalize_obs else None

    def assign(self, slot: int, trial: int, rng: np.random.Generator) -> None:
        size = self._network.size
        offset = int(rng.integers(len(self._noise) - size + 1))
        disturbed = self._parameters[slot]
        np.multiply(self._noise[offset : offset + size], -self._sigma if trial % 2 else self._sigma, out=disturbed)
        disturbed += self._theta
        self._rngs[slot] = rng
        self._running = b""
        self._numbers.append(trial)
        self._offsets.append(offset)
        if self._moments is not None:
            self._moments.begin(slot)

    def act(self, obs: NDArray[Any], slots: NDArray[np.int64]) -> NDArray[Any]:
        if self._running != (running := slots.tobytes()):
            every = len(slots) == len(self._parameters)
            self._layers = self._network.layers(self._parameters if every else self._parameters[slots])
            self._running = running
        if self._moments is not None:
            self._moments.add(obs, slots)
        outputs = self._network.run(self._layers, self._normalized(obs))
        if self._sampled:
            # The largest of logits with Gumbel noise is distributed as their softmax (Gumbel 1954).
            rngs = [rng for slot in slots if (rng := self._rngs[slot]) is not None]
            outputs = outputs + np.stack([rng.gumbel(size=outputs.shape[1]) for rng in rngs]).astype(np.float32)
        return self._network.actions(outputs)

    def extras(self) -> dict[str, NDArray[Any]]:
        order = np.argsort(self._numbers)
        kept = {OFFSET: np.array(self._offsets, np.int64)}
        if self._moments is not None:
            kept |= self._moments.all()
        return {name: array[order] for name, array in kept.items()}


class _Moments:
    """Sums of the observations that each trial has seen: apart, so that their order decides nothing."""

    def __init__(self, slots: int, inputs: int) -> None:
        self._rows = np.full(slots, -1)  # by slot: the trial that it plays, counted from the first one begun
        self._count: list[NDArray[np.float64]] = []
        self._sums: list[NDArray[np.float64]] = []  # [2, D] of each trial: total and squares
        self._slot_count = np.zeros(slots)
        self._slot_sums = np.zeros((slots, 2, inputs))

    def begin(self, slot: int) -> None:
        """``slot`` plays the next trial."""
        self._keep(slot)
        self._rows[slot] = len(self._count)
        self._count.append(np.zeros(()))
        self._sums.append(np.zeros(self._slot_sums.shape[1:]))

    def add(self, obs: NDArray[Any], slots: NDArray[np.int64]) -> None:
        """Observations [K, ...] of ``slots`` [K]."""
        x = obs.reshape(len(obs), -1).astype(np.float64)
        self._slot_count[slots] += 1
        self._slot_sums[slots, 0] += x
        self._slot_sums[slots, 1] += x * x

    def all(self) -> dict[str, NDArray[Any]]:
        """By trial, in the order of their beginning."""
        for slot in range(len(self._rows)):
            self._keep(slot)
        sums = np.stack(self._sums)
        return {SEEN: np.stack(self._count), TOTAL: sums[:, 0], SQUARES: sums[:, 1]}

    def _keep(self, slot: int) -> None:
        """What ``slot`` has seen belongs to the trial that it played."""
        row = self._rows[slot]
        if row >= 0:
            self._count[row], self._sums[row] = self._slot_count[slot].copy(), self._slot_sums[slot].copy()
        self._slot_count[slot], self._slot_sums[slot] = 0, 0
        self._rows[slot] = -1

"""Small policies in numpy: many with parameters of their own side by side, or one for all observations."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlray.algos.es.config import ESConfig
from rlray.algos.types import Weights
from rlray.envs.types import EnvSpec

Floats = NDArray[np.float32]
Layers = list[tuple[Floats, Floats]]
"""Weights [S, inputs, outputs] and biases [S, 1, outputs] of each layer, for S policies or, where S is 1, for all."""

CLIP = 5.0
"""Normalised observations are kept within so many deviations."""


class Network:
    """A multilayer perceptron from observations to actions whose parameters are one flat vector [`size`] of float32.

    A Box action with bounds is given by outputs from -1 (its low) to 1 (its high), clipped; one without by the
    outputs themselves.

    Raises: ValueError for observations that are no vectors of numbers, and for actions that are neither Discrete nor a
    Box of floats.
    """

    def __init__(self, spec: EnvSpec, config: ESConfig) -> None:
        shape, dtype = spec.observation_space.shape, spec.observation_space.dtype
        if shape is None or dtype is None or dtype.kind not in "uif" or len(shape) > 2:
            raise ValueError(
                f"es takes vectors of numbers, but {spec.id} observes {spec.observation_space}: choose observations "
                f"that are vectors, or wrap it, for example in gymnasium's FlattenObservation"
            )
        self._space = spec.action_space
        self._tanh = config.activation == "tanh"
        self.inputs = math.prod(shape)
        sizes = (self.inputs, *config.hidden, self._outputs(spec))
        self._shapes = list(itertools.pairwise(sizes))
        self.size = sum((inputs + 1) * outputs for inputs, outputs in self._shapes)

    def _outputs(self, spec: EnvSpec) -> int:
        space = self._space
        if isinstance(space, spaces.Discrete):
            return int(space.n)
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            bounded = np.isfinite(space.low) & np.isfinite(space.high)
            low, high = np.where(bounded, space.low, -1.0), np.where(bounded, space.high, 1.0)
            self._middle = (high / 2 + low / 2).astype(np.float32).ravel()
            self._half = (high / 2 - low / 2).astype(np.float32).ravel()
            self._limit = np.where(bounded, 1.0, np.inf).astype(np.float32).ravel()
            return math.prod(space.shape)
        raise ValueError(
            f"es takes Discrete actions or a Box of floats, but {spec.id} has {space}: wrap the environment so that "
            f"its actions are numbered, or are a vector of floats"
        )

    def first(self, rng: np.random.Generator) -> Floats:
        """Parameters to begin with: normal with deviation 1/√inputs, a tenth of that at the outputs, no bias."""
        parts = []
        for number, (inputs, outputs) in enumerate(self._shapes):
            gain = 0.1 if number == len(self._shapes) - 1 else 1.0
            parts.append(rng.standard_normal(inputs * outputs, np.float32) * np.float32(gain / math.sqrt(inputs)))
            parts.append(np.zeros(outputs, np.float32))
        return np.concatenate(parts)

    def layers(self, flat: Floats) -> Layers:
        """Views of the parameters ``flat`` [S, `size`]."""
        found, at = [], 0
        for inputs, outputs in self._shapes:
            middle, end = at + inputs * outputs, at + (inputs + 1) * outputs
            found.append((flat[:, at:middle].reshape(-1, inputs, outputs), flat[:, middle:end].reshape(-1, 1, outputs)))
            at = end
        return found

    def run(self, layers: Layers, x: Floats) -> Floats:
        """Outputs [K, outputs] for normalised observations [K, `inputs`] by the K policies of ``layers``, or by one."""
        h = x[:, None, :]
        last = len(layers) - 1
        for number, (weight, bias) in enumerate(layers):
            h = h @ weight
            h += bias
            if number < last:
                h = np.tanh(h, out=h) if self._tanh else np.maximum(h, 0.0, out=h)
        return h[:, 0]

    def actions(self, outputs: Floats) -> NDArray[Any]:
        """What the outputs mean: the number of the largest, or a point of the Box."""
        if isinstance(self._space, spaces.Discrete):
            largest: NDArray[np.int64] = outputs.argmax(axis=1)
            return largest + int(self._space.start)
        point = self._middle + self._half * np.clip(outputs, -self._limit, self._limit)
        shaped: NDArray[Any] = point.reshape(-1, *(self._space.shape or ())).astype(self._space.dtype)
        return shaped

    @property
    def numbered(self) -> bool:
        """Whether actions are numbers."""
        return isinstance(self._space, spaces.Discrete)


class Normalizer:
    """Observations [K, ...] as float32 [K, D], centred and scaled where that is wanted."""

    def __init__(self, weights: Weights, wanted: bool) -> None:
        self._mean = np.array(weights["mean"], np.float32)
        self._scale = 1 / np.array(weights["std"], np.float32)
        self._wanted = wanted

    def __call__(self, obs: NDArray[Any]) -> Floats:
        x = obs.reshape(len(obs), -1).astype(np.float32, copy=False)
        if not self._wanted:
            return x
        scaled: Floats = np.clip((x - self._mean) * self._scale, -CLIP, CLIP)
        return scaled


class ESPolicy:
    """The policy in the middle of the population, undisturbed; until `load` its parameters are zero.

    Raises: as `Network`.
    """

    def __init__(self, spec: EnvSpec, config: ESConfig) -> None:
        self._config = config
        self._network = network = Network(spec, config)
        zeros = np.zeros(network.inputs, np.float32)
        self._expected = {"theta": (network.size,), "mean": zeros.shape, "std": zeros.shape}
        self.load({"theta": np.zeros(network.size, np.float32), "mean": zeros, "std": zeros + 1})

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        found = {name: np.shape(array) for name, array in weights.items()}
        if found != self._expected:
            raise ValueError(
                f"weights do not fit the network: {found} for {self._expected}; make the policy from the same "
                f"environment and settings as the learner"
            )
        self._layers = self._network.layers(np.array(weights["theta"], np.float32)[None])
        self._normalized = Normalizer(weights, self._config.normalize_obs)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Actions [B, ...], sampled where that is set; nothing else explores here."""
        outputs = self._run(obs)
        if self._config.sample_actions and self._network.numbered:
            outputs = outputs + rng.gumbel(size=outputs.shape).astype(np.float32)
        return self._network.actions(outputs), {}

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[Any]:
        """The actions [B, ...] of the largest outputs, or the outputs themselves."""
        return self._network.actions(self._run(obs))

    def _run(self, obs: NDArray[Any]) -> Floats:
        return self._network.run(self._layers, self._normalized(obs))

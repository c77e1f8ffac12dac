"""What simulators and evaluators run: each environment explores in its own measure, and knows what it found new."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlray.algos.apex import discrete_actions
from rlray.algos.apex.config import ApexConfig
from rlray.algos.q_learning.acting import QActor
from rlray.algos.returns import n_step_returns
from rlray.algos.transfer import TensorBatch
from rlray.algos.types import PRIORITY, Fragment, Place, Weights
from rlray.envs.types import EnvSpec

_OUTPUTS = "outputs"


def ladder(epsilon: float, alpha: float, place: Place) -> NDArray[np.float64]:
    """The probabilities of a random action [B] in the environments of ``place`` (Horgan et al. 2018, section 4.1).

        epsilon_i = epsilon^(1 + alpha i / (N - 1)),    i = 0 ... N - 1 over all environments of the run

    The one environment of a run of one has ``epsilon``.
    """
    i = np.arange(place.first, place.first + place.envs)
    return np.asarray(epsilon ** (1 + alpha * i / max(1, place.total - 1)), np.float64)


class ApexPolicy:
    """Epsilon-greedy over a Q-network on the CPU, with the epsilon of a ladder for each environment.

    Until `load` its weights are arbitrary, but always the same; until `place` every environment has the first epsilon.

    Raises: ValueError where the action space is not Discrete, or the network does not fit the observations.
    """

    def __init__(self, spec: EnvSpec, config: ApexConfig) -> None:
        space = discrete_actions(spec)
        self._actions, self._start = int(space.n), int(space.start)
        self._config = config
        self._actor = QActor(spec, config, self._actions)
        self._place: Place | None = None

    def place(self, place: Place) -> None:
        """Let the environments have the epsilons of ``place``."""
        self._place = place

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied. Raises: ValueError unless names and shapes match exactly."""
        self._actor.load(weights)

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Actions int64 [B], each random with its environment's epsilon; keeps the network's outputs for `complete`."""
        config = self._config
        epsilon = config.epsilon.at(step)
        explore = rng.random(len(obs)) < (
            epsilon if self._place is None else ladder(epsilon, config.epsilon_alpha, self._place)
        )
        actions = rng.integers(self._start, self._start + self._actions, len(obs))
        outputs = self._actor.outputs(obs, rng)
        best = self._actor.head.q_values(outputs).argmax(dim=1).numpy()
        return np.where(explore, actions, best + self._start), {_OUTPUTS: outputs.numpy()}

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[np.int64]:
        """The actions of greatest value by the mean weights, without noise: int64 [B]; the first of equals."""
        return self._actor.best(obs) + self._start

    def complete(self, fragment: Fragment) -> None:
        """Replace the outputs in ``fragment.extras`` by priorities [T, B] float32 (Horgan et al. 2018, algorithm 1).

        That of a step is what the learner's head would give its n-step transition, with the outputs of this policy's
        own network for those of both of the learner's. NaN where the transition reaches beyond the fragment, or ends at
        a truncation, whose last observation no network has seen here.
        """
        config = self._config
        outputs = torch.from_numpy(
            np.concatenate([fragment.extras.pop(_OUTPUTS), self._actor.outputs(fragment.last_obs, None).numpy()[None]])
        )  # [T + 1, B, A, N]
        length, envs = fragment.reward.shape
        reward = np.clip(fragment.reward, -1.0, 1.0) if config.clip_reward else fragment.reward
        r_t, discount_t, m = n_step_returns(
            _windows(reward, config.n_step, 0.0),
            _windows(fragment.terminated, config.n_step, False),
            _windows(fragment.truncated, config.n_step, True),  # beyond the fragment's end nothing is known
            config.discount,
        )
        t, b = (index.reshape(-1) for index in np.indices((length, envs)))
        last = np.minimum(t + m, length)
        ended = fragment.terminated[last - 1, b] & (t + m <= length)
        known = ended | ((t + m <= length) & ~fragment.truncated[last - 1, b])
        outputs_t = outputs[torch.from_numpy(last), torch.from_numpy(b)]
        losses = self._actor.head.losses(
            outputs[:-1].flatten(0, 1),
            torch.from_numpy(fragment.action.reshape(-1) - self._start),
            _batch_of(torch.from_numpy(r_t), torch.from_numpy(discount_t)),
            outputs_t,
            self._actor.head.q_values(outputs_t).argmax(dim=1),
        )
        priority = np.where(known, losses.priority.numpy(), np.nan).astype(np.float32)
        fragment.extras[PRIORITY] = priority.reshape(length, envs)


def _windows(array: NDArray[Any], n: int, beyond: float | bool) -> NDArray[Any]:
    """The n rows from each row of ``array`` [T, B] on: [n, T * B]; ``beyond`` stands for rows after the last."""
    padded = np.concatenate([array, np.full((n - 1, array.shape[1]), beyond, array.dtype)])
    return np.stack([padded[k : k + len(array)].reshape(-1) for k in range(n)])


def _batch_of(r_t: Tensor, discount_t: Tensor) -> TensorBatch:
    """A batch of which a head looks at the returns only."""
    nothing = torch.empty(0)
    return TensorBatch(nothing, nothing, r_t, discount_t, nothing, nothing)

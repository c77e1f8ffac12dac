"""What a round of updates learns from: fragments, with advantages, as one flat batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlray.algos.advantages import Ends, gae
from rlray.algos.policy_gradient.intake import Intake
from rlray.algos.policy_gradient.policy import VALUE
from rlray.algos.ppo.config import PPOConfig
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec


@dataclass
class Rollout:
    """Steps of many fragments, one after the other; dummy reset steps are left out."""

    obs: Tensor  # [N, *observation_shape]
    action: Tensor  # [N, ...] as they were sampled
    log_prob: Tensor  # [N] float32, of the policy that acted
    value: Tensor  # [N] float32, of the critic that acted, in the units of returns
    advantage: Tensor  # [N] float32
    target: Tensor  # [N] float32, for the critic

    def __len__(self) -> int:
        return len(self.log_prob)

    def minibatches(self, order: Tensor, parts: int) -> Iterator[Rollout]:
        """The steps in that ``order`` [N] int64, copied, in so many parts of about equal size.

        Observations, which may be large, are copied part by part, all the rest at once.
        """
        small = [field.name for field in fields(self) if field.name != "obs"]
        pieces = [getattr(self, name).index_select(0, order).tensor_split(parts) for name in small]
        for chosen, *rest in zip(order.tensor_split(parts), *pieces, strict=True):
            yield Rollout(obs=self.obs.index_select(0, chosen), **dict(zip(small, rest, strict=True)))

    def to(self, device: str) -> Rollout:
        """On that device; the same if it is there."""
        return Rollout(*(getattr(self, field.name).to(device) for field in fields(self)))


class RolloutBuilder:
    """Gathers fragments until a round of updates is due.

    ``values`` gives the critic's values [K] of observations [K, ...] with the weights of the moment.
    """

    def __init__(self, spec: EnvSpec, config: PPOConfig, values: Callable[[NDArray[Any]], Tensor]) -> None:
        self._config, self._values = config, values
        self._intake = Intake(spec, config)
        self._parts: list[Rollout] = []
        self.steps = 0

    def add(self, fragment: Fragment) -> None:
        """Work a fragment out: observations, rewards for learning, advantages."""
        config, taken = self._config, self._intake.take(fragment)
        value = np.array(fragment.extras[VALUE])  # a copy: torch warns of read-only memory
        ends = Ends(*(torch.from_numpy(np.array(a)) for a in (fragment.terminated, fragment.truncated, fragment.valid)))
        advantage, target = gae(
            torch.from_numpy(taken.reward),
            torch.from_numpy(value),
            self._next_values(fragment, value, taken.finals),
            ends,
            config.discount,
            config.gae_lambda,
        )
        keep = fragment.valid
        self._parts.append(
            Rollout(
                obs=torch.from_numpy(taken.obs[keep]),
                action=torch.from_numpy(taken.action[keep]),
                log_prob=torch.from_numpy(taken.log_prob[keep]),
                value=torch.from_numpy(value[keep]),
                advantage=advantage[ends.valid],
                target=target[ends.valid],
            )
        )
        self.steps += fragment.steps

    def _next_values(self, fragment: Fragment, value: NDArray[np.float32], finals: NDArray[Any]) -> Tensor:
        """[T, B] values of the true next observations."""
        following = torch.empty(value.shape)
        following[:-1] = torch.from_numpy(value[1:])
        following[-1] = self._values(fragment.last_obs)
        if len(finals):
            t, b = torch.from_numpy(np.array(fragment.final_index)).unbind(dim=1)
            following[t, b] = self._values(finals)
        return following

    def take(self) -> Rollout:
        """All that was gathered; what comes next begins anew."""
        parts, self._parts, self.steps = self._parts, [], 0
        if len(parts) == 1:
            return parts[0]
        return Rollout(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Rollout)))

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of the observations so far, [*frame_shape] each."""
        return self._intake.moments()

    def state(self) -> dict[str, Any]:
        """All of it, also the fragments gathered so far."""
        return {
            "parts": [{field.name: getattr(part, field.name) for field in fields(part)} for part in self._parts],
            "steps": self.steps,
            **self._intake.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`, which is copied."""
        self._parts = [Rollout(**copy.deepcopy(dict(part))) for part in state["parts"]]
        self.steps = state["steps"]
        self._intake.load_state(state)

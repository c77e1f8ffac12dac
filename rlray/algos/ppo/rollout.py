"""What a round of updates learns from: fragments, with advantages, as one flat batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlray.algos.advantages import Ends, gae
from rlray.algos.ppo.config import PPOConfig
from rlray.algos.ppo.policy import LOG_PROB, SAMPLED, VALUE
from rlray.algos.running import RewardScaler, RunningMoments
from rlray.algos.stacking import Stacker
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

    def at(self, index: Tensor) -> Rollout:
        """The steps at ``index`` [M], copied."""
        return Rollout(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: str) -> Rollout:
        """On that device; the same if it is there."""
        return Rollout(*(getattr(self, field.name).to(device) for field in fields(self)))


class RolloutBuilder:
    """Gathers fragments until a round of updates is due.

    ``values`` gives the critic's values [K] of observations [K, ...] with the weights of the moment.
    """

    def __init__(self, spec: EnvSpec, config: PPOConfig, values: Callable[[NDArray[Any]], Tensor]) -> None:
        self._config, self._values = config, values
        self._stacker = Stacker(spec)
        self._rewards = RewardScaler(config.discount) if config.normalize_reward else None
        self._moments = RunningMoments(spec.frame_shape) if config.normalize_obs else None
        self._parts: list[Rollout] = []
        self.steps = 0

    def add(self, fragment: Fragment) -> None:
        """Work a fragment out: observations, rewards for learning, advantages."""
        config = self._config
        obs, finals = self._stacker.observations(fragment)
        last = fragment.terminated | fragment.truncated | ~fragment.valid
        if self._moments is not None:
            self._moments.add(fragment.obs[fragment.valid])
        reward = fragment.reward
        if self._rewards is not None:
            reward = self._rewards.scaled(fragment.stream, reward, last, fragment.valid)
        if config.clip_reward:
            reward = np.clip(reward, -1.0, 1.0)
        value = np.array(fragment.extras[VALUE])  # a copy: torch warns of read-only memory
        ends = Ends(*(torch.from_numpy(np.array(a)) for a in (fragment.terminated, fragment.truncated, fragment.valid)))
        advantage, target = gae(
            torch.from_numpy(reward * np.float32(config.scale_reward)),
            torch.from_numpy(value),
            self._next_values(fragment, value, finals),
            ends,
            config.discount,
            config.gae_lambda,
        )
        keep = fragment.valid
        action = fragment.extras.get(SAMPLED, fragment.action)
        self._parts.append(
            Rollout(
                obs=torch.from_numpy(obs[keep]),
                action=torch.from_numpy(action[keep]),
                log_prob=torch.from_numpy(fragment.extras[LOG_PROB][keep]),
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
        assert self._moments is not None
        return self._moments.mean, self._moments.std

    def state(self) -> dict[str, Any]:
        """All of it, also the fragments gathered so far."""
        return {
            "parts": [{field.name: getattr(part, field.name) for field in fields(part)} for part in self._parts],
            "steps": self.steps,
            "stacker": self._stacker.state(),
            "rewards": None if self._rewards is None else self._rewards.state(),
            "moments": None if self._moments is None else self._moments.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`, which is copied."""
        self._parts = [Rollout(**copy.deepcopy(dict(part))) for part in state["parts"]]
        self.steps = state["steps"]
        self._stacker.load_state(state["stacker"])
        if self._rewards is not None:
            self._rewards.load_state(state["rewards"])
        if self._moments is not None:
            self._moments.load_state(state["moments"])

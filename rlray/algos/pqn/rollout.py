"""What a round of updates learns from: fragments, with their Q(lambda) returns, as one flat batch."""

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
from rlray.algos.pqn.config import PQNConfig
from rlray.algos.pqn.policy import BEST
from rlray.algos.stacking import Stacker
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec


@dataclass
class Rollout:
    """Steps of many fragments, one after the other; dummy reset steps are left out."""

    obs: Tensor  # [N, *observation_shape]
    action: Tensor  # [N] int64, as the environment counts them
    target: Tensor  # [N] float32

    def __len__(self) -> int:
        return len(self.target)

    def at(self, index: Tensor) -> Rollout:
        """The steps at ``index`` [M], copied."""
        return Rollout(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: str) -> Rollout:
        """On that device; the same if it is there."""
        return Rollout(*(getattr(self, field.name).to(device) for field in fields(self)))


class RolloutBuilder:
    """Gathers fragments until a round of updates is due.

    The return of a step (Gallici et al. 2024, section 3.3; Peng and Williams 1996), with best(s) = max_a Q(s, a) and
    ' for the next step,

        R = r + discount (1 - terminated) (lambda R' + (1 - lambda) best(true next observation))

    where lambda is 0 at the end of an episode, also a truncated one, and at the end of a fragment. That is the target
    of generalised advantage estimation with best as the critic.

    ``best`` gives these values [K] of observations [K, ...] with the weights of the moment.
    """

    def __init__(self, spec: EnvSpec, config: PQNConfig, best: Callable[[NDArray[Any]], Tensor]) -> None:
        self._config, self._best = config, best
        self._stacker = Stacker(spec)
        self._parts: list[Rollout] = []
        self.steps = 0

    def add(self, fragment: Fragment) -> None:
        """Work a fragment out: observations, rewards for learning, returns."""
        config, keep = self._config, fragment.valid
        obs, finals = self._stacker.observations(fragment)
        reward = np.clip(fragment.reward, -1.0, 1.0) if config.clip_reward else fragment.reward
        value = torch.from_numpy(np.array(fragment.extras[BEST]))  # a copy: torch warns of read-only memory
        ends = Ends(*(torch.from_numpy(np.array(a)) for a in (fragment.terminated, fragment.truncated, keep)))
        following = torch.empty_like(value)
        following[:-1] = value[1:]
        following[-1] = self._best(fragment.last_obs)
        if len(finals):
            t, b = torch.from_numpy(np.array(fragment.final_index)).unbind(dim=1)
            following[t, b] = self._best(finals)
        scaled = torch.from_numpy(reward * np.float32(config.scale_reward))
        _, target = gae(scaled, value, following, ends, config.discount, config.q_lambda)
        self._parts.append(
            Rollout(torch.from_numpy(obs[keep]), torch.from_numpy(fragment.action[keep]), target[ends.valid])
        )
        self.steps += fragment.steps

    def take(self) -> Rollout:
        """All that was gathered; what comes next begins anew."""
        parts, self._parts, self.steps = self._parts, [], 0
        if len(parts) == 1:
            return parts[0]
        return Rollout(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Rollout)))

    def state(self) -> dict[str, Any]:
        """All of it, also the fragments gathered so far."""
        return {
            "parts": [{field.name: getattr(part, field.name) for field in fields(part)} for part in self._parts],
            "steps": self.steps,
            "stacker": self._stacker.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`, which is copied."""
        self._parts = [Rollout(**copy.deepcopy(dict(part))) for part in state["parts"]]
        self.steps = state["steps"]
        self._stacker.load_state(state["stacker"])

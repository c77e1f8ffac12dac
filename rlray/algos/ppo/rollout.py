"""What a round of updates learns from: fragments, with advantages, as one batch of steps or of sequences."""

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
from rlray.algos.policy_gradient.intake import Intake, Taken
from rlray.algos.policy_gradient.policy import VALUE
from rlray.algos.ppo.config import PPOConfig
from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec

Values = Callable[[NDArray[Any], NDArray[Any], NDArray[np.float32]], Tensor]
"""The critic's values [K], on the CPU and in the units of returns, of observations [K, ...] that came next after others
[K, ...], before which ``memory`` [K, M] was remembered."""


@dataclass
class Rollout:
    """``N`` sequences of ``L`` consecutive steps, to be chosen from; single steps where nothing is remembered."""

    obs: Tensor  # [N, L, *observation_shape]
    action: Tensor  # [N, L, ...] as they were sampled
    log_prob: Tensor  # [N, L] float32, of the policy that acted
    value: Tensor  # [N, L] float32, of the critic that acted, in the units of returns
    advantage: Tensor  # [N, L] float32
    target: Tensor  # [N, L] float32, for the critic
    valid: Tensor  # [N, L] bool; False: a dummy reset step, or beyond the end of a shorter sequence
    first: Tensor  # [N, L] bool, where an episode begins
    memory: Tensor  # [N, M] float32, of the policy that acted, before the first step

    def __len__(self) -> int:
        return len(self.log_prob)

    def minibatches(self, order: Tensor, parts: int) -> Iterator[Rollout]:
        """The sequences in that ``order`` [N] int64, copied, in so many parts of about equal size.

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
    """Gathers fragments until a round of updates is due; ``values`` is the critic with the weights of the moment."""

    def __init__(self, spec: EnvSpec, config: PPOConfig, values: Values) -> None:
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
            self._next_values(fragment, value, taken),
            ends,
            config.discount,
            config.gae_lambda,
        )
        cut, memory = _sequences(fragment.valid, taken.memory)
        self._parts.append(
            Rollout(
                obs=cut(taken.obs),
                action=cut(taken.action),
                log_prob=cut(taken.log_prob),
                value=cut(value),
                advantage=cut(advantage.numpy()),
                target=cut(target.numpy()),
                valid=cut(fragment.valid),
                first=cut(fragment.first),
                memory=memory,
            )
        )
        self.steps += fragment.steps

    def _next_values(self, fragment: Fragment, value: NDArray[np.float32], taken: Taken) -> Tensor:
        """[T, B] values of the true next observations."""
        following = torch.empty(value.shape)
        following[:-1] = torch.from_numpy(value[1:])
        following[-1] = self._values(fragment.last_obs, taken.obs[-1], taken.memory[-1])
        if len(taken.finals):
            t, b = np.array(fragment.final_index).T  # a copy: torch takes no read-only indices
            following[t, b] = self._values(taken.finals, taken.obs[t, b], taken.memory[t, b])
        return following

    def take(self) -> Rollout:
        """All that was gathered; what comes next begins anew."""
        parts, self._parts, self.steps = self._parts, [], 0
        if len(parts) == 1:
            return parts[0]
        steps = max(part.valid.shape[1] for part in parts)
        parts = [_lengthened(part, steps) for part in parts]
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


def _sequences(
    valid: NDArray[np.bool_], memory: NDArray[np.float32]
) -> tuple[Callable[[NDArray[Any]], Tensor], Tensor]:
    """What makes [N, L, ...] of [T, B, ...], always a copy; and ``memory`` [T, B, M] before the first steps, [N, M].

    Without a memory single steps are as good, and better mixed. What is not valid at all is left out.
    """
    if not memory.shape[2]:
        return lambda steps: torch.from_numpy(steps[valid][:, None]), torch.from_numpy(memory[valid])
    played = valid.any(axis=0)
    return lambda steps: torch.from_numpy(steps.swapaxes(0, 1)[played]), torch.from_numpy(memory[0, played])


def _lengthened(part: Rollout, steps: int) -> Rollout:
    """The same with zeros beyond the last step, up to ``steps``: where sources differ in the length of fragments."""
    more = steps - part.valid.shape[1]
    if not more:
        return part

    def padded(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros((len(tensor), more, *tensor.shape[2:]))], dim=1)

    per_step = {name: padded(tensor) for name, tensor in vars(part).items() if name != "memory"}
    return Rollout(**per_step, memory=part.memory)

"""Whole fragments side by side: what algorithms learn from that look along the time, and never at single steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlray.algos.actor_critic import ActorCritic
from rlray.algos.advantages import Ends
from rlray.algos.policy_gradient.intake import Taken
from rlray.algos.recurrent import Course
from rlray.algos.types import Fragment


@dataclass
class Sequences:
    """``B`` sequences of ``T`` consecutive steps each, of one environment each."""

    obs: Tensor  # [T, B, *observation_shape]
    action: Tensor  # [T, B, ...] as they were sampled
    log_prob: Tensor  # [T, B] float32, of the policy that acted
    reward: Tensor  # [T, B] float32, as it is to be learned
    terminated: Tensor  # [T, B] bool
    truncated: Tensor  # [T, B] bool
    valid: Tensor  # [T, B] bool
    first: Tensor  # [T, B] bool, where an episode begins
    memory: Tensor  # [B, M] float32, of the policy that acted, before the first step; M is 0 where none remembers
    last_obs: Tensor  # [B, *observation_shape] after the last step
    finals: Tensor  # [K, *observation_shape] the true last observations of episodes that ended, ...
    final_index: Tensor  # [K, 2] int64 ... at these (t, b)

    @classmethod
    def of(cls, fragment: Fragment, taken: Taken) -> Sequences:
        """A fragment, copied where its memory is read-only."""
        return cls(
            obs=_tensor(taken.obs),
            action=_tensor(taken.action),
            log_prob=_tensor(taken.log_prob),
            reward=_tensor(taken.reward),
            terminated=_tensor(fragment.terminated),
            truncated=_tensor(fragment.truncated),
            valid=_tensor(fragment.valid),
            first=_tensor(fragment.first),
            memory=_tensor(taken.memory[0]),
            last_obs=_tensor(fragment.last_obs),
            finals=_tensor(taken.finals),
            final_index=_tensor(fragment.final_index),
        )

    def __len__(self) -> int:
        """How many sequences."""
        return self.valid.shape[1]

    @property
    def ends(self) -> Ends:
        """How the steps ended."""
        return Ends(self.terminated, self.truncated, self.valid)

    def at(self, columns: Tensor) -> Sequences:
        """The sequences ``columns`` [M], copied, in that order."""
        place = torch.full((len(self),), -1, device=columns.device)
        place[columns] = torch.arange(len(columns), device=columns.device)
        b = place[self.final_index[:, 1]]
        kept = b >= 0
        return Sequences(
            **{name: getattr(self, name)[:, columns] for name in _PER_STEP},
            memory=self.memory[columns],
            last_obs=self.last_obs[columns],
            finals=self.finals[kept],
            final_index=torch.stack([self.final_index[kept, 0], b[kept]], dim=1),
        )

    def single_steps(self) -> Sequences:
        """Every valid step [1, N] as a sequence of its own, where nothing is remembered and nobody looks ahead.

        Ordered by time, then by sequence. ``last_obs`` is each step's own observation.
        """
        steps = {name: getattr(self, name)[self.valid][None] for name in _PER_STEP}
        own = steps["obs"][0]
        memory = self.memory.new_zeros(len(own), 0)
        return Sequences(**steps, memory=memory, last_obs=own, finals=own[:0], final_index=self.final_index[:0])

    def to(self, device: str) -> Sequences:
        """On that device; the same if it is there."""
        return Sequences(*(getattr(self, field.name).to(device) for field in fields(self)))


_PER_STEP = ("obs", "action", "log_prob", "reward", "terminated", "truncated", "valid", "first")


def end_to_end(parts: Sequence[Sequences]) -> Sequences:
    """One sequence of each environment, of ``parts``, at least one, that follow each other without a gap."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(part.valid.shape[0] for part in parts[:-1])])
    shifted = [part.final_index + torch.tensor([int(by), 0]) for part, by in zip(parts, offsets, strict=True)]
    return Sequences(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in _PER_STEP},
        memory=parts[0].memory,
        last_obs=parts[-1].last_obs,
        finals=torch.cat([part.finals for part in parts]),
        final_index=torch.cat(shifted),
    )


def side_by_side(parts: Sequence[Sequences]) -> Sequences:
    """All sequences of ``parts``, at least one, in their order; shorter ones get steps before them, not valid."""
    if len(parts) == 1:
        return parts[0]
    steps = max(part.valid.shape[0] for part in parts)
    parts = [part if part.valid.shape[0] == steps else _lengthened(part, steps) for part in parts]
    offsets = np.cumsum([0, *(len(part) for part in parts[:-1])])
    shifted = [part.final_index + torch.tensor([0, int(by)]) for part, by in zip(parts, offsets, strict=True)]
    return Sequences(
        **{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in _PER_STEP},
        memory=torch.cat([part.memory for part in parts]),
        last_obs=torch.cat([part.last_obs for part in parts]),
        finals=torch.cat([part.finals for part in parts]),
        final_index=torch.cat(shifted),
    )


def _lengthened(part: Sequences, steps: int) -> Sequences:
    """The same with zeros before the first step, up to ``steps``: where sources differ in the length of fragments."""
    more = steps - part.valid.shape[0]
    shift = torch.tensor([more, 0], device=part.final_index.device)

    def padded(name: str) -> Tensor:
        tensor: Tensor = getattr(part, name)
        return torch.cat([tensor.new_zeros((more, *tensor.shape[1:])), tensor])

    pads = {name: padded(name) for name in _PER_STEP}
    ends = {"last_obs": part.last_obs, "finals": part.finals, "final_index": part.final_index + shift}
    return Sequences(**pads, memory=part.memory, **ends)


class Unrolled(NamedTuple):
    """What a network says along sequences; values are in the units of returns."""

    outputs: Tensor  # [T, B, O] of the policy
    value: Tensor  # [T, B]
    next_value: Tensor | None  # [T, B] of the true next observations, if asked for; carries no gradient


def unroll(network: ActorCritic, batch: Sequences, ahead: bool = True) -> Unrolled:
    """Run ``network`` over whole sequences, from what was remembered where they begin, and with ``ahead`` on what comes
    next."""
    steps, envs = batch.valid.shape
    last = torch.stack([torch.full((envs,), steps - 1), torch.arange(envs)], dim=1).to(batch.final_index)
    # Fragments may begin with steps that are not valid: their own, or what `side_by_side` put before them.
    course = Course(batch.first, batch.valid.int().argmax(dim=0), torch.cat([last, batch.final_index]))
    outputs, value, memory = network(batch.obs, batch.memory, course)
    value = network.value_norm(value)
    if not ahead:
        return Unrolled(outputs, value, None)
    with torch.no_grad():
        beyond = network.value(torch.cat([batch.last_obs, batch.finals]), memory)
    following = torch.cat([value[1:].detach(), beyond[None, :envs]])
    t, b = batch.final_index.unbind(dim=1)
    following[t, b] = beyond[envs:]
    return Unrolled(outputs, value, following)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())  # torch warns of read-only memory

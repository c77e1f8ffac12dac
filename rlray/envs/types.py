"""What an environment looks like to the rest of rlray: one vectorised interface, whatever lies beneath."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


@dataclass(frozen=True)
class EnvSpec:
    """The spaces of ONE environment, as networks and replay need them.

    With ``frame_stack > 1`` axis 0 of an observation holds that many frames, oldest first, newest last; the
    frames before the start of an episode are ``pad``: ``"zero"`` or ``"repeat"`` (the episode's first frame).
    Whoever stores observations then keeps the newest frame only and rebuilds the stack.
    """

    id: str
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    frame_stack: int = 1
    pad: str = "zero"

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of what is stored per step: the newest frame, or the whole observation if nothing is stacked."""
        shape = self.observation_space.shape
        assert shape is not None
        return tuple(shape[1:]) if self.frame_stack > 1 else tuple(shape)


@dataclass
class VecStep:
    """What one step of ``B`` environments gave.

    Guarantees: ``terminated`` and ``truncated`` are never merged. Where either is set, ``obs`` is the FIRST
    observation of the next episode and ``final_obs`` holds the true last observation of the ended one. Where
    ``valid`` is False the environment spent this call on its own reset (next-step autoreset): the action was
    ignored, ``obs`` is a first observation, and the step must be neither counted nor trained on. Only where such a
    step follows is ``obs`` at the end of an episode no first observation but a placeholder, the last one repeated.
    """

    obs: NDArray[Any]  # [B, ...]
    reward: NDArray[np.float32]  # [B], raw: never clipped or scaled
    terminated: NDArray[np.bool_]  # [B]
    truncated: NDArray[np.bool_]  # [B]
    valid: NDArray[np.bool_]  # [B]
    final_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # [K] which ended
    final_obs: NDArray[Any] | None = None  # [K, ...] in the order of final_index; None when K == 0

    @property
    def begins(self) -> NDArray[np.bool_]:
        """[B] whether an episode begins with ``obs``, or is about to: what was before plays no part any more."""
        return self.terminated | self.truncated | ~self.valid


class VectorEnv(Protocol):
    """``B`` copies of an environment stepped together; ended ones start anew by themselves.

    A returned array may be reused by the next call: copy what must outlive it.
    """

    spec: EnvSpec
    num_envs: int

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start every environment anew, seeded from ``seed``; returns observations [B, ...]."""

    def step(self, actions: NDArray[Any]) -> VecStep:
        """Step every environment with ``actions`` [B, ...]."""

    def render(self) -> NDArray[np.uint8]:
        """The first environment as an RGB picture [H, W, 3]; needs ``make_vec(..., render=True)``."""

    def close(self) -> None:
        """Free what the environments hold. Calling it twice is harmless."""


class SingleEnv(Protocol):
    """One environment whose episodes the caller begins, each with its own seed: what is played follows from that alone.

    A returned array may be reused by the next call: copy what must outlive it.
    """

    spec: EnvSpec

    def reset(self, seed: int) -> NDArray[Any]:
        """Begin the episode that follows from ``seed``; returns its first observation."""

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool]:
        """Observation (at the end of an episode its last), raw reward, terminated, truncated.

        After either of the two `reset` must follow.
        """

    def close(self) -> None:
        """Free what the environment holds. Calling it twice is harmless."""


@runtime_checkable
class Resumable(Protocol):
    """What a `VectorEnv` may offer besides: to say where its games stand, and to go on from there in another process.

    Without it, or where `state` is None, a run that goes on from a checkpoint begins new episodes.
    """

    def state(self) -> dict[str, Any] | None:
        """All that `load_state` needs, random numbers included: nested dicts and lists of arrays, numbers, strings.

        It changes nothing, and may hold views: use them before the next call. None where it cannot be told at the
        moment.
        """

    def load_state(self, state: Mapping[str, Any]) -> NDArray[Any]:
        """Go on from ``state``, which is copied; returns the observations [B, ...] there.

        Every later step is then what it would have been, bit for bit.
        """

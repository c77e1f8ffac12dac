"""Filling the arrays of a `Fragment` step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec, VecStep


class FragmentBuilder:
    """Collects ``T`` steps of ``B`` environments into fresh arrays [T, B, ...].

    Guarantees: every observation is copied once, on `before`; of stacked frames only the newest is kept. The arrays
    are new for every fragment, so that a fragment may be read after the next one is begun.

    Call `before` and `after` alternately, ``T`` times each, then `finish`.
    """

    def __init__(self, spec: EnvSpec, steps: int, envs: int) -> None:
        dtype = spec.observation_space.dtype
        shape = (steps, envs)
        self._spec = spec
        self._t = 0
        self._obs: NDArray[Any] = np.empty((*shape, *spec.frame_shape), dtype)
        self._first = np.empty(shape, np.bool_)
        self._reward = np.empty(shape, np.float32)
        self._terminated = np.empty(shape, np.bool_)
        self._truncated = np.empty(shape, np.bool_)
        self._valid = np.empty(shape, np.bool_)
        self._action: NDArray[Any] | None = None  # allocated at the first step, when shape and dtype are known
        self._extras: dict[str, NDArray[Any]] = {}
        self._final_index: list[tuple[int, int]] = []
        self._final_obs: list[NDArray[Any]] = []

    def before(
        self, obs: NDArray[Any], first: NDArray[np.bool_], action: NDArray[Any], extras: dict[str, NDArray[Any]]
    ) -> None:
        """Keep what the policy saw and chose: ``obs`` [B, *observation_shape], ``first`` [B], ``action`` [B, ...]."""
        t, steps = self._t, len(self._first)
        if self._action is None:
            self._action = np.empty((steps, *action.shape), action.dtype)
            self._extras = {name: np.empty((steps, *array.shape), array.dtype) for name, array in extras.items()}
        self._obs[t] = self._newest(obs)
        self._first[t] = first
        self._action[t] = action
        for name, array in extras.items():
            self._extras[name][t] = array

    def after(self, step: VecStep) -> None:
        """Keep what the environments answered."""
        t = self._t
        self._reward[t] = step.reward
        self._terminated[t] = step.terminated
        self._truncated[t] = step.truncated
        self._valid[t] = step.valid
        if step.final_obs is not None:
            finals = self._newest(step.final_obs)
            for k in np.argsort(step.final_index):
                self._final_index.append((t, int(step.final_index[k])))
                self._final_obs.append(finals[k].copy())
        self._t += 1

    def finish(self, stream: int, sequence: int, last_obs: NDArray[Any]) -> Fragment:
        """The fragment; ``last_obs`` [B, *observation_shape] is copied."""
        assert self._t == len(self._first), f"{self._t} of {len(self._first)} steps filled"
        assert self._action is not None
        return Fragment(
            stream=stream,
            sequence=sequence,
            obs=self._obs,
            first=self._first,
            action=self._action,
            reward=self._reward,
            terminated=self._terminated,
            truncated=self._truncated,
            valid=self._valid,
            final_index=np.array(self._final_index, np.int64).reshape(-1, 2),
            final_obs=np.array(self._final_obs, self._obs.dtype).reshape(-1, *self._spec.frame_shape),
            last_obs=np.array(last_obs),
            extras=self._extras,
        )

    def _newest(self, obs: NDArray[Any]) -> NDArray[Any]:
        """The newest frame of each observation, or the observation itself where nothing is stacked."""
        return obs[:, -1] if self._spec.frame_stack > 1 else obs

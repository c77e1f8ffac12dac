"""Stacked observations of a whole fragment, made again from the frames that it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import Fragment
from rlray.envs.types import EnvSpec


class Stacker:
    """Makes the observations of fragments, which keep only the newest frame of each.

    Guarantees: observations are exactly those that the policy saw. Of every stream the last frames are remembered, so
    fragments of one stream must be given in their order; where one is missing, the stream must begin anew with the
    start of its episodes.

    Without stacked frames it hands out what the fragment holds, and remembers nothing.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._stack, self._repeat = spec.frame_stack, spec.pad == "repeat"
        self._tails: dict[int, NDArray[Any]] = {}  # by stream: [S - 1, B, *frame_shape], the frames before its next

    def observations(self, fragment: Fragment) -> tuple[NDArray[Any], NDArray[Any]]:
        """What the actions were chosen on [T, B, *observation_shape], and the true last observations of the episodes
        that ended [K, *observation_shape], in the order of ``fragment.final_index``."""
        if self._stack == 1:
            return fragment.obs, fragment.final_obs
        depth, (steps, envs) = self._stack, fragment.first.shape
        frames = fragment.obs
        before = self._tails.get(fragment.stream)
        if before is None:
            before = np.zeros((depth - 1, *frames.shape[1:]), frames.dtype)
        stacked = np.empty((steps, envs, depth, *frames.shape[2:]), frames.dtype)
        window = np.moveaxis(before, 0, 1).copy()  # [B, S - 1, ...]
        for t in range(steps):
            first = fragment.first[t]
            if first.any():
                window[first] = frames[t, first][:, None] if self._repeat else 0
            stacked[t, :, :-1] = window
            stacked[t, :, -1] = frames[t]
            window[:, :-1] = window[:, 1:]
            window[:, -1] = frames[t]
        self._tails[fragment.stream] = np.moveaxis(window, 1, 0)
        finals = np.empty((len(fragment.final_index), depth, *frames.shape[2:]), frames.dtype)
        for k, (t, b) in enumerate(fragment.final_index):
            finals[k, :-1] = stacked[t, b, 1:]
            finals[k, -1] = fragment.final_obs[k]
        return stacked, finals

    def state(self) -> dict[str, NDArray[Any]]:
        """The frames remembered, by stream."""
        return {str(stream): tail for stream, tail in self._tails.items()}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Undo `state`; arrays are copied."""
        self._tails = {int(stream): np.array(tail) for stream, tail in state.items()}

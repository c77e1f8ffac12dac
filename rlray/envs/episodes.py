"""One episode of a gymnasium environment on record, so that it can be played again up to where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

Env = gymnasium.Env[Any, Any]

MAX_STEPS = 100_000
"""Longer episodes are not kept: playing them again would take too long, and an endless one would fill the memory."""


class EpisodeRecord:
    """How the running episode of one environment began, and the actions since.

    An environment that is deterministic, given the random numbers of ``np_random`` at its reset, comes to the same
    state when the same actions are played again. That costs a reset and as many steps as the episode is long.
    """

    def __init__(self) -> None:
        self._begin: dict[str, Any] | None = None  # None: cannot be played again
        self._actions: list[Any] = []

    def begins(self, env: Env, seed: int | None, options: Mapping[str, Any] | None) -> None:
        """To be called before ``env`` is reset."""
        self._actions = []
        self._begin = None
        if options:
            return
        if seed is not None:
            self._begin = {"seed": seed}
        elif isinstance(generator := env.unwrapped.np_random, np.random.Generator):
            self._begin = {"random": generator.bit_generator.state}

    def steps(self, action: Any) -> None:
        """To be called with every action."""
        if self._begin is None:
            return
        self._actions.append(action.copy() if isinstance(action, np.ndarray) else action)
        if len(self._actions) > MAX_STEPS:
            self._begin, self._actions = None, []

    def state(self) -> dict[str, Any] | None:
        """All that `play_again` needs; None where the episode cannot be played again."""
        if self._begin is None:
            return None
        return {**self._begin, "actions": np.array(self._actions)}


def play_again(
    state: Mapping[str, Any],
    env: Env,
    reset: Callable[[int | None], Any],
    step: Callable[[Any], tuple[Any, bool]],
) -> Any:
    """Bring ``env`` to where the recorded episode stood; returns the observation there.

    Args:
        state: what `EpisodeRecord.state` gave.
        env: whose random numbers are set.
        reset: resets it, with a seed or without; returns the observation.
        step: steps it with an action; returns the observation, and whether the episode ended.

    Raises: ValueError where the episode ended on the way, which it did not when it was played first.
    """
    if "seed" in state:
        obs = reset(int(state["seed"]))
    else:
        env.unwrapped.np_random.bit_generator.state = state["random"]
        obs = reset(None)
    for action in state["actions"]:
        obs, ended = step(action)
        if ended:
            raise ValueError(
                "the episode ended earlier than when it was played first: the environment is not repeatable"
            )
    return obs

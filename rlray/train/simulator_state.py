"""What a simulator must remember to go on elsewhere: its place in the stream, its episodes, its random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlray.algos.types import Policy, StatefulPolicy
from rlray.envs.types import Resumable, VectorEnv
from rlray.train.seeds import get_torch_state, set_torch_state

_SCALARS = ("stream", "sequence", "env_seed", "vector_steps")
_ARRAYS = ("first", "reward_sum", "length")


class PlayState:
    """Where a simulator is in its stream and in its ``B`` episodes; new ones begin."""

    def __init__(self, stream: int, env_seed: int, envs: int) -> None:
        self.stream = stream
        self.sequence = 0  # of the next fragment
        self.env_seed = env_seed  # what the environments were reset with
        self.vector_steps = 0  # since then
        self.first = np.ones(envs, np.bool_)  # the next observation is the first of its episode
        self.reward_sum = np.zeros(envs, np.float64)  # raw, of the running episodes
        self.length = np.zeros(envs, np.int64)

    def load(self, state: Mapping[str, Any], rng: np.random.Generator, policy: Policy) -> None:
        """Take over what `part_of` gave."""
        for name in _SCALARS:
            setattr(self, name, state[name])
        for name in _ARRAYS:
            setattr(self, name, np.array(state[name]))
        rng.bit_generator.state = state["rng"]
        set_torch_state(state["torch"])
        if isinstance(policy, StatefulPolicy):
            policy.load_state(state["policy"])


def part_of(play: PlayState, rng: np.random.Generator, policy: Policy) -> dict[str, Any]:
    """All of a simulator but its environments."""
    return {
        **{name: getattr(play, name) for name in (*_SCALARS, *_ARRAYS)},
        "rng": rng.bit_generator.state,
        "torch": get_torch_state(),
        "policy": policy.state() if isinstance(policy, StatefulPolicy) else None,
    }


def env_state(env: VectorEnv) -> dict[str, Any] | None:
    """Where ``env`` stands, None where it cannot tell."""
    return env.state() if isinstance(env, Resumable) else None


def env_came_back(env: VectorEnv, state: Mapping[str, Any]) -> tuple[NDArray[Any], str | None]:
    """Bring ``env`` to where it stood; returns the observations there, and what went wrong if anything did.

    Nothing is trusted: it must show what it showed then, bit for bit.
    """
    seen: NDArray[Any] = state["obs"]
    if not isinstance(env, Resumable):
        return seen, f"environment {env.spec.id!r} has no load_state (rlray.envs.Resumable)"
    try:
        obs = env.load_state(state["env"])
    except Exception as error:
        return seen, f"environment {env.spec.id!r} raised {type(error).__name__} on its way back: {error}"
    if obs.dtype != seen.dtype or not np.array_equal(obs, seen, equal_nan=obs.dtype.kind == "f"):
        return seen, (
            f"environment {env.spec.id!r} did not come back to what it had shown, so it depends on more than its seed "
            "and the actions of the episode (checkpoint.episodes: cut makes a resume exact all the same)"
        )
    return obs, None

"""gymnasium's vector environments, whichever of the three autoreset modes they have, as a `VectorEnv`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector import VectorEnv as GymnasiumVectorEnv
from numpy.typing import NDArray

from rlray.envs.checks import check_discrete
from rlray.envs.errors import EnvError
from rlray.envs.seeding import SeedOnce, env_seeds
from rlray.envs.types import EnvSpec, VecStep

_ARRAY_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Copy(Protocol):
    """One copy that can say where it stands."""

    def state(self) -> dict[str, Any] | None:
        """None where it cannot."""

    def load_state(self, state: Mapping[str, Any]) -> Any:
        """Go there; returns the observation."""


class AutoresetVec:
    """Adapts ``env``.

    Guarantees, by mode of ``env``:

    * same-step: its ``final_obs`` are passed on, its observations are first ones where an episode ended.
    * disabled: ended copies are reset within the same step, by ``reset(options={"reset_mask": ...})``, so that it
      looks the same.
    * next-step: where an episode ends, ``obs`` is the final observation again, as a placeholder; the next step of
      that copy ignores the action, is not ``valid``, has reward 0, no end, and brings the first observation.

    Discrete actions count from 0, whatever ``env`` counts them from. The arrays returned may be overwritten by the next
    call; ``final_obs`` may not.

    Args:
        env: a gymnasium vector environment that says its mode in ``metadata["autoreset_mode"]``.
        env_id: for `EnvSpec` and errors.
        seed: for the first reset that gets none.
        picture: returns the first copy as a picture; None: `render` is an error.
        copies: what ``env``, in same-step mode, steps, if they can say where they stand: then so can this.

    Raises: ValueError without a mode; TypeError for spaces that are not arrays.
    """

    def __init__(
        self,
        env: GymnasiumVectorEnv[Any, Any, Any],
        env_id: str,
        *,
        seed: int | None = None,
        picture: Callable[[], Any] | None = None,
        copies: Sequence[Copy] = (),
    ) -> None:
        check_spaces(env_id, env.single_observation_space, env.single_action_space)
        self._env = env
        self._mode = _mode(env, env_id)
        self._picture = picture
        self._copies = copies
        self.num_envs = env.num_envs
        action = env.single_action_space
        self._first_action = int(action.start) if isinstance(action, spaces.Discrete) else 0
        action = spaces.Discrete(action.n) if isinstance(action, spaces.Discrete) else action
        self.spec = EnvSpec(env_id, env.single_observation_space, action)
        self._seed = SeedOnce(seed)
        self._last_seed: int | None = None
        self._steps = 0
        self._started = self._closed = False
        self._resetting = np.zeros(self.num_envs, np.bool_)  # copies whose next step is their reset

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start every copy anew; every copy gets a seed of its own, derived from ``seed``.

        Environments that gymnasium does not step itself get one seed for all.

        Raises: EnvError from what a copy raised.
        """
        self._check_open()
        seed, seeded = self._seed.take(seed)
        seeds: int | list[int] | None = None
        if seeded:
            one_each = isinstance(self._env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
            seeds = env_seeds(seed, self.num_envs) if one_each else env_seeds(seed, 1)[0]
            self._last_seed = seed
        obs, _ = self._call("reset", lambda: self._env.reset(seed=seeds))  # type: ignore[arg-type]
        self._resetting[:] = False
        self._started = True
        return np.asarray(obs)

    def step(self, actions: NDArray[Any]) -> VecStep:
        """Step every copy with ``actions`` [B, ...].

        Raises: ValueError or TypeError for actions of another shape, range or type; RuntimeError before `reset`;
            EnvError from what a copy raised.
        """
        self._check_open()
        if not self._started:
            raise RuntimeError(f"environment {self.spec.id!r}: call reset() before step()")
        actions = self._checked(actions)
        self._steps += 1
        obs, reward, terminated, truncated, info = self._call("step", lambda: self._env.step(actions))
        answer = VecStep(
            np.asarray(obs),
            np.array(reward, np.float32),
            np.array(terminated, np.bool_),
            np.array(truncated, np.bool_),
            ~self._resetting,
        )
        if self._mode is AutoresetMode.NEXT_STEP:
            for array in (answer.reward, answer.terminated, answer.truncated):
                array[self._resetting] = 0
        ended = answer.terminated | answer.truncated
        answer.final_index = np.flatnonzero(ended)
        if answer.final_index.size:
            self._end(answer, ended, info)
        self._resetting = ended if self._mode is AutoresetMode.NEXT_STEP else self._resetting
        return answer

    def render(self) -> NDArray[np.uint8]:
        """The first copy as an RGB picture [H, W, 3]."""
        self._check_open()
        if self._picture is None:
            raise RuntimeError(
                f"environment {self.spec.id!r} was made without pictures: use make_vec(..., render=True)"
            )
        image = np.asarray(self._call("render", self._picture))
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"environment {self.spec.id!r} must render [H, W, 3], got shape {image.shape}")
        return image.astype(np.uint8, copy=False)

    def close(self) -> None:
        """Close the environment."""
        if not self._closed:
            self._closed = True
            self._env.close()

    def _end(self, answer: VecStep, ended: NDArray[np.bool_], info: dict[str, Any]) -> None:
        """Fill in the final observations; in mode disabled also reset the copies that ``ended``."""
        index = answer.final_index
        if self._mode is AutoresetMode.SAME_STEP:
            if "final_obs" not in info:
                raise ValueError(
                    f"environment {self.spec.id!r} resets in the same step but gives no infos['final_obs']"
                )
            answer.final_obs = np.stack([info["final_obs"][i] for i in index])
            return
        answer.final_obs = answer.obs[index]
        if self._mode is AutoresetMode.DISABLED:
            # The mask is the caller's promise: copies outside of it stay as they are and repeat their observation.
            options = {"reset_mask": ended.copy()}
            answer.obs = np.asarray(self._call("reset", lambda: self._env.reset(options=options))[0])

    def state(self) -> dict[str, Any] | None:
        """Where every copy stands; None where one cannot tell."""
        self._check_open()
        copies = [copy.state() for copy in self._copies] if self._started else []
        if not copies or any(copy is None for copy in copies):
            return None
        return {"copies": copies, "seed": self._last_seed, "steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> NDArray[Any]:
        """Bring every copy to where it stood when `state` was called; returns the observations there."""
        self._check_open()
        obs = [copy.load_state(saved) for copy, saved in zip(self._copies, state["copies"], strict=True)]
        self._last_seed, self._steps = state["seed"], state["steps"]
        self._seed.take(None)
        self._started = True
        return np.stack(obs).astype(self.spec.observation_space.dtype, copy=False)

    def _checked(self, actions: NDArray[Any]) -> NDArray[Any]:
        space = self.spec.action_space
        if isinstance(space, spaces.Discrete):
            return check_discrete(actions, self.num_envs, int(space.n), self.spec.id) + self._first_action
        actions, shape = np.asarray(actions), (self.num_envs, *(space.shape or ()))
        if actions.shape != shape:
            raise ValueError(
                f"actions for {self.num_envs} copies of environment {self.spec.id!r} must have shape {shape}, "
                f"got {actions.shape}"
            )
        return actions

    def _call(self, doing: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except EnvError:
            raise
        except Exception as error:
            raise EnvError.during(
                doing,
                error,
                env_id=self.spec.id,
                index=None,
                num_envs=self.num_envs,
                seed=self._last_seed,
                steps=self._steps,
            ) from error

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"environment {self.spec.id!r} is closed")


def check_spaces(env_id: str, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
    """Raise TypeError unless both are spaces of arrays."""
    for what, space in (("observation", observation), ("action", action)):
        if not isinstance(space, _ARRAY_SPACES):
            names = ", ".join(kind.__name__ for kind in _ARRAY_SPACES)
            raise TypeError(f"the {what} space of environment {env_id!r} must be one of {names}, got {space}")


def _mode(env: GymnasiumVectorEnv[Any, Any, Any], env_id: str) -> AutoresetMode:
    mode = (env.metadata or {}).get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        modes = ", ".join(f"AutoresetMode.{each.name}" for each in AutoresetMode)
        raise ValueError(
            f"metadata['autoreset_mode'] of the vector environment {env_id!r} must be one of {modes}, got {mode!r}"
        ) from None

"""Ordinary `gymnasium.Env` environments, as many copies as asked, stepped one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, TimeLimit

from rlray.envs.autoreset import AutoresetVec
from rlray.envs.episodes import EpisodeRecord, play_again
from rlray.envs.errors import EnvError
from rlray.envs.hiding import Hidden
from rlray.envs.settings import Accepted, check_names
from rlray.envs.single import GymSingle

Env = gymnasium.Env[Any, Any]

LIMIT, HIDE = "max_episode_steps", "hide"


class GymMaker:
    """Makes single environments from a gymnasium id or from a class or function, ready to be stepped together.

    Guarantees: a setting that the constructor does not take is an error before anything is made (unless it takes
    ``**kwargs``). The setting ``max_episode_steps`` limits any environment, ``hide`` takes numbers out of its
    observations (see `Hidden`), unless its constructor takes a setting of that name. Observations that are no `Box`
    (numbers, dicts, tuples) are flattened into one, as `gymnasium.spaces.flatten` does it.

    Args:
        env_id: what to call it.
        factory: makes one environment; as a string, the id from which gymnasium makes it.
        settings: keyword arguments for it.
    """

    def __init__(self, env_id: str, factory: str | Callable[..., Any], settings: Mapping[str, Any]) -> None:
        self.id = env_id
        self._factory = factory
        self._settings = dict(settings)
        self._accepted = _accepted(factory)
        self._limit: int | None = None
        if not isinstance(factory, str) and LIMIT not in self._accepted.names:
            self._limit = self._settings.pop(LIMIT, None)
        self._hide = self._settings.pop(HIDE, None) if HIDE not in self._accepted.names else None
        if not self._accepted.any_name:
            check_names(self._settings, (self._accepted.names | {LIMIT, HIDE}) - {"render_mode"}, env_id)

    def make_vec(self, num_envs: int, *, seed: int | None, render: bool) -> AutoresetVec:
        """``num_envs`` copies, of which the first can be drawn if ``render``."""
        copies = [_Guard(self, index, num_envs, render and index == 0) for index in range(num_envs)]
        makers = [lambda copy=copy: copy for copy in copies]
        env = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        return AutoresetVec(env, self.id, seed=seed, picture=copies[0].render if render else None, copies=copies)

    def make_single(self) -> GymSingle:
        """One that the caller resets."""
        return GymSingle(_Guard(self, 0, 1, render=False), self.id)

    def make_one(self, index: int, render: bool) -> Env:
        """One environment; only copy 0 runs gymnasium's checks of the first reset and step."""
        settings = dict(self._settings)
        if render:
            if not self._accepted.any_name and "render_mode" not in self._accepted.names:
                raise TypeError(f"environment {self.id!r} takes no render_mode, so it cannot be drawn (render=True)")
            settings["render_mode"] = "rgb_array"
        if isinstance(self._factory, str):
            env = gymnasium.make(self._factory, disable_env_checker=index > 0, **settings)
        else:
            env = self._factory(**settings)
        if not isinstance(env, gymnasium.Env):
            raise TypeError(
                f"environment {self.id!r} must be a gymnasium.Env, got {env!r}; what takes num_envs may also be a "
                "gymnasium.vector.VectorEnv or an rlray.envs.VectorEnv"
            )
        if self._limit is not None:
            env = TimeLimit(env, self._limit)
        return self._as_arrays(env)

    def _as_arrays(self, env: Env) -> Env:
        if not isinstance(env.observation_space, spaces.Box) and env.observation_space.is_np_flattenable:
            env = FlattenObservation(env)
        return env if self._hide is None else Hidden(env, self._hide, self.id)


class _Guard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One copy: what it raises is told with its number, seed and step, and what it returns is checked for shape.

    Its infos are dropped, for nobody reads them and merging them is slow. How its episode began is kept, and the
    actions since, so that `load_state` can bring another copy to the same place: see `EpisodeRecord`.
    """

    def __init__(self, maker: GymMaker, index: int, num_envs: int, render: bool) -> None:
        self._maker, self._index, self._num_envs = maker, index, num_envs
        self._seed: int | None = None
        self._steps = 0
        self._record = EpisodeRecord()
        super().__init__(self._run("making", lambda: maker.make_one(index, render)))
        self._shape = self.observation_space.shape

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._seed = seed
        self._record.begins(self.env, seed, options)
        obs = self._run("reset", lambda: _parts(self.env.reset(seed=seed, options=options), "reset", "obs, info"))[0]
        self._check(obs, "reset")
        return obs, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._record.steps(action)
        wanted = "obs, reward, terminated, truncated, info"
        obs, reward, terminated, truncated, _ = self._run("step", lambda: _parts(self.env.step(action), "step", wanted))
        self._check(obs, "step")
        return obs, reward, terminated, truncated, {}

    def render(self) -> Any:
        return self._run("render", self.env.render)

    def state(self) -> dict[str, Any] | None:
        """Where it stands, None where it cannot tell."""
        episode = self._record.state()
        return None if episode is None else {"episode": episode, "seed": self._seed, "steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> Any:
        """Play the episode of ``state`` again; returns the observation at its end.

        Raises: EnvError from what the environment raised; ValueError where the episode ended on the way.
        """

        def step(action: Any) -> tuple[Any, bool]:
            obs, _, terminated, truncated, _ = self.step(action)
            return obs, bool(terminated or truncated)

        obs = play_again(state["episode"], self.env, lambda seed: self.reset(seed=seed)[0], step)
        self._seed, self._steps = state["seed"], state["steps"]
        return obs

    def _check(self, obs: Any, doing: str) -> None:
        if np.shape(obs) != self._shape:
            text = f"{doing}() gave an observation of shape {np.shape(obs)}, its observation_space says {self._shape}"
            self._run(doing, lambda: _raise(ValueError(text)))

    def _run(self, doing: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (ImportError, gymnasium.error.DependencyNotInstalled):
            raise  # says what to install
        except Exception as error:
            raise EnvError.during(
                doing,
                error,
                env_id=self._maker.id,
                index=self._index,
                num_envs=self._num_envs,
                seed=self._seed,
                steps=self._steps,
            ) from error


def _parts(result: Any, doing: str, wanted: str) -> Any:
    if not isinstance(result, tuple) or len(result) != wanted.count(",") + 1:
        raise TypeError(f"{doing}() must return ({wanted}), got {result!r}")
    return result


def _raise(error: Exception) -> None:
    raise error


def _accepted(factory: str | Callable[..., Any]) -> Accepted:
    if not isinstance(factory, str):
        return Accepted.by(factory)
    entry = gymnasium.registry[factory].entry_point
    if entry is None:
        raise ValueError(f"environment {factory!r} of gymnasium has no single form: its vector form must be given")
    if not isinstance(entry, str):
        return Accepted.by(entry)
    with warnings.catch_warnings():
        # Box2D warns while it is imported, and crashes the interpreter where that warning is made an error.
        warnings.simplefilter("ignore", DeprecationWarning)
        creator = load_env_creator(entry)
    return Accepted.by(creator)

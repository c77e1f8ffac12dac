"""From what a user calls an environment to many copies of it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv as GymnasiumVectorEnv

from rlray.envs import registry
from rlray.envs.atari import AtariVec
from rlray.envs.autoreset import AutoresetVec
from rlray.envs.gym import GymMaker
from rlray.envs.pong import PONG_ID, PongVec
from rlray.envs.settings import Accepted, check_names, did_you_mean, nearest
from rlray.envs.single import SingleOfVec
from rlray.envs.types import EnvSpec, SingleEnv, VectorEnv


def make_vec(
    env: str | Callable[..., Any],
    num_envs: int,
    *,
    seed: int | None = None,
    num_threads: int = 1,
    settings: Mapping[str, Any] | None = None,
    render: bool = False,
) -> VectorEnv:
    """``num_envs`` copies of ``env``, stepped together; see `VectorEnv` for what they guarantee.

    Args:
        env: a registered name, ``ALE/Name-v5``, ``rlray/Pong-v0``, any id of gymnasium, ``package.module:Class`` or
            ``package.module:function``, or a class or function itself. A class or function that has a parameter
            ``num_envs`` makes all copies in one call (it is also offered ``seed``, ``num_threads``, ``render`` or
            ``render_mode`` if it has them) and returns our `VectorEnv` or gymnasium's; any other makes one
            `gymnasium.Env`.
        num_envs: how many copies.
        seed: for the first ``reset`` that gets none. Without any, the operating system gives one.
        num_threads: threads to step them with, where the environment has some of its own (Atari).
        settings: keyword arguments for the environment, over those it was registered with.
        render: whether ``render`` will be called.

    Raises:
        ValueError: an unknown environment or setting, with the nearest names; a value out of range.
        TypeError: a value of another type; something that is no environment.
        ImportError: an extra is missing; the message holds the command that installs it.
        EnvError: from what a single environment raised while it was made.
    """
    _check_integer("num_envs", num_envs, 1)
    _check_integer("num_threads", num_threads, 1)
    if seed is not None:
        _check_integer("seed", seed, 0)
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a mapping of names to values, got {settings!r}")
    return _resolve(env, settings or {}).make_vec(num_envs, seed, num_threads, render)


def make_single(env: str | Callable[..., Any], settings: Mapping[str, Any] | None = None) -> SingleEnv:
    """One ``env`` whose episodes the caller begins; see `SingleEnv`. What comes as a vector only is a vector of one.

    Raises: as `make_vec`.
    """
    return _resolve(env, settings or {}).make_single()


def make_spec(env: str | Callable[..., Any], settings: Mapping[str, Any] | None = None) -> EnvSpec:
    """The spaces of ``env``, found by making one copy and closing it: at most a fraction of a second.

    Raises: as `make_vec`.
    """
    made = make_vec(env, 1, settings=settings)
    try:
        return made.spec
    finally:
        made.close()


def _resolve(env: str | Callable[..., Any], settings: Mapping[str, Any]) -> _Source:
    """Find ``env``: registered names first, then ids, then ``module:name``."""
    names = registry.registered()
    seen: list[str] = []
    while isinstance(env, str) and env in names:
        if env in seen:
            raise ValueError(f"registered environments stand for each other: {' -> '.join([*seen, env])}")
        seen.append(env)
        settings = {**names[env].defaults, **settings}
        env = names[env].env
    if isinstance(env, str):
        return _Source(seen[0] if seen else env, _find(env), settings)
    if not callable(env):
        raise TypeError(f"env must be a string, a class or a function, got {env!r}")
    return _Source(seen[0] if seen else _name(env), env, settings)


def _find(env: str) -> str | Callable[..., Any]:
    """What makes the environment ``env``: a class or function, or gymnasium, from the id that is returned."""
    if env == PONG_ID:
        return PongVec
    if env.startswith("ALE/"):
        return functools.partial(AtariVec, env)
    if env in gymnasium.registry:
        return env
    if ":" in env:
        return _import(env)
    if importlib.util.find_spec("ale_py"):
        importlib.import_module("ale_py")  # brings older ids of Atari games, and better guesses
    if env in gymnasium.registry:
        return env
    raise registry.unknown(env)


def _import(env: str) -> str | Callable[..., Any]:
    """The class or function ``package.module:name``, or gymnasium's id in ``module:id``, which the import registers."""
    module_name, _, name = env.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not (module_name + ".").startswith(f"{error.name}."):
            raise  # found, but something that it imports is missing
        raise ValueError(
            f"environment {env!r}: there is no module {error.name!r}; it must be installed, or lie beside the "
            "configuration, in the current folder, or in a folder of sys.path, such as the script's own"
        ) from error
    if name in gymnasium.registry:
        return name
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        near = nearest(name, [each for each in vars(module) if not each.startswith("_")])
        raise ValueError(f"environment {env!r}: module {module_name!r} has no {name!r}{did_you_mean(near)}")
    if not callable(found):
        raise TypeError(f"environment {env!r} must name a class or a function, got {found!r}")
    factory: Callable[..., Any] = found
    return factory


def _name(env: Callable[..., Any]) -> str:
    """What to call a class or function that came without a name."""
    if isinstance(env, functools.partial):
        return _name(env.func)
    kind = env if hasattr(env, "__qualname__") else type(env)
    return f"{kind.__module__}:{kind.__qualname__}"


def _check_integer(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value!r}")


@dataclass(frozen=True)
class _Source:
    """An environment, found."""

    id: str  # what the user calls it
    factory: str | Callable[..., Any]  # what makes it: gymnasium from that id, or a class or function
    settings: Mapping[str, Any]

    def make_vec(self, num_envs: int, seed: int | None, num_threads: int, render: bool) -> VectorEnv:
        if not isinstance(self.factory, str) and "num_envs" in Accepted.by(self.factory).names:
            offers = {"num_envs": num_envs, "seed": seed, "num_threads": num_threads, "render": render}
            return self._make_together(self.factory, {**offers, "render_mode": "rgb_array" if render else None})
        return GymMaker(self.id, self.factory, self.settings).make_vec(num_envs, seed=seed, render=render)

    def make_single(self) -> SingleEnv:
        if not isinstance(self.factory, str) and "num_envs" in Accepted.by(self.factory).names:
            return SingleOfVec(self.make_vec(1, None, 1, render=False))
        return GymMaker(self.id, self.factory, self.settings).make_single()

    def _make_together(self, factory: Callable[..., Any], offers: Mapping[str, Any]) -> VectorEnv:
        """All copies by one call of ``factory``, which gets those of ``offers`` that it has a parameter for."""
        accepted = Accepted.by(factory)
        for name in offers.keys() & self.settings.keys():
            raise ValueError(f"{name!r} is no setting of environment {self.id!r}: it is an argument of make_vec")
        if not accepted.any_name:
            check_names(self.settings, accepted.names - offers.keys(), self.id)
        made = factory(**{name: each for name, each in offers.items() if name in accepted.names}, **self.settings)
        if isinstance(made, GymnasiumVectorEnv):
            picture = functools.partial(_first_picture, made) if offers["render"] else None
            made = AutoresetVec(made, self.id, seed=offers["seed"], picture=picture)
        if not isinstance(getattr(made, "spec", None), EnvSpec):
            raise TypeError(
                f"environment {self.id!r} takes num_envs, so it must make a gymnasium.vector.VectorEnv or an "
                f"rlray.envs.VectorEnv, whose spec is an EnvSpec; got {made!r}"
            )
        if made.num_envs != offers["num_envs"]:
            raise ValueError(f"environment {self.id!r} made {made.num_envs} copies, asked for {offers['num_envs']}")
        vector: VectorEnv = made
        return vector


def _first_picture(env: GymnasiumVectorEnv[Any, Any, Any]) -> Any:
    pictures = env.render()
    if pictures is None or len(pictures) == 0:
        raise ValueError("render() gave no picture: the environment must take render_mode='rgb_array'")
    return pictures[0]

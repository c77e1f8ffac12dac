"""What actors make their environments and algorithms from: names or callables, in a form that travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlray.algos.registry import get_algorithm
from rlray.algos.types import DrawnLearner, Learner, LearnerContext, Policy, Replay
from rlray.envs import RegistryTable, export_registry, install_registry, make_spec, make_vec
from rlray.envs.types import EnvSpec, VectorEnv


@dataclass(frozen=True)
class AlgorithmSource:
    """An algorithm by name, and its settings."""

    name: str
    settings: Any

    def make_policy(self, spec: EnvSpec) -> Policy:
        """A policy for environments like ``spec``."""
        return get_algorithm(self.name).make_policy(spec, self.settings)

    def make_learner(self, spec: EnvSpec, context: LearnerContext) -> Learner | DrawnLearner:
        """A learner for environments like ``spec``."""
        return get_algorithm(self.name).make_learner(spec, self.settings, context)

    @property
    def has_replay(self) -> bool:
        """Whether fragments go to a replay in an actor of its own."""
        return get_algorithm(self.name).make_replay is not None

    def make_replay(self, spec: EnvSpec, context: LearnerContext) -> Replay:
        """That replay, for environments like ``spec``."""
        make = get_algorithm(self.name).make_replay
        assert make is not None, f"{self.name} has no replay of its own"
        return make(spec, self.settings, context)


@dataclass(frozen=True)
class EnvSource:
    """An environment by id or as a callable, its settings, and what the driver has registered.

    A callable travels by value where it was defined in the driver's own script.
    """

    id: str
    env: str | Callable[..., Any]
    settings: Mapping[str, Any]
    registry: RegistryTable

    @classmethod
    def of(cls, env: str | Callable[..., Any], settings: Mapping[str, Any]) -> EnvSource:
        """The source for ``env``, with the driver's registrations as they are now."""
        return cls(env if isinstance(env, str) else name_of(env), env, dict(settings), export_registry())

    def with_settings(self, settings: Mapping[str, Any]) -> EnvSource:
        """The same environment with other settings."""
        return replace(self, settings=dict(settings))

    def make(self, num_envs: int, threads: int = 1, render: bool = False) -> VectorEnv:
        """``num_envs`` copies of it, stepped by at most ``threads`` threads."""
        install_registry(self.registry)
        return make_vec(self.env, num_envs, num_threads=threads, settings=self.settings, render=render)

    def spec(self) -> EnvSpec:
        """Its spaces, found by making one copy. Raises: as `rlray.envs.make_vec`."""
        return make_spec(self.env, self.settings)

    @property
    def frame_skip(self) -> int | None:
        """Emulator frames per agent step, where that means something."""
        games = self.id.startswith("ALE/") or self.id == "rlray/Pong-v0"
        return int(self.settings.get("frame_skip", 4)) if games else None


def name_of(env: Callable[..., Any]) -> str:
    """What a callable environment is called in configurations and messages: ``module:Class``."""
    return f"{env.__module__}:{getattr(env, '__qualname__', type(env).__qualname__)}"

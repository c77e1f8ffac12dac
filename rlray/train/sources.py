"""What actors make their environments and algorithms from: names or callables, in a form that travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from rlray.algos.registry import get_algorithm
from rlray.algos.types import Algorithm, DrawnLearner, Learner, LearnerContext, Policy, RecurrentPolicy, Replay, Trials
from rlray.config import RunConfig
from rlray.config.code import make_importable
from rlray.envs import RegistryTable, export_registry, install_registry, make_single, make_spec, make_vec
from rlray.envs.types import EnvSpec, SingleEnv, VectorEnv


@dataclass(frozen=True)
class AlgorithmSource:
    """An algorithm by name, its settings, and the folders in which its module may lie."""

    name: str
    settings: Any  # as plain values, where an actor may not know their class before it has found the module
    code: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: RunConfig) -> AlgorithmSource:
        """The algorithm of ``config``."""
        return cls(config.algo, config.hyperparameters.model_dump(), config.code)

    def make_policy(self, spec: EnvSpec) -> Policy:
        """A policy for environments like ``spec``."""
        algorithm, settings = self._found()
        policy = algorithm.make_policy(spec, settings)
        remembers = ("state", "load_state") if isinstance(policy, RecurrentPolicy) else ()
        self._check("policy", policy, "load", "act", "act_greedy", *remembers)
        return policy

    @property
    def has_trials(self) -> bool:
        """Whether it learns from whole episodes, played by tasks."""
        return self._found()[0].make_trials is not None

    def make_trials(self, spec: EnvSpec) -> Trials:
        """Its trials in environments like ``spec``."""
        algorithm, settings = self._found()
        assert algorithm.make_trials is not None
        return algorithm.make_trials(spec, settings)

    def make_learner(self, spec: EnvSpec, context: LearnerContext) -> Learner | DrawnLearner:
        """A learner for environments like ``spec``."""
        algorithm, settings = self._found()
        learner = algorithm.make_learner(spec, settings, context)
        learn = "learn" if algorithm.make_replay is None else "learn_drawn"
        self._check("learner", learner, learn, "weights", "state", "load_state")
        return learner

    def _check(self, half: str, made: object, *methods: str) -> None:
        """Now, and not in the hour in which the method is wanted for the first time."""
        if missing := [name for name in methods if not callable(getattr(made, name, None))]:
            raise TypeError(
                f"the {half} of algorithm {self.name!r} is a {type(made).__name__} without {', '.join(missing)}: it "
                f"must have {', '.join(methods)} (see rlray.algos.{half.capitalize()})"
            )

    def _found(self) -> tuple[Algorithm, BaseModel]:
        make_importable(self.code)
        algorithm = get_algorithm(self.name)
        return algorithm, algorithm.config.model_validate(self.settings)

    @property
    def has_replay(self) -> bool:
        """Whether fragments go to a replay in an actor of its own."""
        return self._found()[0].make_replay is not None

    def make_replay(self, spec: EnvSpec, context: LearnerContext) -> Replay:
        """That replay, for environments like ``spec``."""
        algorithm, settings = self._found()
        assert algorithm.make_replay is not None, f"{self.name} has no replay of its own"
        return algorithm.make_replay(spec, settings, context)


@dataclass(frozen=True)
class EnvSource:
    """An environment by id or as a callable, its settings, what the driver has registered, and where modules may lie.

    A callable travels by value where it was defined in the driver's own script.
    """

    id: str
    env: str | Callable[..., Any]
    settings: Mapping[str, Any]
    registry: RegistryTable
    code: tuple[str, ...] = ()

    @classmethod
    def of(cls, env: str | Callable[..., Any], settings: Mapping[str, Any], code: tuple[str, ...] = ()) -> EnvSource:
        """The source for ``env``, with the driver's registrations as they are now."""
        return cls(env if isinstance(env, str) else name_of(env), env, dict(settings), export_registry(), code)

    def with_settings(self, settings: Mapping[str, Any]) -> EnvSource:
        """The same environment with other settings."""
        return replace(self, settings=dict(settings))

    def make(self, num_envs: int, threads: int = 1, render: bool = False) -> VectorEnv:
        """``num_envs`` copies of it, stepped by at most ``threads`` threads."""
        make_importable(self.code)
        install_registry(self.registry)
        return make_vec(self.env, num_envs, num_threads=threads, settings=self.settings, render=render)

    def make_single(self) -> SingleEnv:
        """One, whose episodes the caller begins."""
        make_importable(self.code)
        install_registry(self.registry)
        return make_single(self.env, self.settings)

    def spec(self) -> EnvSpec:
        """Its spaces, found by making one copy. Raises: as `rlray.envs.make_vec`."""
        return make_spec(self.env, self.settings)

    @property
    def envs_at_once(self) -> int:
        """How many copies one process steps at its fastest: thousands where numpy steps them all in one call."""
        if self.id != "rlray/Pong-v0":
            return 16
        return 256 if self.settings.get("obs") == "pixels" else 16_384

    @property
    def frame_skip(self) -> int | None:
        """Emulator frames per agent step, where that means something."""
        games = self.id.startswith("ALE/") or self.id == "rlray/Pong-v0"
        return int(self.settings.get("frame_skip", 4)) if games else None


def name_of(env: Callable[..., Any]) -> str:
    """What a callable environment is called in configurations and messages: ``module:Class``."""
    return f"{env.__module__}:{getattr(env, '__qualname__', type(env).__qualname__)}"

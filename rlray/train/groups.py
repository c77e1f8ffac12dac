"""The groups of simulators of a run: which simulator is in which, what each plays, and that all feed one learner."""

from __future__ import annotations

from collections.abc import Sequence

from rlray.config import ConfigError, RunConfig
from rlray.config.errors import Problem
from rlray.config.schema import SimulatorsConfig
from rlray.envs import EnvError, EnvSpec
from rlray.train.failures import EnvironmentFailed
from rlray.train.sources import EnvSource

PARTS = ("observation_space", "action_space", "frame_stack", "pad")
"""What of a spec networks and replay are made for."""

SPARE = 1
"""Fragments that a group may have beyond one for each simulator: enough for the learner never to wait for one."""

PACED_SPARE = 8
"""The same for a paced group. Its time does not come back, so that it shall not stand still because the learner is busy
with what others could play later."""


def spare(group: SimulatorsConfig) -> int:
    """How many fragments of ``group`` may be played, waiting or being learned from beyond one for each simulator."""
    return SPARE if group.realtime_hz is None else PACED_SPARE


def group_by_number(groups: Sequence[SimulatorsConfig]) -> list[int]:
    """The group of each simulator: they are numbered through all groups, in order."""
    return [index for index, group in enumerate(groups) for _ in range(group.count)]


def env_of(group: SimulatorsConfig, run: EnvSource) -> EnvSource:
    """What the simulators of ``group`` play, in a run whose own environment is ``run``.

    Where the group names no environment, it is the run's, and its settings lie over the run's, key by key.
    """
    if group.env is None:
        return run.with_settings({**run.settings, **group.env_settings})
    return EnvSource.of(group.env, group.env_settings, run.code)


def spec_of(config: RunConfig, run: EnvSource) -> EnvSpec:
    """The spaces of the run's environment, which those of every group equal. Makes one copy of each environment.

    Raises: ConfigError for an unknown environment or setting, or where spaces differ, with every group that does;
        EnvironmentFailed where an environment raises when it is made.
    """
    spec = env_spec(config, run)
    problems: list[Problem] = []
    for index, group in enumerate(config.groups):
        if group.env is None and not group.env_settings:
            continue
        own, key = env_of(group, run), f"{config.group_key(index)}.{'env' if group.env else 'env_settings'}"
        found = env_spec(config, own, key)
        for part in PARTS:
            ours, theirs = getattr(spec, part), getattr(found, part)
            if ours != theirs:
                message = (
                    f"group {group.name!r} has the {part.replace('_', ' ')} {theirs} ({own.id}), but the run's env has "
                    f"{ours} ({run.id}): all groups feed one learner, so they must be equal. Wrap the environment so "
                    "that it fits (rlray.envs.register), or train the group in a run of its own"
                )
                problems += config.error(key, message).problems
    if problems:
        raise ConfigError(problems)
    return spec


def env_spec(config: RunConfig | None, source: EnvSource, key: str = "env") -> EnvSpec:
    """The spaces of one environment, which ``key`` of the configuration, if there is one, names.

    Raises: ConfigError for an unknown environment or setting; EnvironmentFailed where it raises when it is made.
    """
    try:
        return source.spec()
    except EnvError as error:
        raise EnvironmentFailed.during("make", source.id, "before the run", 0, 0, error) from error
    except (TypeError, ValueError) as error:
        raise (config.error(key, str(error)) if config else ConfigError([Problem(str(error))])) from error

"""Configurations: what a run can be told, how YAML files are read, and errors that say file, line and remedy."""

from rlray.config.errors import ConfigError, Problem
from rlray.config.loader import config_folders, dump_config, find_config, load_config
from rlray.config.schema import (
    CheckpointConfig,
    EngineConfig,
    EvalConfig,
    LearnerConfig,
    RunConfig,
    SimulatorsConfig,
    StopConfig,
    WandbConfig,
)

__all__ = [
    "CheckpointConfig",
    "ConfigError",
    "EngineConfig",
    "EvalConfig",
    "LearnerConfig",
    "Problem",
    "RunConfig",
    "SimulatorsConfig",
    "StopConfig",
    "WandbConfig",
    "config_folders",
    "dump_config",
    "find_config",
    "load_config",
]

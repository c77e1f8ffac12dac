"""Environments: Atari, Lunar Lander, anything of gymnasium, your own, and a Pong simulator in numpy.

Importing this room registers ``rlray/Pong-v0`` with gymnasium; ale-py is imported only by those who play Atari.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from rlray.envs.errors import EnvError
    from rlray.envs.make import make_single, make_spec, make_vec
    from rlray.envs.registry import (
        Registration,
        RegistryTable,
        export_registry,
        install_registry,
        register,
        registered,
    )
    from rlray.envs.types import EnvSpec, Resumable, SingleEnv, VecStep, VectorEnv

_HOMES = {
    "EnvError": "errors",
    "make_single": "make",
    "make_spec": "make",
    "make_vec": "make",
    "Registration": "registry",
    "RegistryTable": "registry",
    "export_registry": "registry",
    "install_registry": "registry",
    "register": "registry",
    "registered": "registry",
    "EnvSpec": "types",
    "Resumable": "types",
    "SingleEnv": "types",
    "VecStep": "types",
    "VectorEnv": "types",
}

__all__ = [
    "EnvError",
    "EnvSpec",
    "Registration",
    "RegistryTable",
    "Resumable",
    "SingleEnv",
    "VecStep",
    "VectorEnv",
    "export_registry",
    "install_registry",
    "make_single",
    "make_spec",
    "make_vec",
    "register",
    "registered",
]

gymnasium.register(id="rlray/Pong-v0", entry_point="rlray.envs.pong:PongEnv")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

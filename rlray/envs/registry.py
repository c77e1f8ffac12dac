"""Names for environments, and taking them along to other processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from rlray.envs.pong import PONG_ID
from rlray.envs.settings import did_you_mean, nearest

Factory = Callable[..., Any]

_KNOWN_EVERYWHERE = ("gymnasium", "ale_py", "rlray")  # packages that register their environments in every process


@dataclass(frozen=True)
class Registration:
    """What a name stands for: anything that `make_vec` takes, and settings that it starts from."""

    env: str | Factory
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegistryTable:
    """All that was registered in one process. cloudpickle can send it, classes defined in a script included."""

    names: Mapping[str, Registration]
    gymnasium: tuple[GymnasiumSpec, ...]


_names: dict[str, Registration] = {}


def register(name: str, factory: str | Factory, **defaults: Any) -> None:
    """Let ``name`` stand for ``factory`` with the settings ``defaults``, which those of `make_vec` override.

    Guarantees: a registered name wins over gymnasium's; registering it again replaces it, so a notebook cell can be
    run twice. Training sends the table to its simulators (`export_registry`).

    Args:
        name: such as "maze" or "me/Maze-v0".
        factory: a class, a function that returns an environment, or any string that `make_vec` takes.
        defaults: settings.

    Raises: TypeError or ValueError for another name or factory.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if not name or name != name.strip():
        raise ValueError(f"name must not be empty and not begin or end with a space, got {name!r}")
    if not (callable(factory) or isinstance(factory, str)):
        raise TypeError(f"factory of {name!r} must be a class, a function or a string, got {factory!r}")
    if factory == name:
        raise ValueError(f"{name!r} cannot stand for itself: give a class, a function or another id as factory")
    _names[name] = Registration(factory, dict(defaults))


def registered() -> dict[str, Registration]:
    """A copy of the table of registered names."""
    return dict(_names)


def export_registry() -> RegistryTable:
    """What other processes lack: our names, and what packages and scripts added to gymnasium's registry."""
    foreign = [spec for spec in gymnasium.registry.values() if _home(spec) not in _KNOWN_EVERYWHERE]
    return RegistryTable(registered(), tuple(foreign))


def install_registry(table: RegistryTable) -> None:
    """Add what `export_registry` gave in another process; names that exist here are replaced."""
    _names.update(table.names)
    for spec in table.gymnasium:
        gymnasium.registry[spec.id] = spec


def _home(spec: GymnasiumSpec) -> str:
    """The package that an environment of gymnasium's registry comes from."""
    entry = spec.entry_point or spec.vector_entry_point
    module = entry.split(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return str(module).split(".")[0]


def unknown(name: str) -> ValueError:
    """The error for a name that nobody knows, with the nearest that somebody does."""
    kinds = "a registered name, ALE/Name-v5, an id of gymnasium, package.module:Class, or a class"
    return ValueError(f"unknown environment {name!r}{did_you_mean(_similar(name))} An environment is {kinds}.")


def _similar(name: str) -> list[str]:
    """Up to three known names, also where namespace or version is missing: ours first, then Atari's."""
    known = [
        *sorted(_names),
        PONG_ID,
        *sorted(gymnasium.registry, key=lambda each: (not each.startswith("ALE/"), each)),
    ]
    full = {each.lower(): [each] for each in known}
    bare: dict[str, list[str]] = {}
    for each in known:
        bare.setdefault(_bare(each), []).append(each)
    found = list(bare.get(_bare(name), []))
    for names, wanted in ((full, name.lower()), (bare, _bare(name))):
        for key in nearest(wanted, names):
            found += names[key]
    return list(dict.fromkeys(found))[:3]


def _bare(name: str) -> str:
    """Without namespace and version, in lower case."""
    return re.sub(r"-v\d+$", "", name.split("/")[-1]).lower()

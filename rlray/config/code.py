"""Where modules of a user's own lie: those that a configuration names as ``package.module:NAME``."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_NAME = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:.")
_KEYS = ("env", "algo", "hyperparameters")
_added: set[Path] = set()  # the folders that are on this process's sys.path because of `make_importable`


def folders_for(values: Mapping[str, Any], beside: Path) -> Any:
    """What the key ``code`` is to be: absolute folders, so that they are found from anywhere and by every actor.

    What the file gives is relative to the file's folder ``beside``. That folder, or else the current one, follows where
    it holds a module that the configuration names, unless Python finds one of that name by itself: what is installed
    comes first.
    """
    given = values.get("code") or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(folder, str) for folder in given):
        return given  # the schema says what is wrong with it
    folders = [str(beside / Path(folder).expanduser()) for folder in given]
    for module in dict.fromkeys(module for key in _KEYS for module in _modules_in(values.get(key))):
        places = [folder for folder in (beside, Path.cwd()) if _holds(folder, module)]
        found = _place_of(module)
        folders += [str(folder) for folder in places[:1] if found is None or found in _added]
    return list(dict.fromkeys(folders))


def make_importable(folders: Iterable[str]) -> None:
    """Let this process find modules in ``folders``, after all other places. Missing ones are left out."""
    for folder in folders:
        if folder not in sys.path and Path(folder).is_dir():
            sys.path.append(folder)
            _added.add(Path(folder).resolve())
            importlib.invalidate_caches()


def _modules_in(value: Any) -> Iterator[str]:
    """The first parts of the modules that are named in ``value``, however deep."""
    if isinstance(value, str) and (match := _NAME.match(value)) and match[1] != "rlray":
        yield match[1]
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _modules_in(inner)


def _holds(folder: Path, module: str) -> bool:
    return (folder / f"{module}.py").is_file() or (folder / module).is_dir()


def _place_of(module: str) -> Path | None:
    """The folder in which Python finds ``module``; None if it finds none."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # it was not made by an import, such as __main__
        return Path(module)
    if spec is None:
        return None
    inside = next(iter(spec.submodule_search_locations or ()), None)
    return Path(inside or spec.origin or module).resolve().parent

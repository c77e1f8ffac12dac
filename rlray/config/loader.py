"""From a YAML file and overrides to a checked configuration, and back."""

from __future__ import annotations

import difflib
import os
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlray.config.code import folders_for
from rlray.config.errors import ConfigError, KeyPath, Origins, Place, Problem
from rlray.config.schema import RunConfig
from rlray.config.yaml_text import Parsed, dump


def load_config(path_or_name: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read, override and check a configuration; nothing has been started or written when this returns or raises.

    Args:
        path_or_name: a path, or the name of a file in one of `config_folders`, with or without ``.yaml``.
        overrides: ``"stop.steps=1e5"``: a dotted key and a YAML value. Later ones win.

    Raises:
        FileNotFoundError: there is no such file; the message has the nearest names.
        ConfigError: with every problem at once, each with its file and line, or its override.
    """
    path = find_config(path_or_name)
    shown = _shown(path)
    try:
        parsed = Parsed(path.read_text(encoding="utf-8"), shown)
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(f"not a text file: {error}", Place(0, shown))]) from error
    problems = parsed.problems
    values = {} if parsed.value is None else parsed.value
    if not isinstance(values, dict):
        if not problems:
            problems.append(Problem(f"must hold keys, such as 'env: …', got {values!r:.60}", Place(1, shown)))
        raise ConfigError(problems)
    origins = Origins({(): Place(1, shown), **parsed.places})
    for override in overrides:
        problems += _apply(override, values, origins)
    if any(problem.message.startswith("not valid YAML") for problem in parsed.problems):
        raise ConfigError(problems)  # what could be read of it tells nothing about the rest
    values["code"] = folders_for(values, path.parent.absolute())
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "run")
    return RunConfig.from_dict(values, origins, problems)


def read_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Nested settings from ``key=value`` texts, as the overrides of a configuration.

    Raises: ConfigError with every problem.
    """
    values: dict[str, Any] = {}
    origins = Origins()
    problems = [problem for override in overrides for problem in _apply(override, values, origins)]
    if problems:
        raise ConfigError(problems)
    return values


def dump_config(config: RunConfig) -> str:
    """All of ``config`` as YAML, defaults included; `load_config` makes an equal one of it."""
    return dump(config.model_dump(mode="json"))


def config_folders() -> list[Path]:
    """Where bare names are looked for: ``configs/`` here, in the repository, and where the package installs it."""
    folders = [Path("configs").absolute(), Path(sysconfig.get_path("data")) / "share" / "rlray" / "configs"]
    repository = Path(__file__).resolve().parents[2]
    if (repository / "pyproject.toml").is_file():
        folders.insert(1, repository / "configs")
    return list(dict.fromkeys(folders))


def find_config(path_or_name: str | os.PathLike[str]) -> Path:
    """The file meant by ``path_or_name``.

    Raises:
        FileNotFoundError: there is none; the message says where it was looked for, and names near ones.
    """
    asked = Path(path_or_name).expanduser()
    bare = asked.name == str(asked)
    folders = config_folders() if bare else []
    for folder in (Path(), *folders):
        for candidate in (folder / asked, folder / f"{asked}.yaml"):
            if candidate.is_file():
                return candidate
    names = sorted({file.name for folder in folders or [asked.parent] for file in folder.glob("*.yaml")})
    near = difflib.get_close_matches(asked.name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" There are: {', '.join(names)}." if names else ""
    looked = ", ".join(str(folder.absolute()) for folder in (Path() if bare else asked.parent, *folders))
    raise FileNotFoundError(f"no configuration {str(path_or_name)!r} (looked in {looked}).{hint}")


def _apply(override: str, values: dict[str, Any], origins: Origins) -> list[Problem]:
    """Write ``override`` into ``values``; returns what is wrong with it."""
    place = Place(0, f"override {override!r}")
    key, equals, text = override.partition("=")
    path: KeyPath = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        return [Problem("must have the form key=value, such as stop.steps=100000", place)]
    if not text.strip():
        return [Problem(f"has no value; write {key}=null for none, {key}='' for an empty text", place)]
    parsed = Parsed(text, "")
    if parsed.problems:
        return [Problem(problem.message, place) for problem in parsed.problems]
    section: Any = values
    for depth in range(1, len(path)):
        part, index = path[depth - 1], path[depth]
        inner = section[part] if isinstance(part, int) else section.get(part)
        if isinstance(inner, list):
            if not _is_section_of(inner, index):
                name = ".".join(map(str, path[:depth]))
                return [Problem(f"{name!r} is a list; give it anew, or name one of its sections by number", place)]
            path = (*path[:depth], int(index), *path[depth + 1 :])
        elif not isinstance(inner, dict):
            inner = section[part] = {}
            origins.replace(path[:depth], place)
        section = inner
    section[path[-1]] = parsed.value
    origins.replace(path, place)
    return []


def _is_section_of(items: list[Any], index: str | int) -> bool:
    """Whether ``index`` is the number of an item that holds keys."""
    return str(index).isdigit() and int(index) < len(items) and isinstance(items[int(index)], dict)


def _shown(path: Path) -> str:
    """``path`` as people know it: from the current folder where it lies below that."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)

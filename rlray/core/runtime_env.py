"""Runtime environments: what the processes of a task or an actor are set up with before user code runs.

Inside the runtime an environment is its canonical JSON text, "" for none: equal environments are equal strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_FIELDS = ("env_vars", "working_dir", "py_modules")


class RuntimeEnv(dict[str, Any]):
    """What ``runtime_env=`` takes, checked when it is made; a plain dict with the same keys does as well.

    Args:
        env_vars: Environment variables. ``${NAME}`` in a value stands for that variable of the worker. What workers
            have imported before (numpy, and ``preload`` of init) has read its variables already.
        working_dir: A local directory. It is the worker's current directory and first on its ``sys.path``. It is used
            in place, not copied: a change made after the submission is seen.
        py_modules: Packages and modules that can be imported: local directories, ``.py`` files, or imported modules.

    Raises: ValueError for any other field and for a path that does not exist; TypeError for a value of a wrong type.
    """

    def __init__(
        self,
        *,
        env_vars: Mapping[str, str] | None = None,
        working_dir: str | Path | None = None,
        py_modules: Sequence[str | Path | ModuleType] | None = None,
        **others: Any,
    ) -> None:
        for name in others:
            raise ValueError(
                f"runtime_env has no field {name!r} here; it has {', '.join(_FIELDS)}. "
                "Install packages before init(): every worker is a process of this machine and this Python"
            )
        given = {
            "env_vars": None if env_vars is None else _variables(env_vars),
            "working_dir": None if working_dir is None else _directory(working_dir),
            "py_modules": None if py_modules is None else _modules(py_modules),
        }
        super().__init__({name: value for name, value in given.items() if value is not None})

    def __reduce__(self) -> tuple[Any, ...]:
        return known_good, (dict(self),)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict with the same content."""
        return dict(self)


def known_good(content: Mapping[str, Any]) -> RuntimeEnv:
    """An environment that was checked before; its directories may have gone since."""
    environment = RuntimeEnv()
    environment.update(content)
    return environment


def _variables(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be a dict of strings, got {type(given).__name__} {given!r}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env['env_vars'] must be a dict of strings, got {name!r}: {value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"runtime_env['env_vars'] has {name!r}: {value!r}, which no process can be given")
    return dict(given)


def _directory(given: Any) -> str:
    if not isinstance(given, str | Path):
        raise TypeError(
            f"runtime_env['working_dir'] must be the path of a directory, got {type(given).__name__} {given!r}"
        )
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        raise ValueError(f"runtime_env['working_dir'] must be a directory of this machine; there is none at {given!r}")
    return str(path)


def _modules(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(
            f"runtime_env['py_modules'] must be a list of paths or modules, got {type(given).__name__} {given!r}"
        )
    return [_module(one) for one in given]


def _module(given: Any) -> str:
    if isinstance(given, ModuleType):
        return _source(given)
    if not isinstance(given, str | Path):
        raise TypeError(
            f"runtime_env['py_modules'] must be a list of paths or modules, got {type(given).__name__} {given!r}"
        )
    path = Path(given).expanduser().absolute()
    if not (path.is_dir() or (path.is_file() and path.suffix == ".py")):
        raise ValueError(
            f"runtime_env['py_modules'] must name directories or .py files of this machine; there is none at {given!r}"
        )
    return str(path)


def _source(module: ModuleType) -> str:
    """Where an imported module lies: its directory if it is a package, else its file."""
    for place in getattr(module, "__path__", ()):
        return str(Path(place).absolute())
    if getattr(module, "__file__", None) is None:
        raise ValueError(f"runtime_env['py_modules'] has {module!r}, which has no file; it is there in every worker")
    return str(Path(str(module.__file__)).absolute())


def canonical(given: Mapping[str, Any] | None) -> str:
    """The text that stands for an environment; raises as `RuntimeEnv` does."""
    content = RuntimeEnv(**given) if given else None
    return json.dumps(content, sort_keys=True) if content else ""


def merged(outer: str, inner: str) -> str:
    """What a child gets: the fields of ``inner``, its own, before those of ``outer``; variables from both."""
    if not inner or inner == outer:
        return outer
    if not outer:
        return inner
    first, second = parsed(outer), parsed(inner)
    both = {**first, **second}
    if "env_vars" in both:
        both["env_vars"] = {**first.get("env_vars", {}), **second.get("env_vars", {})}
    return json.dumps(both, sort_keys=True)


def parsed(environment: str) -> dict[str, Any]:
    """The fields that the text stands for."""
    return dict(json.loads(environment)) if environment else {}

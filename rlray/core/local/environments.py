"""Setting up a worker process with a runtime environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from rlray.core.runtime_env import parsed

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def set_up(environment: str) -> None:
    """Make this process one of the environment: its variables, current directory and ``sys.path``.

    Raises: OSError if a directory has gone since the environment was checked.
    """
    fields = parsed(environment)
    variables = _expanded(fields.get("env_vars", {}))
    os.environ.update(variables)
    places = []
    if "working_dir" in fields:
        os.chdir(fields["working_dir"])
        places.append(fields["working_dir"])
    for module in fields.get("py_modules", []):
        if not os.path.exists(module):
            raise FileNotFoundError(f"there is no module at {module!r} any more")
        places.append(str(Path(module).parent))
    places += [place for place in variables.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:0] = dict.fromkeys(places)


def _expanded(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables with ``${NAME}`` replaced by what this process has; an unknown name is left as it stands."""
    return {
        name: _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), value)
        for name, value in variables.items()
    }

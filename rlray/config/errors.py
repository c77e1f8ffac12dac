"""What is wrong with a configuration, and where: one exception that lists every problem at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

KeyPath = tuple[str | int, ...]
"""Where a value lies in nested mappings and lists: ``("stop", "steps")``."""


@dataclass(frozen=True)
class Place:
    """A line of a file, or an override; what an error message starts with."""

    line: int = 0
    source: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


NOWHERE = Place()


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and the place to mend it."""

    message: str
    place: Place = NOWHERE

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place.source else self.message


class ConfigError(ValueError):
    """The configuration cannot be used. ``problems`` has every reason, in the order of the file, overrides last."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.place.line or sys.maxsize))
        lines = [str(problem) for problem in self.problems]
        if len(lines) > 1:
            lines = [f"{len(lines)} problems in the configuration:", *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        return ConfigError, (self.problems,)


@dataclass(eq=False)
class Origins:
    """Where each value of a configuration was written.

    Two configurations with the same values are equal wherever they came from, hence every `Origins` equals every
    other.
    """

    places: dict[KeyPath, Place] = field(default_factory=dict)

    def of(self, path: KeyPath) -> Place:
        """The place of ``path``, else that of the section nearest above it, else nowhere."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return NOWHERE

    def replace(self, path: KeyPath, place: Place) -> None:
        """From now on ``path`` and all below it come from ``place``."""
        self.places = {known: at for known, at in self.places.items() if known[: len(path)] != path}
        self.places[path] = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origins)

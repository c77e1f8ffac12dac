"""What of a process's tasks or values is told to whoever looks in: those that it asks for, and not too many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlray.core.state import MOST_ROWS, Filter

Field = Callable[[Any], object]


class Sieve:
    """Lets through what passes those filters that can be decided here, see `rlray.core.state.select`.

    ``limit`` is how many of those may be told: if there are filters that cannot be decided here, more than were asked
    for.
    """

    def __init__(self, fields: Mapping[str, Field], filters: Sequence[Filter], limit: int) -> None:
        self._tests = [
            (fields[key], comparison == "=", str(value).lower()) for key, comparison, value in filters if key in fields
        ]
        self.limit = min(limit if len(self._tests) == len(filters) else MOST_ROWS, MOST_ROWS)

    def __call__(self, item: Any) -> bool:
        """Whether it passes."""
        return all((str(field(item)).lower() == value) is equal for field, equal, value in self._tests)

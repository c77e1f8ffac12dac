"""What to do about errors that numpy raises because of how values travel: said in tasks and in the driver."""

from __future__ import annotations

import sys
from types import TracebackType

_READ_ONLY = (
    "note: arrays that get() returns or that arrive as arguments are read-only views of shared memory; "
    "to change one, work on a copy: array = array.copy()\n"
)


def hint(error: BaseException) -> str:
    """A line that helps with an error, or nothing."""
    return _READ_ONLY if type(error) is ValueError and "read-only" in str(error) else ""


class DriverHints:
    """Adds the hint to what Python prints of an error that ends the program. What was there before goes on first."""

    def __init__(self) -> None:
        self._before = sys.excepthook
        self._own = self._show  # one bound method, to be found again
        sys.excepthook = self._own

    def _show(self, kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        self._before(kind, error, tb)
        if hint(error) and hint(error) not in str(error):  # a task's error has it already
            sys.stderr.write(hint(error))

    def remove(self) -> None:
        """Leave things as they were, unless somebody else has put a hook on top."""
        if sys.excepthook is self._own:
            sys.excepthook = self._before

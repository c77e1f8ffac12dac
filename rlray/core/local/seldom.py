"""Lines for the log that may come by the thousand: the first is written at once, then one every ten seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable

_SECONDS = 10.0


class Seldom:
    """Writes the latest of many warnings, and how many there were. Call it under the loop's lock."""

    def __init__(self, logger: logging.Logger, call_later: Callable[[float, Callable[[], None]], None]) -> None:
        self._logger, self._call_later = logger, call_later
        self._line, self._more = "", 0
        self._pauses = False

    def warn(self, line: str) -> None:
        """Write ``line`` now, or, if nothing comes after it, soon."""
        self._line = line
        self._more += 1
        if not self._pauses:
            self._write()

    def _write(self) -> None:
        self._logger.warning("%s%s", self._line, f" (and {self._more - 1} times more)" if self._more > 1 else "")
        self._more, self._pauses = 0, True
        self._call_later(_SECONDS, self._again)

    def _again(self) -> None:
        self._pauses = False
        if self._more:
            self._write()

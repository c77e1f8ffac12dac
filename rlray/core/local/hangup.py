"""Noticing in the midst of imports, which may take long, that nobody wants them any more."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Hangup(BaseException):
    """The other end of the line is closed. Not an `Exception`: modules that try to import others do not catch it."""


class _Listener:
    """Finds no module, but looks at the line whenever one is looked for."""

    def __init__(self, line: int) -> None:
        self._poll = select.poll()
        self._poll.register(line, 0)  # the end is told unasked, also where something is left to be read before

    def find_spec(self, *_: Any) -> None:
        if any(events & select.POLLHUP for _, events in self._poll.poll(0)):
            raise Hangup


@contextmanager
def while_connected(line: int) -> Iterator[None]:
    """Imports in the ``with`` block raise `Hangup` once the other end of a socket is closed, before the next module."""
    listener = _Listener(line)
    sys.meta_path.insert(0, listener)
    try:
        yield
    finally:
        sys.meta_path.remove(listener)

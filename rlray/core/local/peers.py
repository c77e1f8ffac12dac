"""Messages to other processes of the run: a process is called when there is something to say to it, or has called."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial

from rlray.core.local.loop import Loop
from rlray.core.local.seldom import Seldom
from rlray.core.local.settings import RunSettings
from rlray.core.local.wire import Connection, Message

logger = logging.getLogger(__name__)

_NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)  # others: nobody is there
_AGAIN = 0.02  # seconds until a process that cannot be called is called again


class Peers:
    """The connections of one process to others, by their numbers.

    Guarantees: messages of one thread to one process arrive in order. They wait while this process has no descriptor
    left for a connection, or too many others stand at that process's door. What is for a dead process is dropped.
    """

    def __init__(self, loop: Loop, settings: RunSettings, process: int, dead: Callable[[int], None]) -> None:
        """``dead(process)`` is called, under the loop's lock, for one that is not there any more."""
        self._loop, self._settings, self._process, self._dead = loop, settings, process, dead
        self._connections: dict[int, Connection] = {}
        self._unsent: dict[int, list[Message]] = {}  # to those that cannot be called at the moment
        self._log = Seldom(logger, loop.call_later)

    def add(self, connection: Connection) -> None:
        """Whoever is at the other end can be answered on this connection."""
        self._connections.setdefault(connection.peer, connection)

    def remove(self, process: int) -> None:
        """A process is dead."""
        self._connections.pop(process, None)

    def post(self, process: int, message: Message) -> None:
        """Send, from any thread."""
        connection = self._connections.get(process)
        if connection is None or connection.closed or process in self._unsent:
            with self._loop.lock:
                if process in self._unsent:
                    self._unsent[process].append(message)
                else:
                    self._unsent[process] = [message]
                    self._send_unsent(process)
        else:
            self._loop.send(connection, message)

    def _send_unsent(self, process: int) -> None:
        connection = self._connections.get(process)
        if connection is None or connection.closed:
            try:
                connection = self._loop.connect(self._settings.socket_path(process), self._process, process)
            except OSError as why:
                if why.errno in _NOT_NOW:
                    self._log.warn(f"messages to other processes of the run have to wait: {why.strerror}")
                    self._loop.call_later(_AGAIN, partial(self._send_unsent, process))
                else:
                    del self._unsent[process]
                    self._dead(process)
                return
        self._connections[process] = connection
        for message in self._unsent[process]:
            self._loop.send(connection, message)
        del self._unsent[process]  # only now: until then other threads wait for the lock

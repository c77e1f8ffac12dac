"""The door of a process: who shows the run's secret comes in, strangers are turned away, in bounded time and number.

A stranger can only be a process of the same user (the sockets lie in a directory of mode 0700), so it is more likely
lost than hostile; still it must not be able to stop or slow down a run. Whoever has shown the secret is one of us: it
is believed to be the process that it says it is.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlray.core.local.seldom import Seldom
from rlray.core.local.wire import HELLO_BYTES, ProtocolError, caller_in

if TYPE_CHECKING:
    from rlray.core.local.loop import Loop

logger = logging.getLogger(__name__)

_MOST_WAITING = 64  # callers that have not shown the secret yet
_PATIENCE = 10.0  # seconds until one must have shown it
_BACKLOG = 1024  # callers that the kernel keeps until they are looked at
_AT_ONCE = 32  # callers that are let in per round, so that others have their turn
_PAUSE = 0.1  # seconds until callers are looked at again when this process has no descriptor left for them
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid


@dataclass(eq=False, slots=True)
class _Caller:
    """A connection on which the secret has not been shown yet."""

    sock: socket.socket
    pid: int  # 0: the system does not tell
    until: float
    said: bytes = b""


class Door:
    """Listens at a Unix socket path and gives ``admit`` the sockets of those who belong to the run.

    Guarantees: of a caller that has not shown the secret, no more than the bytes of a hello are read, and none are
    interpreted but to compare them. Not more than a few dozen such callers are kept, none longer than some seconds, and
    one that comes on top costs the place of whichever process holds most of them, so that a flood from one
    process never pushes out another. Turning callers away is logged, in at most one line every ten seconds.

    All methods are called under the loop's lock.
    """

    def __init__(self, path: str, secret: bytes, loop: Loop, admit: Callable[[socket.socket, int], object]) -> None:
        self._secret, self._loop, self._admit = secret, loop, admit
        self._name = path.rpartition("/")[2]
        self._waiting: dict[_Caller, None] = {}  # longest first
        self._tidying = False
        self._log = Seldom(logger, loop.call_later)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(path)
        os.chmod(path, 0o600)  # whatever the umask
        self._sock.listen(_BACKLOG)
        self._sock.setblocking(False)
        loop.watch(self._sock, self.answer)

    def answer(self, most: int = _AT_ONCE) -> None:
        """Let in who stands at the door, so many at most."""
        for _ in range(most):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as why:  # no descriptor is left: the kernel keeps callers, and what they say, meanwhile
                self._log.warn(f"callers at {self._name} have to wait: {why.strerror}")
                self._loop.unwatch(self._sock)
                self._loop.call_later(_PAUSE, lambda: self._loop.watch(self._sock, self.answer))
                return
            self._take(sock)

    def answer_all(self) -> None:
        """Let in everybody who stands at the door at this moment and has said enough."""
        self.answer(_BACKLOG + 1)
        for caller in list(self._waiting):
            self._listen(caller)

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        caller = _Caller(sock, _pid_of(sock), time.monotonic() + _PATIENCE)
        self._waiting[caller] = None
        self._loop.watch(sock, lambda: self._listen(caller))
        self._listen(caller)
        if len(self._waiting) > _MOST_WAITING:
            [(busiest, _)] = Counter(each.pid for each in self._waiting).most_common(1)
            victim = next(each for each in self._waiting if each.pid == busiest)
            self._turn_away(victim, "too many callers have not shown the secret, and most of them are its")
        if self._waiting and not self._tidying:
            self._tidying = True
            self._loop.call_later(_PATIENCE, self._tidy)

    def _listen(self, caller: _Caller) -> None:
        if caller not in self._waiting:  # it was let in or turned away earlier in this round
            return
        try:
            heard = caller.sock.recv(HELLO_BYTES - len(caller.said))
            caller.said += heard
            process = caller_in(caller.said, self._secret)
        except BlockingIOError:
            return
        except (ProtocolError, OSError) as why:
            self._turn_away(caller, str(why))
            return
        if process is not None:
            self._forget(caller)
            self._admit(caller.sock, process)
        elif not heard:
            self._turn_away(caller, "it left without a word of the secret")

    def _tidy(self) -> None:
        now = time.monotonic()
        for caller in [each for each in self._waiting if each.until <= now]:
            self._turn_away(caller, f"it did not show the run's secret within {_PATIENCE:g} s")
        self._tidying = bool(self._waiting)
        if self._waiting:
            self._loop.call_later(next(iter(self._waiting)).until - now, self._tidy)

    def _turn_away(self, caller: _Caller, why: str) -> None:
        self._forget(caller)
        caller.sock.close()
        who = f"process {caller.pid}" if caller.pid else "a process"
        self._log.warn(f"turned away {who}, which called at {self._name}: {why}")

    def _forget(self, caller: _Caller) -> None:
        del self._waiting[caller]
        self._loop.unwatch(caller.sock)

    def close(self) -> None:
        """Close every socket of this process's; others that were forked with them keep theirs."""
        self._sock.close()
        for caller in self._waiting:
            caller.sock.close()


def _pid_of(sock: socket.socket) -> int:
    """The process that has called; 0 where the system does not tell."""
    with suppress(AttributeError, OSError):
        return _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]  # type: ignore[no-any-return]
    return 0

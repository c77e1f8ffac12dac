"""Reading every connection of a process: whoever waits does the I/O.

A thread that waits for something (`Loop.run_until`) polls the sockets itself, so that an answer reaches it without a
hand-over between threads. One thread leads at a time, other waiters follow; while nobody waits, a background thread
leads, so that messages are handled also while user code computes.
"""

from __future__ import annotations

import heapq
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from rlray.core.local.door import Door
from rlray.core.local.wire import Connection, Message, hello

if TYPE_CHECKING:
    import asyncio

    from rlray.core.local.ctrl_c import CtrlC

logger = logging.getLogger(__name__)

_LINGER = 0.002  # seconds: a waiter that has left usually comes back at once
_CHUNK = 1 << 18  # bytes read at a time
_SETTLED = 0.02  # seconds: a waiter that stays this long needs no stand-in


class Loop:
    """The connections of one process.

    ``handle(connection, message)`` is called under `lock` for each message, ``lost(connection)`` when a connection
    with a proven peer has ended and all its messages were handled, ``idle()`` after each round, also under `lock`.
    """

    def __init__(
        self,
        secret: bytes,
        handle: Callable[[Connection, Message], None],
        lost: Callable[[Connection], None],
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.lock = threading.RLock()
        self._secret = secret
        self._handle, self._lost, self._idle = handle, lost, idle
        self._selector = selectors.DefaultSelector()
        self._lead = threading.Lock()
        self._leader = 0  # ident of the thread that polls
        self._progress = threading.Condition(threading.Lock())
        self._waiters = 0
        self._followers = 0
        self._background: threading.Thread | None = None
        self._parked = False
        self._closed = False
        self._attention = False  # ``idle`` has something to do
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self.interrupts: CtrlC | None = None  # of the driver's main thread
        self._served: asyncio.AbstractEventLoop | None = None  # polls between its own callbacks
        self._serve_again: asyncio.TimerHandle | None = None
        self._buffer = memoryview(bytearray(_CHUNK))
        self._door: Door | None = None
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, "wake")

    # -- connections ---------------------------------------------------------------------------------------------

    def listen(self, path: str) -> None:
        """Accept callers at a Unix socket path."""
        self._door = Door(path, self._secret, self, self.adopt)

    def connect(self, path: str, caller: int, peer: int, patient: bool = False) -> Connection:
        """Call a process of the run; where too many others wait to be let in, wait too if ``patient``.

        Raises OSError if it cannot be called, now or for ever. Call with `lock` held, once somebody polls.
        """
        if self._closed:
            raise ConnectionError("this process does not belong to the run any more")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(patient)
        try:
            sock.connect(path)
            sock.sendall(hello(self._secret, caller))
        except OSError:
            sock.close()
            raise
        return self.adopt(sock, peer)

    def adopt(self, sock: socket.socket, peer: int) -> Connection:
        """Read a connected socket from now on; the other end counts as proven.

        Call with `lock` held, once somebody polls.
        """
        connection = Connection(sock, peer)
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return connection

    def watch(self, file: int | socket.socket, ready: Callable[[], None]) -> None:
        """Call ``ready`` under `lock` whenever ``file`` is readable."""
        self._selector.register(file, selectors.EVENT_READ, ready)

    def unwatch(self, file: int | socket.socket) -> None:
        """Undo `watch`."""
        self._selector.unregister(file)

    def send(self, connection: Connection, message: Message) -> None:
        """Send, from any thread; what the kernel does not take now follows when it can."""
        if not connection.send(message):
            self._want_write(connection)

    def _want_write(self, connection: Connection) -> None:
        with self.lock:  # the poller may be about to watch it no longer, or to close it
            if not connection.closed:
                self._selector.modify(connection.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    # -- waiting -------------------------------------------------------------------------------------------------

    def run_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Handle messages until ``done()``; False if ``timeout`` seconds passed first."""
        if done():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._progress:
            self._waiters += 1
        try:
            if self._background is not None and self._leader == self._background.ident:
                self.wake()
            return self._wait(done, deadline)
        finally:
            with self._progress:
                self._waiters -= 1
                if self._parked and not self._waiters:
                    self._progress.notify_all()
            self._tell_served()

    def _wait(self, done: Callable[[], bool], deadline: float | None) -> bool:
        while True:
            if self.interrupts is not None:
                self.interrupts.check()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return done()
            if self._lead.acquire(blocking=False):
                try:
                    self._leader = threading.get_ident()
                    if done():
                        return True
                    self.poll(left)
                finally:
                    self._step_down()
                if done():
                    return True
            else:
                with self._progress:
                    if done():
                        return True
                    self._followers += 1
                    try:
                        if self._lead.locked():
                            self._progress.wait(left)
                    finally:
                        self._followers -= 1

    def _step_down(self) -> None:
        """The leader polls no more: another waiter may."""
        self._leader = 0
        self._lead.release()
        if self._followers:
            with self._progress:
                self._progress.notify_all()

    def wake(self) -> None:
        """Make whoever polls look up."""
        with suppress(BlockingIOError, OSError):  # full: it will wake anyway; closed: nobody is left
            os.write(self._wake_out, b"w")

    def attend(self) -> None:
        """There is something for ``idle`` to do before anybody waits long."""
        self._attention = True
        if (self._leader or self._served is not None) and self._leader != threading.get_ident():
            self.wake()

    def changed(self) -> None:
        """Something that a waiter may wait for has changed without a message having arrived."""
        if self._waiters and self._leader != threading.get_ident():
            self.wake()

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run ``action`` under `lock` after about ``seconds``. Call with `lock` held."""
        self._timer_count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_count, action))
        if self._timers[0][1] == self._timer_count and self._leader != threading.get_ident():
            self.wake()

    # -- polling -------------------------------------------------------------------------------------------------

    def poll(self, timeout: float | None) -> None:
        """One round: wait for traffic at most ``timeout`` seconds and handle what has come."""
        if self._attention:
            self._attention = False
            with self.lock:
                self._idle()
            if self._attention:  # there is more already: it has its turn after the traffic, which it must not hold up
                timeout = 0
        if self._timers:
            soon = max(0.0, self._timers[0][0] - time.monotonic())
            timeout = soon if timeout is None else min(soon, timeout)
        events = self._selector.select(timeout)
        with self.lock:
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            for key, mask in events:
                if isinstance(key.data, Connection):
                    if mask & selectors.EVENT_WRITE and not key.data.closed and key.data.flush():
                        self._selector.modify(key.data.sock, selectors.EVENT_READ, key.data)
                    if mask & selectors.EVENT_READ:
                        self._read(key.data)
                elif key.data == "wake":
                    with suppress(BlockingIOError):
                        os.read(self._wake_in, 4096)
                else:
                    key.data()
            self._idle()

    def read_now(self, peer: int) -> list[Connection]:
        """Handle all that has arrived from a process; returns the connections with it. Call with `lock` held.

        Also what it had said on a connection that has not been accepted yet.
        """
        return self._read_from(lambda connection: connection.peer == peer)

    def read_others(self, peer: int) -> None:
        """As `read_now`, from every process but one."""
        self._read_from(lambda connection: connection.peer != peer)

    def _read_from(self, wanted: Callable[[Connection], bool]) -> list[Connection]:
        if self._door is not None:
            self._door.answer_all()
        every = [key.data for key in self._selector.get_map().values() if isinstance(key.data, Connection)]
        connections = [connection for connection in every if wanted(connection) and not connection.closed]
        for connection in connections:
            while self._read(connection):
                pass
        return connections

    def drain(self, peer: int) -> None:
        """Handle all that a dead process has written, then forget it. Call with `lock` held."""
        for connection in self.read_now(peer):
            if not connection.closed:  # a child of the dead process still holds the other end open
                self._forget(connection)

    def _read(self, connection: Connection) -> bool:
        """Handle what has arrived; False if nothing had."""
        if connection.closed:
            return False
        messages, ended = connection.receive(self._buffer)
        for message in messages:
            try:
                self._handle(connection, message)
            except Exception:
                logger.exception("the runtime failed on a %r message", message[0])
        if ended:
            if connection.fault:
                logger.error("closed a connection: %s", connection.fault)
            self._forget(connection)
            self._lost(connection)
        return bool(messages)

    def _forget(self, connection: Connection) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.close()

    # -- with an event loop ------------------------------------------------------------------------------------------

    def serve_with(self, served: asyncio.AbstractEventLoop) -> None:
        """From now on an event loop of the calling thread polls, whenever there is traffic, between its callbacks."""
        with self._progress:
            self._waiters += 1  # for ever: no stand-in is needed
        self._served = served
        served.add_reader(self._selector.fileno(), self._serve)
        served.call_soon(self._serve)

    def _tell_served(self) -> None:
        """Tell the event loop, if one is served, of what came up while the calling thread polled."""
        if self._served is not None and (self._attention or self._timers):
            self.wake()

    def _serve(self) -> None:
        if not self._lead.acquire(blocking=False):
            return  # another thread polls at this moment
        try:
            self._leader = threading.get_ident()
            self.poll(0)
        finally:
            self._step_down()
        if self._timers and self._served is not None:
            if self._serve_again is not None:
                self._serve_again.cancel()
            self._serve_again = self._served.call_later(max(0.0, self._timers[0][0] - time.monotonic()), self._serve)

    # -- the stand-in --------------------------------------------------------------------------------------------

    def start_background(self) -> None:
        """Let a daemon thread poll while nobody waits."""
        self._background = threading.Thread(target=self._stand_in, name="rlray-io", daemon=True)
        self._background.start()

    def _stand_in(self) -> None:
        since = time.monotonic()  # when a waiter was first seen without a break
        while not self._closed:
            if self._waiters:
                if time.monotonic() - since < _SETTLED:
                    time.sleep(_LINGER)
                    continue
                with self._progress:
                    self._parked = True
                    while self._waiters and not self._closed:
                        self._progress.wait()
                    self._parked = False
            time.sleep(_LINGER)
            since = time.monotonic()
            if self._waiters or not self._lead.acquire(blocking=False):
                continue
            try:
                self._leader = threading.get_ident()
                while not self._waiters and not self._closed:
                    self.poll(None)
            except OSError:
                if not self._closed:
                    raise
            finally:
                self._step_down()
            self._tell_served()

    def close_copies(self) -> None:
        """In a forked child: close the copies of the parent's descriptors, leaving the parent's own untouched.

        Nothing waits for a lock from here on, since a thread that is not in this process may have held it.
        """
        self._closed = True
        self.lock, self._lead = threading.RLock(), threading.Lock()
        self._progress = threading.Condition(threading.Lock())
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Connection):
                key.data.close_copy()
            elif isinstance(key.fileobj, int):
                os.close(key.fileobj)
        if self._door is not None:
            self._door.close()
        self._selector.close()
        self._close_wake_out()

    def _close_wake_out(self) -> None:
        fd, self._wake_out = self._wake_out, -1  # a reference that is dropped later finds nothing to write to
        os.close(fd)

    def close(self) -> None:
        """Stop polling and close every socket."""
        self._closed = True
        self.wake()
        with self._progress:
            self._progress.notify_all()
        if self._background is not None and self._background is not threading.current_thread():
            self._background.join(timeout=2)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Connection):
                key.data.close()
        if self._door is not None:
            self._door.close()
        self._selector.close()
        os.close(self._wake_in)
        self._close_wake_out()

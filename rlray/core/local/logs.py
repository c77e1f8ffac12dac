"""What workers print: a full file per worker and stream, and every line in the driver, prefixed.

Lines go out over a ZeroMQ PUB socket (CURVE, keys made for the run), as JSON: a watcher that is slow or absent never
holds up a worker, and more than one may watch.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

MARK = "\x1e"  # a line that begins so names what the worker runs from here on
_LAST = 20  # lines kept to be shown when a worker dies
_POLL_MS = 100


@dataclass
class _Tail:
    """One growing log file."""

    path: Path
    stream: str
    pid: int
    name: str = ""
    rest: bytes = b""
    fd: int = -1

    def lines(self, final: bool) -> list[str]:
        if self.fd < 0:
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return []
        found: list[str] = []
        while chunk := os.read(self.fd, 1 << 16):
            *whole, self.rest = (self.rest + chunk).split(b"\n")
            found += [line.decode("utf-8", "replace") for line in whole]
        if final and self.rest:
            found.append(self.rest.decode("utf-8", "replace"))
            self.rest = b""
        return found


@dataclass
class LogHub:
    """In the node: follows the workers' files and publishes what they gain."""

    directory: str
    begin: Callable[[], None] | None  # called once, when there is a first line, to `open`; None: lines are not wanted
    _tails: dict[int, list[_Tail]] = field(default_factory=dict)
    _last: dict[int, deque[str]] = field(default_factory=dict)
    _backlog: deque[bytes] = field(default_factory=lambda: deque(maxlen=10_000))  # until the first watcher is there
    _watched: bool = False
    _socket: Any = None

    def open(self, address: str, watcher: int) -> bytes:
        """Bind the socket that the process ``watcher`` subscribes to; returns the public key it needs.

        Others are cut off as they call: ZeroMQ keeps strangers for long, and aborts when it has no descriptor left.
        """
        import zmq

        public, secret = zmq.curve_keypair()
        socket: Any = zmq.Context.instance().socket(zmq.XPUB)  # XPUB tells when a watcher has come
        socket.curve_server = True
        socket.curve_secretkey = secret
        with suppress(zmq.ZMQError):  # on macOS the kernel does not tell who calls
            socket.setsockopt(zmq.IPC_FILTER_PID, watcher)
        socket.linger = 500
        socket.sndhwm = 10_000
        socket.bind(address)
        self._socket = socket
        return public

    def add(self, process: int, pid: int) -> None:
        """Follow a new worker."""
        self._last[process] = deque(maxlen=_LAST)
        self._tails[process] = [
            _Tail(log_path(self.directory, process, stream), stream, pid) for stream in ("out", "err")
        ]

    def poll(self) -> None:
        """Publish what has been printed since the last call."""
        self._flush()
        for process in self._tails:
            self._follow(process, final=False)

    def remove(self, process: int) -> list[str]:
        """Publish the rest of a dead worker's output; returns its last lines."""
        self._follow(process, final=True)
        for tail in self._tails.pop(process, []):
            if tail.fd >= 0:
                os.close(tail.fd)
        return list(self._last.pop(process, ()))

    def _follow(self, process: int, final: bool) -> None:
        for tail in self._tails.get(process, []):
            lines: list[str] = []
            for line in tail.lines(final):
                if line.startswith(MARK):
                    self._send(tail, lines)
                    lines = []
                    tail.name = line[len(MARK) :]
                else:
                    lines.append(line)
            self._last[process].extend(lines)
            self._send(tail, lines)

    def _send(self, tail: _Tail, lines: list[str]) -> None:
        if lines and self.begin is not None:
            if self._socket is None:
                self.begin()
            record = {"stream": tail.stream, "pid": tail.pid, "name": tail.name, "lines": lines}
            self._backlog.append(json.dumps(record).encode())
            self._flush()

    def _flush(self, wait_ms: int = 0) -> None:
        if self._socket is None:
            return
        if not self._watched and self._socket.poll(wait_ms):
            self._socket.recv()
            self._watched = True
        while self._watched and self._backlog:
            self._socket.send(self._backlog.popleft())

    def close(self) -> None:
        """Publish the rest of everything, then a last word, so that watchers know it was all."""
        for process in list(self._tails):
            self.remove(process)
        if self._socket is not None:
            import zmq

            self._backlog.append(b"{}")
            self._flush(wait_ms=500)
            self._socket.close()

            zmq.Context.instance().term()


class LogPrinter:
    """In the driver: prints the workers' lines as they come."""

    def __init__(self, address: str, server_key: bytes) -> None:
        self._address, self._key = address, server_key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rlray-logs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = self._key
        socket.linger = 0
        socket.subscribe(b"")
        socket.connect(self._address)
        try:
            while not self._stop.is_set():
                if socket.poll(_POLL_MS):
                    record = json.loads(socket.recv())
                    if not record:
                        break
                    self._print(record)
        finally:
            socket.close()
            context.term()

    def _print(self, record: dict[str, object]) -> None:
        out: TextIO | None = sys.stderr if record["stream"] == "err" else sys.stdout
        if out is None:  # a daemon has closed it
            return
        name = f"{record['name']} " if record["name"] else ""
        lines = record["lines"]
        assert isinstance(lines, list)
        for line in lines:
            out.write(f"({name}pid={record['pid']}) {line}\n")
        out.flush()

    def close(self, timeout: float) -> None:
        """Print what is still on its way, at most ``timeout`` seconds long."""
        self._thread.join(timeout)
        self._stop.set()
        self._thread.join(1)


def log_path(directory: str, process: int, stream: str) -> Path:
    """The file that a worker's stream goes to."""
    return Path(directory) / f"worker-{process}.{stream}"


def redirect(directory: str, process: int) -> None:
    """In a new worker: let file descriptors 1 and 2, and Python's streams on them, go to its log files."""
    for number, stream in ((1, "out"), (2, "err")):
        fd = os.open(log_path(directory, process, stream), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fd, number)
        os.close(fd)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")


def flush() -> None:
    """In a worker: what has been printed is in the files, also a line that has no end yet."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # user code may have closed or replaced it
            stream.flush()


def announce(name: str) -> None:
    """In a worker: what is printed from here on comes from ``name``."""
    mark = f"{MARK}{name}\n".encode()
    flush()
    os.write(1, mark)
    os.write(2, mark)

"""Looking into a run from outside: another process of the same user finds it, shows its secret, and asks its node.

A run says where it is in a file of mode 0600 in its directory of mode 0700. Whoever can read that could also read the
memory of its processes: nothing is given away.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rlray.core.local.recorder import recorded
from rlray.core.local.settings import NODE, VISITOR, RunSettings
from rlray.core.local.wire import Connection, Message, hello
from rlray.core.procfs import process_use
from rlray.core.state import Report
from rlray.core.timeline import Track

_FILE = "run.json"
_ANSWER_WITHIN = 8.0  # seconds; the node waits for the others for less
_CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Run:
    """A run of this user on this machine."""

    directory: Path
    driver_pid: int
    program: str
    started: float  # seconds since the epoch
    driver_start: str  # tells the driver from a later process with its pid
    log_directory: str
    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.directory.name.removeprefix("rlray-")

    def lives(self) -> bool:
        """Whether its driver does. Another process that got the driver's pid later is told from it."""
        try:
            os.kill(self.driver_pid, 0)
        except OSError:  # or it is another user's
            return False
        use = process_use(self.driver_pid)
        return use is None or (use.start == self.driver_start and use.state not in "ZX")


def announce(settings: RunSettings) -> None:
    """Say where a run is, for those who may know."""
    text = {
        "driver_pid": settings.driver_pid,
        "program": " ".join(sys.orig_argv),
        "started": time.time(),
        "driver_start": use.start if (use := process_use(settings.driver_pid)) is not None else "",
        "log_directory": settings.log_directory,
        "secret": settings.secret.hex(),
    }
    fd = os.open(f"{settings.directory}/{_FILE}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(text, file)


def find_runs(places: Iterable[str | Path] | None = None) -> list[Run]:
    """The runs of this user that live, the latest first. ``places``: folders for temporary files."""
    found = []
    for place in dict.fromkeys(map(Path, places if places is not None else (tempfile.gettempdir(), "/tmp"))):
        for path in place.glob(f"rlray-*/{_FILE}"):
            try:
                if not _is_private(path.parent):
                    continue
                text = json.loads(path.read_text())
                run = Run(path.parent, **{**text, "secret": bytes.fromhex(text["secret"])})
            except (OSError, ValueError, TypeError, KeyError):  # it ends, or begins, or is no run of this version
                continue
            if run.lives():
                found.append(run)
    return sorted(found, key=lambda run: -run.started)


def _is_private(directory: Path) -> bool:
    """Whether a directory is one that only this user can have filled: anybody can make one in /tmp, links included."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


class Visit:
    """A connection to the node of a run, to be used in a ``with`` statement.

    Raises: ConnectionError if the run has ended.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.connect(str(run.directory / f"{NODE}.sock"))
            self._sock.sendall(hello(run.secret, VISITOR))
        except OSError as why:
            self._sock.close()
            raise ConnectionError(f"the run of driver {run.driver_pid} does not answer: {why}") from why
        self._connection = Connection(self._sock, NODE)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._connection.close()

    def inspect(self, kind: str, **options: Any) -> Report:
        """As `rlray.core.engine.Engine.inspect`. Raises ConnectionError if the run ends meanwhile."""
        self._tell(("inspect", kind, options))
        return self._answer(_ANSWER_WITHIN)[1]  # type: ignore[no-any-return]

    def record(self, seconds: float) -> None:
        """Have every call noted for some time, and wait for its end. Raises ConnectionError if the run ends first."""
        self._tell(("record", seconds))
        self._answer(seconds + _ANSWER_WITHIN)

    def tracks(self) -> list[Track]:
        """As `rlray.core.engine.Engine.tracks`."""
        return recorded(self._run.directory / "spans", self.inspect("timeline"))

    def _tell(self, message: Message) -> None:
        self._connection.send(message)  # small enough for the kernel to take it at once

    def _answer(self, within: float) -> Message:
        buffer = memoryview(bytearray(_CHUNK))
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._sock], [], [], left)[0]:
                raise ConnectionError(f"the run of driver {self._run.driver_pid} gave no answer within {within:g} s")
            messages, ended = self._connection.receive(buffer)
            if messages:
                return messages[0]
            if ended:
                break
        raise ConnectionError(f"the run of driver {self._run.driver_pid} has ended")

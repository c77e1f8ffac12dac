"""What tests of strangers share: the sockets of a run, found in /proc, and what a stranger may do to them."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import descendants


class Bomb:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def inodes_of(driver: int) -> set[str]:
    """Socket inodes open in a driver or any process of its runtime."""
    found = set()
    for pid in [driver, *(process.pid for process in descendants(driver))]:
        with contextlib.suppress(OSError):
            for entry in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{entry}")
                    if target.startswith("socket:["):
                        found.add(target[8:-1])
    return found


def addresses(driver: int | None = None) -> list[tuple[str, int]]:
    """(path, socket type) of every named unix socket of a run; ``@`` opens an abstract name."""
    ours = inodes_of(driver or os.getpid())
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sorted({(row[7], int(row[4], 16)) for row in rows if len(row) > 7 and row[6] in ours})


@contextlib.contextmanager
def raw(address: str, kind: int) -> Iterator[socket.socket]:
    """A connection, which the other end may cut at any time."""
    with socket.socket(socket.AF_UNIX, kind) as connection:
        connection.settimeout(2)
        connection.connect("\0" + address[1:] if address.startswith("@") else address)
        yield connection


def attack(address: str, kind: int, payload: bytes) -> None:
    """Send ``payload`` and see what comes back; being cut off or refused is a fine answer."""
    with contextlib.suppress(OSError), raw(address, kind) as connection:
        connection.sendall(payload)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.05)
        connection.recv(1 << 16)


def framings(body: bytes) -> list[bytes]:
    """``body`` as it is and behind the usual headers of lengths, alone and after a made-up secret."""
    lengths = [struct.pack(form, len(body)) for form in ("<I", ">I", "<Q", ">Q", "<H")] if len(body) < 65536 else []
    pairs = [struct.pack("<II", len(body), 0), struct.pack("<II", 1, len(body)), struct.pack("<QQ", 1, len(body))]
    guess = secrets.token_bytes(32)
    return [prefix + header + body for header in [b"", *lengths, *pairs] for prefix in (b"", guess)]

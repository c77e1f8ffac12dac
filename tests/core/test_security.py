"""Nothing that a stranger sends to a socket of the run is unpickled, and nothing that it sends stops the run.

Neither the protocol nor the place of the sockets is assumed: they are found in /proc.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import secrets
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

import rlray
from tests.attacks import Bomb, addresses, attack, framings, inodes_of, raw
from tests.support import descendants, needs_proc

pytestmark = [needs_proc, pytest.mark.usefixtures("cluster")]


def internet_listeners() -> list[str]:
    """Local addresses of listening TCP sockets of the run."""
    ours, found = inodes_of(os.getpid()), []
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            row = line.split()
            if row[3] == "0A" and row[9] in ours:
                found.append(row[1])
    return found


def works() -> bool:
    """A task, an actor and an object still do what they should."""
    actor = rlray.remote(type("Probe", (), {"call": lambda self, x: x + 1})).remote()
    tasks = [rlray.remote(lambda x: x * 2).remote(i) for i in range(8)]
    return bool(rlray.get([*tasks, actor.call.remote(1), rlray.put(5)], timeout=30) == [*range(0, 16, 2), 2, 5])


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Callable[[], list[bytes]]]:
    """Pickles that would touch a file, in every protocol; afterwards no such file exists and the run goes on."""
    marker = tmp_path / "unpickled"
    assert works()

    def pickles() -> list[bytes]:
        return [pickle.dumps(Bomb(marker), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]

    yield pickles
    assert works(), "the run stopped working"
    assert not marker.exists(), "a stranger's pickle was loaded"


def test_a_bomb_is_a_bomb(tmp_path: Path) -> None:
    """The other tests can fail: this is what they look for."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "m")))
    assert (tmp_path / "m").exists()


def test_the_run_listens_nowhere_but_in_a_private_folder() -> None:
    assert works()
    assert internet_listeners() == []
    assert addresses(), "found no socket to test"
    for address, _ in addresses():
        assert not address.startswith("@"), f"{address}: any user of the machine can connect to an abstract name"
        info = os.stat(Path(address).parent)
        assert stat.S_IMODE(info.st_mode) == 0o700, address
        assert info.st_uid == os.getuid()


def test_no_secret_is_on_a_command_line() -> None:
    """Command lines are for every user to read; folders named in them are private."""
    import re

    for process in descendants(os.getpid()):
        assert not re.search(r"(?<![\w/.-])[0-9a-fA-F]{32,}(?![\w.-])", process.command), process.command


def test_pickles_on_raw_sockets(bomb: Callable[[], list[bytes]]) -> None:
    for address, kind in addresses():
        for body in bomb()[-3:]:
            for payload in framings(body):
                attack(address, kind, payload)


def test_random_bytes(bomb: Callable[[], list[bytes]]) -> None:
    rng = random.Random(0)
    for address, kind in addresses():
        for size in (0, 1, 3, 4, 8, 31, 32, 33, 64, 1000, 70_000):
            attack(address, kind, rng.randbytes(size))


def test_lengths_that_promise_too_much(bomb: Callable[[], list[bytes]]) -> None:
    """A header that announces gigabytes allocates nothing that matters."""
    for address, kind in addresses():
        for header in (b"\xff" * 4, b"\xff" * 8, struct.pack("<Q", 1 << 62), struct.pack(">I", 1 << 31), b"\x7f" * 16):
            attack(address, kind, header + b"x" * 100)


def test_connections_that_stay_open_and_say_nothing_or_half(bomb: Callable[[], list[bytes]]) -> None:
    with contextlib.ExitStack() as stack:
        for address, kind in addresses():
            for opening in (b"", b"\x08", b"\x08\0\0\0", secrets.token_bytes(16)):
                with contextlib.suppress(OSError):
                    stack.enter_context(raw(address, kind)).sendall(opening)
        assert works(), "a silent stranger blocks the others"


def test_pickles_on_zeromq_sockets(bomb: Callable[[], list[bytes]]) -> None:
    """If a socket speaks ZeroMQ the handshake is done for real, and every frame is a bomb in turn."""
    body, guess = bomb()[-1], secrets.token_bytes(32)
    context = zmq.Context()
    try:
        for address, _ in addresses():
            for kind in (zmq.DEALER, zmq.REQ, zmq.PUSH, zmq.PUB, zmq.PAIR, zmq.ROUTER):
                with context.socket(kind) as client:
                    client.setsockopt(zmq.LINGER, 100)
                    client.setsockopt(zmq.SNDTIMEO, 100)
                    client.connect(f"ipc://{address}")
                    for frames in ([body], [guess, body], [b"", body], [body, body, body], [b"1", b"2", guess, body]):
                        with contextlib.suppress(zmq.ZMQError):
                            client.send_multipart(frames)
    finally:
        context.term()

"""Who is let in at a process's socket: callers with the secret, however many strangers stand there."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlray.core.local import door, seldom
from rlray.core.local.loop import Loop
from rlray.core.local.wire import Connection, Message, encode, hello
from tests.support import wait_until

SECRET = os.urandom(32)


class House:
    """A loop that listens, polled by its own background thread."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.heard: list[tuple[int, Message]] = []
        self.rounds = 0
        self.loop = Loop(SECRET, self._hear, lambda _: None, self._count)
        self.loop.listen(self.path)
        self.loop.start_background()

    def _hear(self, caller: Connection, message: Message) -> None:
        self.heard.append((caller.peer, message))

    def _count(self) -> None:
        self.rounds += 1

    def call(self, said: bytes = b"") -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(self.path)
        caller.settimeout(10)
        if said:
            caller.sendall(said)
        return caller

    def hears(self, process: int, message: Message) -> bool:
        return bool(wait_until(lambda: (process, message) in self.heard))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "door")
    yield house
    house.loop.close()


def cut_off(callers: list[socket.socket]) -> list[bool]:
    """Which connections the other end has closed."""
    closed = []
    for caller in callers:
        caller.setblocking(False)
        try:
            closed.append(caller.recv(1) == b"")
        except BlockingIOError:
            closed.append(False)
        except ConnectionError:  # closed with something unread
            closed.append(True)
    return closed


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.name.startswith("rlray")]


def test_a_hello_that_comes_byte_by_byte_is_heard_to_its_end(house: House) -> None:
    with house.call() as caller:
        for byte in hello(SECRET, 7) + encode(("slow", 1)):
            caller.sendall(bytes([byte]))
            time.sleep(0.001)
        assert house.hears(7, ("slow", 1))


def test_hello_and_messages_in_one_piece(house: House) -> None:
    with house.call(hello(SECRET, 9) + encode(("a",)) + encode(("b",))):
        assert house.hears(9, ("b",))
    assert house.heard == [(9, ("a",)), (9, ("b",))]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak this protocol"),
        (b"\0", "does not speak this protocol"),
        (hello(os.urandom(32), 7), "does not know the run's secret"),
        (hello(SECRET, 7)[:-1], "left without a word"),
        (b"", "left without a word"),
    ],
    ids=["http", "first byte", "wrong secret", "half a hello", "nothing"],
)
def test_strangers_are_cut_off_and_logged_with_their_pid(
    house: House, caplog: pytest.LogCaptureFixture, said: bytes, why: str
) -> None:
    with house.call(said) as caller:
        caller.shutdown(socket.SHUT_WR)
        assert wait_until(lambda: all(cut_off([caller])))
    [line] = lines(caplog)
    assert why in line
    assert "called at door" in line
    if sys.platform == "linux":
        assert f"process {os.getpid()}," in line


def test_who_does_not_show_the_secret_in_time_is_cut_off(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_PATIENCE", 0.3)
    began = time.monotonic()
    silent, half, later = house.call(), house.call(hello(SECRET, 5)[:20]), house.call()
    with silent, half, later, house.call(hello(SECRET, 6)) as proven:
        time.sleep(0.1)
        later.sendall(hello(SECRET, 8))
        assert wait_until(lambda: all(cut_off([silent, half])))
        assert time.monotonic() - began > 0.25
        for number, caller in ((6, proven), (8, later)):
            caller.setblocking(True)
            caller.sendall(encode(("still", number)))
            assert house.hears(number, ("still", number)), "one that had shown it was cut off"
    assert "did not show the run's secret within 0.3 s" in lines(caplog)[0]


def test_no_more_than_a_few_dozen_are_kept_waiting(house: House) -> None:
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(house.call(b"rlr1")) for _ in range(300)]
        assert wait_until(lambda: sum(cut_off(callers)) >= 300 - door._MOST_WAITING)
        assert not any(cut_off(callers)[-door._MOST_WAITING :]), "the oldest go first"
        assert len(house.loop._selector.get_map()) <= door._MOST_WAITING + 2


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell who calls")
def test_a_flood_from_one_process_pushes_out_nobody_else(house: House) -> None:
    code = (
        "import socket, sys, time\n"
        "callers = []\n"
        "while True:\n"
        "    callers.append(socket.socket(socket.AF_UNIX)); callers[-1].connect(sys.argv[1])\n"
        "    if len(callers) == 200: print('FLOODED', flush=True)\n"
        "    if len(callers) > 1000: callers.clear()\n"
    )
    patient = house.call()
    flood = subprocess.Popen([sys.executable, "-c", code, house.path], stdout=subprocess.PIPE, text=True)
    try:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "FLOODED\n"
        for number in range(100, 120):
            with house.call(hello(SECRET, number) + encode(("through the flood", number))):
                assert house.hears(number, ("through the flood", number))
        with patient:
            patient.sendall(hello(SECRET, 42) + encode(("patient",)))
            assert house.hears(42, ("patient",))
    finally:
        flood.kill()
        flood.communicate()


def test_what_a_caller_had_said_is_read_with_the_last_words_of_its_process(tmp_path: Path) -> None:
    """A process calls for the first time and dies: nobody has looked at its connection when its death is told."""
    heard: list[Message] = []
    loop = Loop(SECRET, lambda _, message: heard.append(message), lambda _: None)
    loop.listen(str(tmp_path / "door"))
    strangers = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for stranger in strangers:
        stranger.connect(str(tmp_path / "door"))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(tmp_path / "door"))
        caller.sendall(hello(SECRET, 3) + encode(("last words",)))
    with loop.lock:
        loop.drain(3)
    assert heard == [("last words",)]
    for stranger in strangers:
        stranger.close()
    loop.close()


def test_a_flood_is_a_line_now_and_then(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seldom, "_SECONDS", 1.0)
    for _ in range(500):
        house.call(b"x").close()
    assert wait_until(lambda: any("(and " in line for line in lines(caplog)))
    counted = [int(line.partition("(and ")[2].split()[0]) + 1 if "(and " in line else 1 for line in lines(caplog)]
    assert wait_until(lambda: sum(counted) == 500 or len(lines(caplog)) > len(counted))
    assert 2 <= len(lines(caplog)) <= 5


def without_descriptors() -> Callable[[], None]:
    """Leave this process none; what is returned gives them back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 300), hard))
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))

    def undo() -> None:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return undo


def test_callers_wait_while_no_descriptor_is_left(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that they say is lost, and the wait costs no processor time."""
    with house.call(hello(SECRET, 5)) as friend, socket.socket(socket.AF_UNIX) as caller:
        friend.sendall(encode(("before",)))
        assert house.hears(5, ("before",))
        give_back = without_descriptors()
        try:
            caller.connect(house.path)
            caller.sendall(hello(SECRET, 6) + encode(("patience",)))
            rounds = house.rounds
            time.sleep(0.5)
            assert house.rounds - rounds < 30, "it spins"
            friend.sendall(encode(("meanwhile",)))
            assert house.hears(5, ("meanwhile",))
            assert (6, ("patience",)) not in house.heard
        finally:
            give_back()
        assert house.hears(6, ("patience",))
    assert any("have to wait: Too many open files" in line for line in lines(caplog))


def test_the_socket_is_for_this_user_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077, 0o777):
        before = os.umask(umask)
        try:
            house = House(tmp_path / f"{umask:o}")
        finally:
            os.umask(before)
        assert os.stat(house.path).st_mode & 0o777 == 0o600
        house.loop.close()

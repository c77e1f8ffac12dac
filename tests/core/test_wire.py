"""Messages over real sockets: whole, in order, and what is no message is known. Strangers: tests/reliability/."""

from __future__ import annotations

import os
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rlray.core.local.loop import Loop
from rlray.core.local.wire import MAX_FRAME, Connection, Message, ProtocolError, caller_in, encode, hello

SECRET = os.urandom(32)

ROOM = memoryview(bytearray(1 << 16))


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, 7)
    yield connection, theirs
    connection.close()
    theirs.close()


def test_messages_arrive_whole_in_order_however_the_bytes_are_cut(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    sent = [("m", i, b"x" * (i * 37 % 5000)) for i in range(50)]
    stream = b"".join(encode(message) for message in sent)
    got: list[Message] = []
    for at in range(0, len(stream), 611):
        theirs.sendall(stream[at : at + 611])
        got += connection.receive(ROOM)[0]
    assert got == sent


@pytest.mark.parametrize("secret", [SECRET, os.urandom(32)], ids=["right", "wrong"])
def test_a_hello_is_read_byte_by_byte_or_at_once(secret: bytes) -> None:
    said = hello(secret, 7)
    assert [caller_in(said[:count], SECRET) for count in range(len(said))] == [None] * len(said)
    if secret == SECRET:
        assert caller_in(said, SECRET) == 7
    else:
        with pytest.raises(ProtocolError, match="does not know the run's secret"):
            caller_in(said, SECRET)


@pytest.mark.parametrize("opening", [b"\x00" * 50, b"\x00", b"rl1", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_hello_is_known_from_the_first_wrong_byte(opening: bytes) -> None:
    with pytest.raises(ProtocolError, match="does not speak this protocol"):
        caller_in(opening, SECRET)


@pytest.mark.parametrize(
    ("garbage", "why"),
    [
        (b"\xff" * 100, "announced a message of 4294967295 bytes"),
        (b"\x05\0\0\0hello", "sent what is no message: UnpicklingError"),
        (b"\0\0\0\0", "sent what is no message: EOFError"),
    ],
    ids=["too large", "no pickle", "nothing"],
)
def test_what_is_no_message_ends_the_stream_after_the_messages_before_it(
    ends: tuple[Connection, socket.socket], garbage: bytes, why: str
) -> None:
    connection, theirs = ends
    theirs.sendall(encode(("good", 1)) + garbage)
    assert connection.receive(ROOM) == ([("good", 1)], True)
    assert f"process 7 {why}" in connection.fault


def test_an_announced_message_takes_no_memory_before_it_comes(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    theirs.sendall(MAX_FRAME.to_bytes(4, "little") + b"x" * 100)
    tracemalloc.start()
    try:
        assert connection.receive(ROOM) == ([], False)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_what_was_written_before_the_end_is_read_before_the_end(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    theirs.sendall(encode(("last words",)))
    theirs.close()
    messages, ended = connection.receive(ROOM)
    while not ended:
        more, ended = connection.receive(ROOM)
        messages += more
    assert messages == [("last words",)]


def test_a_slow_reader_loses_nothing(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    sent = [("big", i, b"y" * 300_000) for i in range(20)]
    assert not all([connection.send(message) for message in sent]), "the kernel cannot take 6 MB at once"
    received = bytearray()
    total = sum(len(encode(message)) for message in sent)
    while len(received) < total:
        connection.flush()
        received += theirs.recv(1 << 20)
    assert bytes(received) == b"".join(encode(message) for message in sent)


def test_threads_that_wait_are_all_served(tmp_path: Path) -> None:
    """Several threads wait on one loop for different messages; each wakes up, whoever polls."""
    got: set[int] = set()
    loop = Loop(SECRET, lambda connection, message: got.add(message[1]), lambda connection: None)
    loop.listen(str(tmp_path / "s"))
    loop.start_background()
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(tmp_path / "s"))
    caller.sendall(hello(SECRET, 5))
    results: dict[int, bool] = {}

    def wait(i: int) -> None:
        results[i] = loop.run_until(lambda: i in got, timeout=20)

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for i in reversed(range(6)):
        caller.sendall(encode(("n", i)))
    for thread in threads:
        thread.join(30)
    assert results == dict.fromkeys(range(6), True)
    assert not loop.run_until(lambda: False, timeout=0.05)
    caller.close()
    loop.close()


def test_what_a_process_said_before_it_died_counts_even_if_its_call_was_not_answered(tmp_path: Path) -> None:
    """The kernel keeps a connection that nobody has accepted yet, with all that was written to it."""
    heard: list[tuple[int | None, Message]] = []
    loop = Loop(SECRET, lambda connection, message: heard.append((connection.peer, message)), lambda connection: None)
    loop.listen(str(tmp_path / "sock"))
    callers = []
    for number in (7, 8):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "sock"))
        sock.sendall(hello(SECRET, number) + encode(("said", number)))
        callers.append(sock)
    callers[0].close()
    with loop.lock:
        loop.drain(7)
    assert (7, ("said", 7)) in heard
    loop.close()
    callers[1].close()


def test_a_message_queued_while_the_poller_empties_the_queue_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment when the poller has written all and is about to wait for the socket no more, a thread sends."""
    loop = Loop(SECRET, lambda connection, message: None, lambda connection: None)
    ours, theirs = socket.socketpair()
    connection = loop.adopt(ours, 7)
    large = ("large", bytes(4_000_000))
    flush = connection.flush
    threads: list[threading.Thread] = []

    def flush_and_be_disturbed() -> bool:
        whole = flush()
        if whole and not threads:
            thread = threading.Thread(target=loop.send, args=(connection, large))
            threads.append(thread)
            thread.start()
            thread.join(0.3)  # it sends, or waits for the poller
        return whole

    monkeypatch.setattr(connection, "flush", flush_and_be_disturbed)
    loop.send(connection, large)
    size, got = 2 * len(encode(large)), 0
    theirs.setblocking(False)
    for _ in range(10_000):
        loop.poll(0.01)
        with suppress(BlockingIOError):
            while chunk := len(theirs.recv(1 << 20)):
                got += chunk
        if got == size:
            break
    assert got == size, "the second message never left"
    threads[0].join()
    loop.close()
    theirs.close()

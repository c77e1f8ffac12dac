"""Round trips of a small message between two processes: ZeroMQ over ipc, and a Unix stream socket with our frames.

python benchmarks/transport.py [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable

import zmq

MESSAGE = b"x" * 200
_LENGTH = struct.Struct("<I")


def zmq_pair(rounds: int) -> float:
    """Seconds per round trip over ZeroMQ ipc, DEALER to DEALER."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/s"
        if os.fork() == 0:
            echo = zmq.Context().socket(zmq.DEALER)
            echo.connect(address)
            for _ in range(rounds):
                echo.send(echo.recv())
            time.sleep(0.2)  # let the I/O thread send the last one
            os._exit(0)
        asker = zmq.Context().socket(zmq.DEALER)
        asker.bind(address)
        seconds = _time(rounds, lambda: (asker.send(MESSAGE), asker.recv()))
        os.wait()
        return seconds


def stream_pair(rounds: int) -> float:
    """Seconds per round trip over a Unix stream socket."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        for _ in range(rounds):
            theirs.sendall(_frame(_read(theirs)))
        os._exit(0)
    seconds = _time(rounds, lambda: (ours.sendall(_frame(MESSAGE)), _read(ours)))
    os.wait()
    return seconds


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def _read(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 16)
    while len(data) < 4 + _LENGTH.unpack_from(data)[0]:
        data += sock.recv(1 << 16)
    return data[4:]


def _time(rounds: int, once: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        once()
    return (time.perf_counter() - start) / rounds


def main() -> None:
    """Both sides by turns, medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5_000)
    rounds = parser.parse_args().rounds
    pairs = [(zmq_pair(rounds), stream_pair(rounds)) for _ in range(5)]
    for name, times in zip(("ZeroMQ ipc", "Unix stream socket"), zip(*pairs, strict=True), strict=True):
        print(f"{name:20} {1e6 * statistics.median(times):7.1f} µs a round trip (median of {len(times)})")
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"ratio, run by run    {ratio:7.2f} (median)")


if __name__ == "__main__":
    main()

"""Messages over stream sockets.

A connection starts with `hello`: magic, the run's secret, who is calling. Nothing is unpickled before that has been
checked. After it, frames: a 4-byte length and the pickle of a tuple ``(kind, ...)``.

Unix stream sockets rather than ZeroMQ carry these messages, because what was written to one survives the SIGKILL of
its writer, end-of-file tells of a death at once, and a round trip is shorter (`benchmarks/transport.py`).
"""

from __future__ import annotations

import hmac
import pickle
import socket
import struct
import threading
from collections import deque
from typing import Any

Message = tuple[Any, ...]

SECRET_BYTES = 32
_MAGIC = b"rlr1"
_HELLO = struct.Struct("<4s32sI")
_LENGTH = struct.Struct("<I")


class ProtocolError(Exception):
    """The other side does not speak this protocol or does not know the secret."""


def hello(secret: bytes, caller: int) -> bytes:
    """The bytes that open a connection made by process ``caller``."""
    return _HELLO.pack(_MAGIC, secret, caller)


def encode(message: Message) -> bytes:
    """One frame."""
    body = pickle.dumps(message, 5)
    return _LENGTH.pack(len(body)) + body


class Connection:
    """One end of a stream: whole messages in, whole messages out, never blocking.

    `send` may be called from any thread; messages arrive in the order in which they were sent. `receive` belongs to
    whoever polls. ``peer`` is None until the other side has shown the secret.
    """

    def __init__(self, sock: socket.socket, peer: int | None, secret: bytes) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = peer
        self.closed = False
        self._secret = secret
        self._rest = bytearray()  # the beginning of a message
        self._out: deque[memoryview] = deque()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()

    def send(self, message: Message) -> bool:
        """Queue a message and write what the kernel takes now; True if everything was written.

        After the peer's death messages are dropped: the poller reports the loss.
        """
        return self.write(encode(message))

    def write(self, data: bytes) -> bool:
        """As `send`, for bytes already framed."""
        with self._lock:
            if self.closed:
                return True
            if not self._out:
                try:
                    sent = self.sock.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:  # the reader's end-of-file handling follows
                    return True
                if sent == len(data):
                    return True
                self._out.append(memoryview(data)[sent:])
            else:
                self._out.append(memoryview(data))
            return False

    def flush(self) -> bool:
        """Write more of what is queued; True if nothing is left."""
        with self._lock:
            try:
                while self._out and not self.closed:
                    sent = self.sock.send(self._out[0])
                    if sent < len(self._out[0]):
                        self._out[0] = self._out[0][sent:]
                    else:
                        self._out.popleft()
            except BlockingIOError:
                return False
            except OSError:
                self._out.clear()
            return True

    def receive(self, buffer: memoryview) -> tuple[list[Message], bool]:
        """Messages that have arrived, and whether the stream has ended. ``buffer`` is room to read into.

        Raises: ProtocolError if the caller has not shown the secret.
        """
        messages: list[Message] = []
        try:
            while True:
                count = self.sock.recv_into(buffer)
                if not count:
                    return messages, True
                self._take(buffer[:count], messages)
                if count < len(buffer):
                    return messages, False
        except BlockingIOError:
            return messages, False
        except OSError:
            return messages, True

    def _take(self, data: memoryview, messages: list[Message]) -> None:
        """Add the whole messages in what has been read; keep what is left of the last one."""
        if self._rest:
            self._rest += data
            with memoryview(self._rest) as whole:
                used = self._parse(whole, messages)
            del self._rest[:used]
        else:
            used = self._parse(data, messages)
            if used < len(data):
                self._rest += data[used:]

    def _parse(self, data: memoryview, messages: list[Message]) -> int:
        """Add the whole messages in ``data``; returns the bytes used up."""
        at = 0
        if self.peer is None:
            if len(data) < _HELLO.size:
                if not _MAGIC.startswith(bytes(data[:4])):
                    raise ProtocolError("a stranger called")
                return 0
            magic, secret, caller = _HELLO.unpack_from(data)
            if magic != _MAGIC or not hmac.compare_digest(secret, self._secret):
                raise ProtocolError("a caller without the run's secret")
            self.peer = caller
            at = _HELLO.size
        size = len(data)
        while size - at >= 4:
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + 4 + length
            if end > size:
                break
            messages.append(pickle.loads(data[at + 4 : end]))
            at = end
        return at

    def close(self) -> None:
        """Close the socket; harmless when closed already."""
        with self._lock:
            self.closed = True
            self._out.clear()
        self.sock.close()

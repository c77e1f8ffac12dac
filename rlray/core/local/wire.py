"""Messages over stream sockets.

A connection starts with `hello`: magic, the run's secret, who is calling. Only a caller whose hello has been checked
becomes a `Connection`, and nothing is unpickled before (`rlray.core.local.door`). After it, frames: a 4-byte length and
the pickle of a tuple ``(kind, ...)``.

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
HELLO_BYTES = _HELLO.size
MAX_FRAME = 1 << 31  # bytes: what announces more is no message


class ProtocolError(Exception):
    """The other side does not speak this protocol or does not know the secret."""


def hello(secret: bytes, caller: int) -> bytes:
    """The bytes that open a connection made by process ``caller``."""
    return _HELLO.pack(_MAGIC, secret, caller)


def caller_in(said: bytes, secret: bytes) -> int | None:
    """The number of the process that has said a hello; None as long as it may be the beginning of one.

    Raises: ProtocolError if it is none, or shows another secret.
    """
    if not _MAGIC.startswith(said[: len(_MAGIC)]):
        raise ProtocolError("it does not speak this protocol")
    if len(said) < HELLO_BYTES:
        return None
    _, shown, caller = _HELLO.unpack_from(said)
    if not hmac.compare_digest(shown, secret):
        raise ProtocolError("it does not know the run's secret")
    return caller  # type: ignore[no-any-return]


def encode(message: Message) -> bytes:
    """One frame. Raises: ValueError for a message that is too large to be one."""
    body = pickle.dumps(message, 5)
    if len(body) > MAX_FRAME:
        raise ValueError(f"a message of {len(body) / 1e9:.1f} GB cannot be sent; the most is {MAX_FRAME / 1e9:.1f} GB")
    return _LENGTH.pack(len(body)) + body


class Connection:
    """One end of a stream: whole messages in, whole messages out, never blocking.

    `send` may be called from any thread; messages arrive in the order in which they were sent. `receive` belongs to
    whoever polls. ``peer`` is the number of the process at the other end, which has proven that it belongs to the run.
    """

    def __init__(self, sock: socket.socket, peer: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = peer
        self.closed = False
        self.fault = ""  # why the stream has ended, if it was not its writer's end
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

        What is no message ends the stream; `fault` says why.
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
        except ProtocolError as why:
            self.fault = str(why)
            return messages, True
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
        size = len(data)
        while size - at >= 4:
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + 4 + length
            if end > size:
                if length > MAX_FRAME:
                    raise ProtocolError(f"process {self.peer} announced a message of {length} bytes")
                break
            try:
                messages.append(pickle.loads(data[at + 4 : end]))
            except Exception as why:
                raise ProtocolError(
                    f"process {self.peer} sent what is no message: {type(why).__name__}: {why}"
                ) from why
            at = end
        return at

    def close(self) -> None:
        """Close the socket; harmless when closed already."""
        with self._lock:
            self.closed = True
            self._out.clear()
        self.sock.close()

    def close_copy(self) -> None:
        """In a forked child: as `close`, but for a lock that a thread which is not here may hold."""
        self._lock = threading.Lock()
        self.close()

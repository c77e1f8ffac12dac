"""The first process of a run, started before anything else is imported: it takes the longest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from rlray.core.local.threads import THREAD_VARIABLES

_BOOT = (  # not from the current directory: a `socket.py` that lies there is not meant
    "import sys; sys.path[:] = [{root!r}, *filter(None, sys.path)]; "
    "from rlray.core.local.zygote_start import main; main({lifeline}, {node})"
)
_LAST_WORDS = 4_000  # bytes


def nameless_file() -> int:
    """The descriptor of an empty file that only those who inherit it can reach; in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("rlray", os.MFD_CLOEXEC)
    import tempfile  # macOS

    fd, path = tempfile.mkstemp(prefix="rlray-")
    os.unlink(path)
    return fd


def _occupy_standard_streams() -> None:
    """Where a daemon has closed stdin, stdout or stderr, nothing of ours may get its number: others write there."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


class Spawned:
    """A fresh Python on its way to become the zygote, and what it shares with the driver.

    ``lifeline`` is the driver's end of its line to the zygote, over which the settings go first; ``node`` that of its
    line to the node, which the zygote will fork; ``store_fd`` the object store.
    """

    def __init__(self) -> None:
        _occupy_standard_streams()
        self.lifeline, zygote_end = socket.socketpair()
        self.node, node_end = socket.socketpair()
        self.store_fd = nameless_file()
        self._words = nameless_file()
        root = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
        boot = _BOOT.format(root=root, lifeline=zygote_end.fileno(), node=node_end.fileno())
        environment = {**dict.fromkeys(THREAD_VARIABLES, "1"), **os.environ}  # importing numpy must not start threads
        self.process = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", boot],  # type: ignore[attr-defined]
            pass_fds=(zygote_end.fileno(), node_end.fileno(), self.store_fd),
            stdin=subprocess.DEVNULL,
            stdout=self._words,
            stderr=self._words,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is the driver's to handle
        )
        zygote_end.close()
        node_end.close()
        self._closed = False

    def last_words(self) -> str:
        """What it has printed before it had a log file: nothing, if all went well."""
        return os.pread(self._words, _LAST_WORDS, 0).decode(errors="replace")

    def close(self) -> None:
        """Close what the driver shares with it; it ends then, if it has not. Harmless when closed already."""
        if not self._closed:
            self._closed = True
            self.lifeline.close()
            os.close(self.store_fd)
            os.close(self._words)

    def forked(self) -> None:
        """In a forked child: what is shared stays the parent's affair, so that its closing it is seen."""
        self._closed = True
        self.lifeline.close()
        os.close(self._words)  # the store stays: values that the child has read lie there
        self.process.returncode = 0  # it is no child of this process

    def abandon(self) -> None:
        """It is not needed after all."""
        self.node.close()
        self.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

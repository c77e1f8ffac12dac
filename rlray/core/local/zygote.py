"""The process that forks all others: clean, single-threaded, with the modules that workers need already imported.

It starts no thread, never touches CUDA and holds no ZeroMQ context, so that its children begin sound. It is also the
undertaker: it reaps them, and when the driver is gone, by whatever signal, it ends all of them and removes the run's
directory.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rlray.core.local import stuck
from rlray.core.local.endings import OutOfMemory, how_it_ended
from rlray.core.local.hangup import Hangup, while_connected
from rlray.core.local.loop import Loop
from rlray.core.local.settings import DRIVER, NODE, RunSettings
from rlray.core.local.wire import Connection, Message
from rlray.core.local.zygote_start import BASE

logger = logging.getLogger(__name__)

_LATER = ("numpy", "asyncio")  # what many need; those that are forked first may have to import it themselves
_QUIET = 0.3  # seconds after the start
_LAST_WORDS = 2_000  # characters
_LOOK = 0.5  # seconds between two looks whether the driver lives
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Zygote:
    """Forks workers for the node and reaps them."""

    def __init__(self, settings: RunSettings, driver: socket.socket, node: socket.socket, node_pid: int) -> None:
        self._settings = settings
        self._pids: dict[int, int] = {}  # pid -> process number
        self._node_pid = node_pid  # 0: it has been reaped
        self._orphans: set[int] = set()  # processes of dead workers that were killed; their own children come next
        self._out_of_memory = OutOfMemory()
        self._importing = False
        self._stop = False
        self._loop = Loop(settings.secret, self._handle, self._lost, self._reap)
        self._driver = self._loop.adopt(driver, DRIVER)
        self._node = self._loop.adopt(node, NODE)
        signal.signal(signal.SIGCHLD, self._child_ended)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def run(self) -> None:
        """Serve until the driver or the node is gone."""
        try:
            self._preload(BASE)
            self._loop.send(self._node, ("ready",))
            self._preload(self._settings.preload)
            gc.freeze()  # the children share these pages: let their collectors not touch them
            self._loop.call_later(_QUIET, self._preload_more)  # the first workers come before
            watch = self._watch_driver()
            while not self._stop:
                self._loop.poll(watch)
                if not self._driver_lives():
                    break
        except Hangup:
            pass  # before anybody watched the driver
        except Exception:
            self._tell_driver(f"the first process of the runtime failed: {traceback.format_exc()}")
            raise
        finally:
            self._end_all()

    def _preload_more(self) -> None:
        self._preload(_LATER)
        gc.collect()
        gc.freeze()

    def _preload(self, modules: Iterable[str]) -> None:
        self._importing = True
        try:
            for name in modules:
                try:
                    with while_connected(self._driver.sock.fileno()):
                        importlib.import_module(name)
                except ImportError as why:  # a worker that needs it will say so itself
                    logger.warning("could not preload %r: %s", name, why)
        finally:
            self._importing = False
        if threading.active_count() > 1:
            logger.warning("preloading %s started threads; forked workers may not be sound", modules)

    def _child_ended(self, *_: object) -> None:
        """The signal handler for the end of a child.

        Importing one module may take many seconds. When the driver dies meanwhile, the node ends, and this process with
        it.
        """
        self._loop.wake()
        if self._importing and self._node_pid:
            ended, status = os.waitpid(self._node_pid, os.WNOHANG)
            if ended:
                self._node_ended(status)
                self._end_all()
                os._exit(1)

    def _watch_driver(self) -> float | None:
        """How often to look whether the driver lives: never, if the kernel tells."""
        try:
            pidfd = os.pidfd_open(self._settings.driver_pid)
        except (AttributeError, OSError):
            return 0.5
        self._loop.watch(pidfd, self._driver_died)
        return None

    def _driver_died(self) -> None:
        self._stop = True

    def _driver_lives(self) -> bool:
        try:
            os.kill(self._settings.driver_pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _handle(self, connection: Connection, message: Message) -> None:
        match message:
            case ("fork", process, threads, gpus):
                self._fork_worker(process, threads, gpus)
            case ("kill", process):
                self._signal(process, signal.SIGKILL)
            case ("stack", process) if stuck.SIGNAL is not None:
                self._signal(process, stuck.SIGNAL)
            case ("stop",):
                self._stop = True

    def _signal(self, process: int, number: int) -> None:
        if process == DRIVER:
            with suppress(ProcessLookupError):
                os.kill(self._settings.driver_pid, number)
        for pid, living in self._pids.items():
            if living == process:
                os.kill(pid, number)

    def _lost(self, connection: Connection) -> None:
        """Without driver or node there is nothing left to do."""
        if connection is self._node and self._node_pid:
            os.kill(self._node_pid, signal.SIGKILL)  # if it is not dead, it is of no use
            self._node_ended(os.waitpid(self._node_pid, 0)[1])
        self._stop = True

    def _fork_worker(self, process: int, threads: int, gpus: tuple[str, ...]) -> None:
        def child() -> None:
            os.setpgid(0, 0)  # what it starts itself is known by that
            from rlray.core.local.worker import main

            main(self._settings, process, threads, gpus)

        try:
            pid = fork(child, self._forget_all)
        except OSError as why:  # out of processes or memory
            logger.error("could not fork a worker: %s", why)
            self._loop.send(self._node, ("exited", process, 0, f"could not be forked: {why}"))
            return
        self._pids[pid] = process
        self._loop.send(self._node, ("forked", process, pid))

    def _forget_all(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._loop.close_copies()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._pids.pop(pid, None)
            if process is not None:
                self._end_family(pid)
                how = how_it_ended(code := os.waitstatus_to_exitcode(status))
                if code == -signal.SIGKILL and self._out_of_memory.has_killed():
                    how += " (by the kernel, it seems: it has just killed for lack of memory)"
                self._loop.send(self._node, ("exited", process, pid, how))
            elif pid == self._node_pid:
                self._node_ended(status)
            elif pid in self._orphans:
                self._orphans.discard(pid)
                self._end_orphans()

    def _node_ended(self, status: int) -> None:
        """The node has been reaped. If nobody had asked for its end, the driver is told how it came about."""
        pid, self._node_pid = self._node_pid, 0
        if not self._stop:
            self._stop = True
            log = Path(self._settings.log_directory) / "zygote.log"  # the node's too
            words = log.read_text(errors="replace")[-_LAST_WORDS:].strip()
            how = how_it_ended(os.waitstatus_to_exitcode(status))
            last = f"; its log: {words}" if words else ""
            self._tell_driver(f"the scheduler of the runtime, process {pid}, {how}{last}")

    def _tell_driver(self, what: str) -> None:
        """Why the run is at its end."""
        self._loop.send(self._driver, ("broken", what))

    def _end_family(self, dead: int) -> None:
        """End what a dead worker had started itself: what is in its process group, and what left that as an orphan."""
        with suppress(ProcessLookupError):
            os.killpg(dead, signal.SIGKILL)
        self._end_orphans()

    def _end_orphans(self) -> None:
        """End what has lost its parent, and so, as this process is the subreaper, is its child now.

        What is in the process group of a living worker stays: that one has started it in the background.
        """
        for child in _children():
            with suppress(ProcessLookupError):
                if child not in self._pids and child != self._node_pid and os.getpgid(child) not in self._pids:
                    self._orphans.add(child)
                    os.kill(child, signal.SIGKILL)

    def _end_all(self) -> None:
        for pid in {*self._pids, self._node_pid} - {0}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self._settings.log_to_driver or self._driver.closed:
            self._settings.remove_directories()
        while True:
            for child in _children():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                os.wait()
            except ChildProcessError:
                break
        self._await_driver()
        self._settings.remove_directories()

    def _await_driver(self) -> None:
        """Every worker has ended: let the driver read what they have printed last, before the files are gone."""
        if self._settings.log_to_driver and not self._driver.closed:
            self._loop.send(self._driver, ("ended",))
            while self._driver_lives() and not select.select([self._driver.sock], [], [], _LOOK)[0]:
                pass  # what comes is its answer, or its end


def _children() -> list[int]:
    """Pids of the children of this process, as far as the system tells."""
    pid = os.getpid()
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def fork(child: Callable[[], None], forget: Callable[[], None]) -> int:
    """Fork; the child forgets what belongs to its parent, runs ``child`` and never returns. Returns the pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        forget()
        child()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End a forked process: flush what was printed, run nothing that belongs to the parent."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a closed or broken stream must not keep the process alive
            stream.flush()
    os._exit(code)


def main(lifeline: int, node_fd: int) -> None:
    """Serve a run; see `rlray.core.local.zygote_start` for the sockets. Its settings come over ``lifeline``."""
    import pickle

    driver = socket.socket(fileno=lifeline)
    try:
        with driver.makefile("rb") as stream:
            settings: RunSettings = pickle.load(stream)
    except (EOFError, pickle.UnpicklingError):  # it died before it came to that
        return
    for fd in (lifeline, node_fd, settings.store_fd):  # not for programs that user code starts
        os.set_inheritable(fd, False)
    sys.path[:] = settings.sys_path
    settings.make_directories()
    log = os.open(f"{settings.log_directory}/zygote.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    ours, theirs = socket.socketpair()

    def node() -> None:
        from rlray.core.local.node import main as node_main

        node_main(settings, socket.socket(fileno=node_fd), theirs)

    def forget() -> None:
        driver.close()
        ours.close()

    node_pid = fork(node, forget)
    theirs.close()
    os.close(node_fd)
    Zygote(settings, driver, ours, node_pid).run()

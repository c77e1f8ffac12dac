"""The driver's half of the engine: a client that also starts and ends the processes of the run."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlray.core.exceptions import RayChannelError, RaySystemError
from rlray.core.hints import DriverHints
from rlray.core.local.client import Client
from rlray.core.local.ctrl_c import CtrlC
from rlray.core.local.endings import end_session, how_it_ended
from rlray.core.local.reports import Waiting
from rlray.core.local.settings import DRIVER, NODE, ZYGOTE, RunSettings
from rlray.core.local.spawn import Spawned
from rlray.core.local.stuck import Stuck
from rlray.core.local.wire import Connection, Message

if TYPE_CHECKING:
    from rlray.core.local.printing import LogPrinter

_START_TIMEOUT = 60.0  # seconds
_STOP_TIMEOUT = 5.0
_WORD_TIMEOUT = 0.5  # for the zygote to say how the node has ended


class Driver(Client):
    """The driver's half of the engine, which also ends all processes."""

    def __init__(self, settings: RunSettings, spawned: Spawned) -> None:
        self._printer: LogPrinter | None = None
        self._hints: DriverHints | None = None
        self._node_lives = True
        self._ended = False  # all processes but the zygote have
        self._down = False
        self._spawned, self._zygote = spawned, spawned.process
        self._stuck = Stuck(settings.stack_path(DRIVER))
        super().__init__(settings, DRIVER, spawned.node)
        self._ctrl_c = CtrlC(self.loop)
        self._lifeline = self.loop.adopt(spawned.lifeline, ZYGOTE)
        try:
            self.loop.run_until(lambda: self.welcome or self._broken is not None, timeout=_START_TIMEOUT)
            if not self.welcome:
                raise RaySystemError(f"the runtime did not start: {self._last_words() or 'no word from its processes'}")
        except BaseException:
            self.shutdown()
            raise
        self.loop.start_background()
        self._hints = DriverHints()
        self._stuck.answer()
        self._ctrl_c.arm()

    def check_alive(self) -> None:
        if self._broken is not None:
            super().check_alive()
        if self._ctrl_c.due:
            self._ctrl_c.check()

    def wait_until(self, done: Callable[[], bool], timeout: float | None, waiting: Waiting) -> bool:
        self._ctrl_c.arm()
        return super().wait_until(done, timeout, waiting)

    def hold(self) -> None:
        if not self._holding:
            self._ctrl_c.arm()
        super().hold()

    def _idle(self) -> None:
        self._ctrl_c.send_again()
        super()._idle()

    def _last_words(self) -> str:
        """What the processes said that did not start."""
        text = self._spawned.last_words()
        for name in ("zygote.log", "node.log"):
            with suppress(OSError):
                text += (Path(self.settings.log_directory) / name).read_text(errors="replace")[-2000:]
        return text.strip() or str(self._broken or "")

    def on_other(self, sender: int, message: Message) -> None:
        match message:
            case ("printed", workers, dead):
                self._log_printer().look(workers, dead)
            case ("ended",):
                self._all_ended()
            case ("broken", what):  # the zygote tells what happened before it ends everything
                self._break(what)

    def _log_printer(self) -> LogPrinter:
        if self._printer is None:
            from rlray.core.local.printing import LogPrinter  # which programs without output do not need

            self._printer = LogPrinter(self.settings, self._all_is_printed)
        return self._printer

    def _all_is_printed(self) -> None:
        if self._lifeline.closed:  # the zygote was killed
            self.settings.remove_directories()
        else:
            self.loop.send(self._lifeline, ("read",))

    # -- the end, wanted or not --------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        if self._down:
            return
        self._down = True
        try:
            if self._broken is None:
                self._broken = RuntimeError("rlray was shut down")
                self.tell_node(("stop",))
                self.loop.run_until(lambda: not self._node_lives, _STOP_TIMEOUT)
            if self.settings.log_to_driver:
                self.loop.run_until(lambda: self._ended or self._node_lives, _STOP_TIMEOUT)
                self._log_printer().close()
            super().shutdown()
            if self._hints is not None:
                self._hints.remove()
        finally:
            self._spawned.close()  # the zygote's sign to end everything, if the node has not told it yet
            self._see_it_end()
        self._stuck.forget()
        self._ctrl_c.disarm()

    def _see_it_end(self) -> None:
        """Wait for the zygote's end, and see to it that nothing is left: also where the zygote was killed before."""
        try:
            self._zygote.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._zygote.send_signal(signal.SIGKILL)  # its children follow
            self._zygote.wait()
            end_session(self._zygote.pid)
        finally:
            self.settings.remove_directories()

    def forked(self) -> None:
        self._down = True
        self._spawned.forked()
        super().forked()

    def _all_ended(self) -> None:
        """Every process but the zygote has ended, which waits with the files until they are read."""
        self._ended = True
        if not self._down:
            self._log_printer().finish()

    def _zygote_died(self) -> None:
        """The process that ends all others when the time comes is gone: what is left is this one's to end."""
        with suppress(subprocess.TimeoutExpired):
            self._zygote.wait(_WORD_TIMEOUT)
        self._break(
            f"the first process of the runtime, {self._zygote.pid}, {how_it_ended(self._zygote.returncode)}, "
            "and all others with it"
        )
        end_session(self._zygote.pid)
        if self.settings.log_to_driver:
            self._all_ended()
        else:
            self.settings.remove_directories()

    def _break(self, what: str) -> None:
        if self._broken is None:
            self._broken = RayChannelError(
                f"{what}. Its tasks, actors and values are lost; call shutdown(), then init() to start anew"
            )
            self._fail_all(self._broken)
            self.loop.changed()

    def _lost(self, connection: Connection) -> None:
        if connection.peer == NODE:
            self._node_lives = False
            self.loop.call_later(_WORD_TIMEOUT, lambda: self._break("the scheduler of the runtime has ended"))
        elif connection.peer == ZYGOTE:
            if self._broken is None:
                self._zygote_died()
            self._ended = True
        else:
            super()._lost(connection)

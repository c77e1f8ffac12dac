"""Ctrl-C in two steps: the first asks to leave cleanly, the second leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def leave_cleanly(
    stop: Callable[[str], None], saying: str = "saving a checkpoint; once more to leave at once"
) -> Iterator[None]:
    """Within the block, the first SIGINT or SIGTERM calls ``stop("interrupted")``; the second ends this process.

    Ending it ends the workers too: they do not outlive their driver. Outside the main thread, where Python allows
    no handlers, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os._exit(128 + number)
        # Not by logging or print: the handler may have interrupted one of them.
        os.write(2, f"\n{saying}\n".encode())
        stop("interrupted")

    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)

"""Steps at a rate of wall-clock time: what a robot, a game or any other source that cannot be hurried is like."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass
class Paced:
    """What the clock had to do with the steps of one fragment."""

    seconds: float = 0.0  # that they took up, waiting included: whole periods
    late_seconds: float = 0.0  # by which they began after their ticks, summed


class Pace:
    """Ticks at ``hz`` per second; `wait` returns once for each of them at most.

    Guarantees: the ticks lie on a grid that begins with the first `wait`, so that nothing drifts, however long steps or
    pauses take. Nobody is let through before a tick. Who comes late for a tick, by less than a period, is let through
    at once, and the next tick is where it would have been. A tick that went by wholly is missed and never made up for,
    as with a real machine: after a pause there is no burst, and the rate is never above ``hz``.
    """

    def __init__(self, hz: float) -> None:
        self._period = 1.0 / hz
        self._begin: float | None = None
        self._tick = -1  # the one that was served last

    def wait(self, paced: Paced) -> None:
        """Sleep until the next tick that nobody has been let through for; what that took is added to ``paced``."""
        now = time.monotonic()
        if self._begin is None:
            self._begin = now
        tick = max(self._tick + 1, math.floor((now - self._begin) / self._period))
        due = self._begin + tick * self._period
        while now < due:
            time.sleep(due - now)
            now = time.monotonic()
        paced.seconds += (tick - self._tick) * self._period
        paced.late_seconds += now - due
        self._tick = tick

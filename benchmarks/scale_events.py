"""The parts of a discrete-event model: a clock, workers with a queue, cores that are shared, links between nodes."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

Then = Callable[[], None]
"""What happens at the end of something."""


class Clock:
    """Simulated time in seconds. Events of the same moment happen in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Then]] = []
        self._count = 0

    def after(self, seconds: float, then: Then) -> None:
        """Let ``then`` happen ``seconds`` from now."""
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, then))

    def run(self, until: Callable[[], bool]) -> None:
        """Let things happen until that is so. Raises: RuntimeError where nothing is left that could happen."""
        while not until():
            if not self._events:
                raise RuntimeError(f"after {self.now:g} s nothing more happens, and what was waited for has not come")
            self.now, _, then = heapq.heappop(self._events)
            then()


@dataclass
class Busy:
    """For how much of the time something was at work, between `reset` and now."""

    clock: Clock
    level: float = 0.0  # at this moment: 0 idle, 1 wholly at work
    _sum: float = 0.0
    _since: float = 0.0
    _begin: float = 0.0

    def set(self, level: float) -> None:
        """From now on it is at work by this much."""
        now = self.clock.now
        self._sum += self.level * (now - self._since)
        self._since, self.level = now, level

    def reset(self) -> None:
        """Forget what was before now."""
        self.set(self.level)
        self._sum, self._begin = 0.0, self.clock.now

    def mean(self) -> float:
        """The part of the time since `reset`."""
        self.set(self.level)
        return self._sum / max(self.clock.now - self._begin, 1e-12)


class Cores:
    """``count`` cores of a node: jobs share them evenly, none has more than one (processor sharing).

    Args:
        others: jobs of other programs that always want a core of the same cores; may be a mean, such as 2.5.
    """

    def __init__(self, clock: Clock, count: float, others: float = 0.0) -> None:
        self._clock, self._count, self._others = clock, count, others
        self._jobs: list[tuple[float, int, Then]] = []  # by the work of each job at which it ends
        self._work = 0.0  # seconds on a core that a job that is always there would have had
        self._since = 0.0
        self._asked = self._timer = 0
        self.busy = Busy(clock)

    def run(self, seconds: float, then: Then) -> None:
        """Work for ``seconds`` of a whole core, and longer where that is shared."""
        self._go_on()
        self._asked += 1
        heapq.heappush(self._jobs, (self._work + seconds, self._asked, then))
        self._plan()

    def _rate(self) -> float:
        return min(1.0, self._count / (len(self._jobs) + self._others)) if self._jobs else 0.0

    def _go_on(self) -> None:
        now = self._clock.now
        self._work += (now - self._since) * self._rate()
        self._since = now

    def _plan(self) -> None:
        """Look again when the next job ends."""
        self._timer += 1
        mine, rate = self._timer, self._rate()
        self.busy.set(rate * len(self._jobs) / self._count)
        if self._jobs:
            left = max(0.0, self._jobs[0][0] - self._work)
            self._clock.after(left / rate, lambda: self._ended(mine))

    def _ended(self, timer: int) -> None:
        if timer != self._timer:
            return  # jobs have come or gone since then
        self._go_on()
        _, _, then = heapq.heappop(self._jobs)
        self._plan()
        then()


class Worker:
    """An actor: one call at a time, in the order in which they were given; each begins when what it needs is there."""

    def __init__(self, clock: Clock) -> None:
        self.busy = Busy(clock)
        self._calls: deque[_Call] = deque()
        self._working = False

    def call(self, work: Callable[[Then], None], ready: bool = True) -> Then:
        """Queue a call; ``work`` is given what to do at its end.

        Returns what to call once it is ready, where it is not ``ready`` yet.
        """
        call = _Call(work, ready)
        self._calls.append(call)
        self._next()

        def arrived() -> None:
            call.ready = True
            self._next()

        return arrived

    def _next(self) -> None:
        if self._working or not self._calls or not self._calls[0].ready:
            return
        self._working = True
        self.busy.set(1.0)
        self._calls.popleft().work(self._done)

    def _done(self) -> None:
        self._working = False
        self.busy.set(0.0)
        self._next()


@dataclass
class _Call:
    work: Callable[[Then], None]
    ready: bool


@dataclass
class _Side:
    """One direction of a network card."""

    bytes_per_second: float
    busy: Busy
    flows: dict[int, _Flow] = field(default_factory=dict)
    waiting: deque[Then] = field(default_factory=deque)
    places: int = 0  # taken

    @property
    def share(self) -> float:
        return self.bytes_per_second / max(1, len(self.flows))


@dataclass
class _Flow:
    number: int
    left: float
    sides: tuple[_Side, _Side]
    then: Then
    rate: float = 0.0
    since: float = 0.0
    timer: int = 0


class Network:
    """Copies between nodes over their cards, which send and receive at the same time.

    A flow has the smaller of its even shares at both ends; what it leaves of the larger one lies idle, which is exact
    where one card is what all flows have in common. At most ``places`` flows are under way at each end, others wait.
    """

    def __init__(self, clock: Clock, bytes_per_second: list[float], latency: float, places: int = 16) -> None:
        self._clock, self._latency, self._places = clock, latency, places
        self.sends = [_Side(rate, Busy(clock)) for rate in bytes_per_second]
        self.receives = [_Side(rate, Busy(clock)) for rate in bytes_per_second]
        self._count = 0
        self.bytes = 0.0

    def copy(self, source: int, target: int, size: float, then: Then) -> None:
        """Copy ``size`` bytes; on the same node that takes no time."""
        if source == target:
            then()
            return
        self.bytes += size
        sending, receiving = self.sends[source], self.receives[target]
        begin = self._flow(sending, receiving, size, then)
        self._take(receiving, lambda: self._take(sending, lambda: self._clock.after(self._latency, begin)))

    def _take(self, side: _Side, then: Then) -> None:
        if side.places < self._places:
            side.places += 1
            then()
        else:
            side.waiting.append(then)

    def _leave(self, side: _Side) -> None:
        if side.waiting:
            side.waiting.popleft()()
        else:
            side.places -= 1

    def _flow(self, sending: _Side, receiving: _Side, size: float, then: Then) -> Then:
        def begin() -> None:
            self._count += 1
            flow = _Flow(self._count, size, (sending, receiving), then, since=self._clock.now)
            for side in flow.sides:
                side.flows[flow.number] = flow
            self._share(flow.sides)

        return begin

    def _share(self, sides: tuple[_Side, _Side]) -> None:
        """The flows of two cards have new rates."""
        now = self._clock.now
        for flow in {**sides[0].flows, **sides[1].flows}.values():
            rate = min(side.share for side in flow.sides)
            if rate == flow.rate:
                continue
            flow.left -= (now - flow.since) * flow.rate
            flow.since, flow.rate = now, rate
            flow.timer += 1
            self._clock.after(max(0.0, flow.left) / rate, self._end(flow, flow.timer))
        for side in sides:
            side.busy.set(sum(flow.rate for flow in side.flows.values()) / side.bytes_per_second)

    def _end(self, flow: _Flow, timer: int) -> Then:
        def ended() -> None:
            if timer != flow.timer:
                return
            flow.timer += 1
            for side in flow.sides:
                del side.flows[flow.number]
            self._share(flow.sides)
            for side in flow.sides:
                self._leave(side)
            flow.then()

        return ended


def around(mean: float, spread: float, chance: random.Random) -> float:
    """A duration near ``mean``, gamma distributed; ``spread`` is its standard deviation, relative to the mean."""
    if spread <= 0 or mean <= 0:
        return mean
    shape = 1 / spread**2
    return chance.gammavariate(shape, mean / shape)

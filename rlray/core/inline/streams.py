"""What a generator of the inline engine gives: one reference per value, made when the reader asks, or ahead of it."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rlray.core.calls import check_generator
from rlray.core.inline.ledger import lending
from rlray.core.inline.values import InlineRef, Payload
from rlray.core.refs import ObjectRef

if TYPE_CHECKING:
    from rlray.core.inline.jobs import Job, Runner

_END: Payload = ("end", None)


class Stream:
    """References to the values of one generator; the last one stands for what is not there yet.

    Guarantees: values in the order of the generator, each exactly once, also if it is retried. An error is its last
    value. A lazy generator runs in its reader's thread, up to its next ``yield`` each time the next value is wanted.
    """

    def __init__(self, runner: Runner, job: Job) -> None:
        self.job = job
        self._runner, self._values = runner, runner.values
        self._source: Iterator[Any] | None = None
        self._context = contextvars.Context()
        self._index = 0  # of the next value of this run
        self._received = self._taken = 0
        self._lazy = self._dropped = False
        self._turn = threading.Lock()  # whoever has it runs the generator
        self._reader: int | None = None  # the thread that has the turn
        self._completion = self._values.own(job)
        self._refs: deque[InlineRef] = deque([self._values.own(job)])

    # -- from the generator ------------------------------------------------------------------------------------------

    def open(self, result: Any) -> None:
        """The function has returned its generator. Called in the context that the generator will run in."""
        check_generator(self.job.spec.name, result, Iterator)
        self._source, self._context, self._index = result, contextvars.copy_context(), 0
        with self._values.lock:
            self._lazy = self.job.lazy
            if self._lazy:
                self._refs[-1].entry.ask = self._ask
                self._completion.entry.ask = self._ask_all

    def settle_who_runs(self) -> None:
        """The call returns to its caller: a generator that has not been opened by now runs ahead of its reader."""
        with self._values.lock:
            self.job.lazy = self._lazy

    def left_to_reader(self) -> bool:
        """Whether the reader runs the generator, or it has ended."""
        return self._lazy or self.job.done

    def take(self, index: int, payload: Payload, inner: Sequence[ObjectRef]) -> None:
        """Value number ``index`` is there."""
        if index < self._received or self._dropped or self.job.done:  # of a run that was repeated, or nobody reads on
            return
        self._received += 1
        self._append(payload, inner)

    def _append(self, payload: Payload, inner: Sequence[ObjectRef]) -> None:
        entry, upcoming = self._refs[-1].entry, self._values.own(self.job)
        if self._lazy:
            upcoming.entry.ask = self._ask
        self._refs.append(upcoming)
        self._values.resolve(entry, payload, inner)

    def end(self, error: Payload | None) -> None:
        """The job is over."""
        self._source = None
        if error is not None:
            self._append(error, ())
        self._values.resolve(self._refs[-1].entry, _END)
        self._values.resolve(self._completion.entry, error or ("value", None))

    def ahead(self) -> bool:
        """Whether the generator is as far ahead of its reader as it may be."""
        limit = self.job.spec.backpressure
        return 0 < limit <= self._received - self._taken and not self._dropped and not self.job.done

    # -- running it --------------------------------------------------------------------------------------------------

    def run_ahead(self) -> None:
        """Run the generator to its end, no further ahead of its reader than it may be."""
        while not self.job.done:
            self._step()
            if self.ahead():
                self._values.block(lambda: not self.ahead(), None)

    def run_out(self) -> bool:
        """Run a lazy generator to its end, for somebody who does not take its values; False if it is running here."""
        return self._run_while(lambda: True)

    def _ask(self) -> None:
        """Somebody wants the next value."""
        upcoming = self._refs[-1].entry
        self._run_while(lambda: upcoming.payload is None)

    def _ask_all(self) -> None:
        """Somebody waits for the end."""
        self.run_out()

    def _run_while(self, wanted: Callable[[], bool]) -> bool:
        me = threading.get_ident()
        if self._reader == me:  # the generator itself asks: it gets no further before it has yielded
            return False
        with self._turn, lending(self._runner.grant_here()):
            self._reader = self.job.thread = me
            try:
                while not self.job.done and wanted():
                    self._step()
            finally:
                self._reader = None
        if self.job.actor is not None:
            self.job.actor.pump()  # calls that came meanwhile
        return True

    def _step(self) -> None:
        """Run the generator to its next value."""
        runner, job, source = self._runner, self.job, self._source
        if source is None:  # it has just ended
            return
        held = None
        try:
            if job.actor is None and self._lazy:
                job.grant = held = runner.take(job.request)
            value = self._context.run(_next, source)
            payload, inner = runner.place(job, value)
            self.take(self._index, payload, inner)
            self._index += 1
        except StopIteration:
            runner.finish(job)
        except BaseException as error:  # what a task raises is its value
            if runner.failed(job, error):
                self._context.run(self._reopen)
        finally:
            if held is not None:
                held.give_back()

    def _reopen(self) -> None:
        while True:
            try:
                self._runner.open(self.job)
                return
            except BaseException as error:
                if not self._runner.failed(self.job, error):
                    return

    # -- for `ObjectRefGenerator` ------------------------------------------------------------------------------------

    def upcoming(self) -> ObjectRef:
        """Stands for the next value until it is taken; ready at the end too."""
        return self._refs[0]

    def completion(self) -> ObjectRef:
        """Ready when the generator has ended; its value is None, or the error."""
        return self._completion

    def advance(self, timeout: float | None) -> ObjectRef | None:
        """Wait for the next value and take it; None at the end. Raises TimeoutError."""
        while True:
            entry = self._refs[0].entry
            self._values.ask([entry])
            if timeout is None and entry.payload is None:
                self._runner.check_hope([entry])
            if not self._values.block(lambda entry=entry: entry.payload is not None, timeout):  # type: ignore[misc]
                raise TimeoutError(f"the generator gave nothing within {timeout:g} s")
            try:
                return self.settled()
            except LookupError:  # another thread has taken it
                continue

    def settled(self) -> ObjectRef | None:
        """Take the next value; None at the end. Raises LookupError if it is not there yet."""
        with self._values.lock:
            payload = self._refs[0].entry.payload
            if payload is None:
                raise LookupError("the next value is not there")
            if payload == _END:
                return None
            self._taken += 1
            ref = self._refs.popleft()
        if self.job.spec.backpressure:
            self._values.stir()
        return ref

    def upcoming_ready(self) -> bool:
        """Whether the next value is there, or a lazy generator makes it when asked; it may also end then."""
        payload = self._refs[0].entry.payload
        return self._lazy if payload is None else payload != _END

    def ended(self) -> bool:
        """Whether every value has been taken and there are no more."""
        return self._refs[0].entry.payload == _END

    def drop(self) -> None:
        """Nobody reads on: a lazy generator is closed. In any thread at any moment."""
        self._dropped = True
        self._values.put_off(self._abandon)

    def _abandon(self) -> None:
        self._values.stir()
        if self._lazy and self._reader is None:
            self.close()

    def close(self, cancelled: bool = False) -> None:
        """End a generator that the reader runs."""
        source = self._source
        if cancelled:
            self._runner.cancelled(self.job)
        else:
            self._runner.finish(self.job)
        if source is not None and self._reader != threading.get_ident():
            with self._turn, contextlib.suppress(Exception):  # nobody is left to be told
                self._context.run(_close, source)
        if self.job.actor is not None:
            self.job.actor.pump()


def _next(source: Iterator[Any]) -> Any:
    return next(source)


def _close(source: Iterator[Any]) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()

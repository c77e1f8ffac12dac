"""Waiting for values in one process: what `get` and `wait` do when something is not there yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlray.core import exceptions as exc
from rlray.core.local.references import Entry, LocalRef, owner_of
from rlray.core.local.reports import Waiting
from rlray.core.refs import ObjectRef
from rlray.core.resources import describe

if TYPE_CHECKING:
    from rlray.core.local.client import Client

logger = logging.getLogger(__name__)

_SLOW = 40.0  # seconds: from here on a `get` says each time that it looks what it waits for


class Awaiting:
    """Waits on behalf of a client, and says what it waits for."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """The values, waited for; raises the first error among them, or GetTimeoutError."""
        look_in = self._client.settings.look_after
        waiting = self._waiting("get", refs, timeout is None)
        while not self._all_there(waiting, look_in if timeout is None else timeout):
            if timeout is not None:
                raise exc.GetTimeoutError(f"get timed out after {timeout:g} s; {self._missing(refs)}")
            self._check_for_deadlock(waiting)
            if look_in >= _SLOW:
                logger.warning("get has waited for %g s: %s", look_in, self._missing(refs))
            look_in *= 2
        for ref in refs:  # an error is raised at once, whatever else is still missing
            if self._client.values.is_error(ref):
                self._client.values.load(ref)
        return [self._client.values.load(ref) for ref in refs]

    def wait_for(self, refs: Sequence[ObjectRef], timeout: float | None = None) -> bool:
        """Wait until all values, or an error among them, are there; False if time ran out."""
        return self._all_there(self._waiting("get", refs, timeout is None), timeout)

    def _waiting(self, what: str, refs: Sequence[ObjectRef], for_ever: bool) -> Waiting:
        entries = [self._client.references.entry(ref) for ref in refs]
        return Waiting(what, entries, len(entries), for_ever)

    def _all_there(self, waiting: Waiting, timeout: float | None) -> bool:
        references, entries = self._client.references, waiting.entries
        with self._client.loop.lock:
            for entry in entries:
                if entry.payload is None:
                    references.fetch(entry)
        at, count, failures = 0, len(entries), -1

        def done() -> bool:
            nonlocal at, failures
            while at < count and (payload := entries[at].payload) is not None:
                if payload[0] == "error":
                    return True
                at += 1
            if at == count:
                return True
            if failures != references.failures:  # an error may be among those further on
                failures = references.failures
                return any(entry.payload is not None and entry.payload[0] == "error" for entry in entries[at:])
            return False

        return self._client.wait_until(done, timeout, waiting)

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Ready and unready references, each in the order given."""
        ready, rest = _split(refs, num_returns)
        if len(ready) < num_returns:
            self._wait_for_some(refs, num_returns, timeout)
            ready, rest = _split(refs, num_returns)
        return ready, rest

    def first_ready(self, refs: Sequence[ObjectRef]) -> int | None:
        """The index of the first that has a value, if all before it are references."""
        for i, ref in enumerate(refs):
            if not isinstance(ref, LocalRef):
                return None
            if ref.entry.payload is not None:
                return i
        return None

    def _wait_for_some(self, refs: Sequence[ObjectRef], count: int, timeout: float | None) -> None:
        """Wait until ``count`` of the values are there, or time runs out."""
        references = self._client.references
        entries = [references.entry(ref) for ref in refs]
        there = 0

        def arrived() -> None:
            nonlocal there
            there += 1

        with self._client.loop.lock:
            for entry in entries:
                if references.when_ready(entry, arrived):
                    there += 1
        needs_all = timeout is None and count == len(entries)
        look_in = self._client.settings.look_after if needs_all else timeout
        waiting = Waiting("wait", entries, count, timeout is None)
        try:
            while not self._client.wait_until(lambda: there >= count, look_in, waiting):
                if look_in is None or not needs_all:
                    break
                self._check_for_deadlock(waiting)
                look_in *= 2
        finally:
            if there < len(entries):
                with self._client.loop.lock:
                    references.forget_waiting(entries, arrived)

    def _check_for_deadlock(self, waiting: Waiting) -> None:
        """Raise DeadlockError if this call waits for itself, by way of others."""
        client = self._client
        task = client.hooks.running_id() if client.hooks is not None else None
        if task is None:
            return
        with client.reports.still(waiting):  # others of the circle may look at the same time
            circle = client.ask("deadlock", task)
        if circle is not None:
            raise exc.DeadlockError(
                f"{waiting.what} would wait for ever: {circle}. Let one of these pass on a reference instead of "
                "waiting for its value, or give its actor max_concurrency=2"
            )

    def _missing(self, refs: Sequence[ObjectRef]) -> str:
        """What a `get` waits for, in words."""
        with self._client.loop.lock:
            entries = [self._client.references.entry(ref) for ref in refs]
            missing = [entry for entry in entries if entry.payload is None]
            notes = [self._where(entry) for entry in missing[:3]]
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"still missing {len(missing)} of {len(refs)} values: {', '.join(notes)}{more}"

    def _where(self, entry: Entry) -> str:
        """Where the task is that makes a value, in words."""
        task = entry.task
        if task is None:
            return f"a value of process {owner_of(entry.id)}"
        if task.worker is not None:
            where = f"with {'the actor, ' if task.actor is not None else ''}worker process {task.worker}"
        elif task.actor is not None:
            where = self._client.actors.where(task)
        else:
            where = "waiting for a worker" if task.ready else "waiting for its arguments"
        asks = f", which asks for {describe(task.spec.wish.resources)}" if task.spec.wish.resources else ""
        return f"{task.spec.name} ({where}{asks})"


def _split(refs: Sequence[ObjectRef], most: int) -> tuple[list[ObjectRef], list[ObjectRef]]:
    """The first ``most`` references that have a value, and the rest."""
    ready: list[ObjectRef] = []
    rest: list[ObjectRef] = []
    for i, ref in enumerate(refs):
        if ref.entry.payload is None:  # type: ignore[attr-defined]
            rest.append(ref)
        else:
            ready.append(ref)
            if len(ready) == most:
                return ready, [*rest, *refs[i + 1 :]]
    return ready, rest

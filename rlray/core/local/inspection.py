"""Looking into a run: the node asks every process what it does, and adds what it knows itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlray.core.local.wire import Message

_PATIENCE = 1.0  # seconds that a process is given to begin to answer: its interpreter may be held by a call into C
_AT_WORK = 5.0  # seconds that one is given that has begun
_STACK_DELAY = 0.1  # seconds between two looks whether a stuck process has written what its threads do
_STACK_LOOKS = 10
_STACK_BYTES = 20_000


@dataclass(slots=True)
class _Inquiry:
    kind: str
    options: Mapping[str, Any]
    replies: list[Callable[[dict[str, Any]], None]]
    waiting_for: set[int]
    at_work: set[int] = field(default_factory=set)
    answers: dict[int, Any] = field(default_factory=dict)
    over: bool = False  # those that have not begun to answer are not waited for
    dumping: bool = False  # they have been asked for their stacks
    dumps: dict[int, str] = field(default_factory=dict)


class Inspections:
    """Inquiries under way. Nobody waits for a process that is stuck, nor for one that has died."""

    def __init__(
        self,
        clients: Callable[[], Iterable[int]],
        send: Callable[[int, Message], None],
        later: Callable[[float, Callable[[], None]], None],
        own: Callable[[], dict[str, Any]],
        dump: Callable[[int], str | None],
    ) -> None:
        self._clients, self._send, self._later, self._own = clients, send, later, own
        self._dump = dump  # asks a stuck process for its stack; returns the file where it will be
        self._under_way: dict[int, _Inquiry] = {}
        self._tickets = 0

    def ask(
        self,
        kind: str,
        options: Mapping[str, Any],
        reply: Callable[[dict[str, Any]], None],
        shared: bool = False,
    ) -> None:
        """Ask everybody; ``reply`` gets ``{"node": ..., "processes": {process: report}, "silent": [process]}``.

        Those who ask the same at about the same time may share an answer, of which a part is then a little older than
        the question: many may begin to wonder at once.
        """
        for inquiry in self._under_way.values() if shared else ():
            if inquiry.kind == kind and inquiry.options == options:
                inquiry.replies.append(reply)
                return
        self._tickets += 1
        ticket = self._tickets
        asked = set(self._clients())
        self._under_way[ticket] = _Inquiry(kind, options, [reply], set(asked))
        for client in asked:
            self._send(client, ("report", ticket, kind, options))
        self._later(_PATIENCE, lambda: self._out_of_time(ticket))
        self._later(_AT_WORK, lambda: self._out_of_time(ticket, also_at_work=True))

    def at_work(self, client: int, ticket: int) -> None:
        """A process has begun to answer."""
        inquiry = self._under_way.get(ticket)
        if inquiry is not None:
            inquiry.at_work.add(client)

    def reported(self, client: int, ticket: int, report: Any) -> None:
        """A process has answered."""
        inquiry = self._under_way.get(ticket)
        if inquiry is not None:
            inquiry.answers[client] = report
            self._no_longer(ticket, inquiry, client)

    def gone(self, client: int) -> None:
        """A process has died."""
        for ticket, inquiry in list(self._under_way.items()):
            self._no_longer(ticket, inquiry, client)

    def _no_longer(self, ticket: int, inquiry: _Inquiry, client: int) -> None:
        inquiry.waiting_for.discard(client)
        inquiry.at_work.discard(client)
        self._look(ticket, inquiry)

    def _out_of_time(self, ticket: int, also_at_work: bool = False) -> None:
        inquiry = self._under_way.get(ticket)
        if inquiry is not None:
            inquiry.over = True
            if also_at_work:
                inquiry.at_work.clear()
            self._look(ticket, inquiry)

    def _look(self, ticket: int, inquiry: _Inquiry) -> None:
        """Finish if there is nobody left to wait for."""
        if inquiry.dumping:
            return
        if not inquiry.waiting_for:
            self._finish(ticket)
        elif inquiry.over and not inquiry.at_work:
            inquiry.dumping = True
            files = {}
            if inquiry.kind == "stacks":
                files = {client: path for client in inquiry.waiting_for if (path := self._dump(client)) is not None}
            self._read_dumps(ticket, inquiry, files, _STACK_LOOKS)

    def _read_dumps(self, ticket: int, inquiry: _Inquiry, files: Mapping[int, str], looks: int) -> None:
        """Wait a little for what stuck processes write; one that is stopped writes nothing."""
        before, inquiry.dumps = inquiry.dumps, {client: _read(path) for client, path in files.items()}
        if looks and any(not text or text != before.get(client) for client, text in inquiry.dumps.items()):
            self._later(_STACK_DELAY, lambda: self._read_dumps(ticket, inquiry, files, looks - 1))
        else:
            self._finish(ticket)

    def _finish(self, ticket: int) -> None:
        inquiry = self._under_way.pop(ticket, None)
        if inquiry is None:
            return
        for client, text in inquiry.dumps.items():  # of one that has answered in the meantime, too
            inquiry.answers.setdefault(client, {})["dump"] = text
        report = {"node": self._own(), "processes": inquiry.answers, "silent": sorted(inquiry.waiting_for)}
        for reply in inquiry.replies:
            reply(report)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_STACK_BYTES)
    except OSError:  # it has just ended
        return ""

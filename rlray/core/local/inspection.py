"""Looking into a run: the node asks every process what it does, and adds what it knows itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rlray.core.local.wire import Message

_PATIENCE = 1.0  # seconds that a process is given to answer: its interpreter may be held by a call into C
_STACK_DELAY = 0.2  # seconds until a stuck process has written what its threads do
_STACK_BYTES = 20_000


@dataclass(slots=True)
class _Inquiry:
    kind: str
    options: Mapping[str, Any]
    replies: list[Callable[[dict[str, Any]], None]]
    waiting_for: set[int]
    answers: dict[int, Any] = field(default_factory=dict)


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
        self._dump = dump  # asks a stuck worker for its stack; returns the file where it will be
        self._under_way: dict[int, _Inquiry] = {}
        self._tickets = 0

    def ask(self, kind: str, options: Mapping[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        """Ask everybody; ``reply`` gets ``{"node": ..., "processes": {process: report}, "silent": [process]}``.

        Those who ask the same at about the same time get the same answer: many may begin to wonder at once.
        """
        for inquiry in self._under_way.values():
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
        if not inquiry.waiting_for:
            self._finish(ticket, inquiry)

    def _out_of_time(self, ticket: int) -> None:
        inquiry = self._under_way.get(ticket)
        if inquiry is None:
            return
        files = {}
        if inquiry.kind == "stacks":
            files = {client: path for client in inquiry.waiting_for if (path := self._dump(client)) is not None}
        if not files:
            self._finish(ticket, inquiry)
            return

        def read() -> None:
            for client, path in files.items():
                with suppress(OSError):
                    inquiry.answers.setdefault(client, {"dump": _read(path)})
            self._finish(ticket, inquiry)

        self._later(_STACK_DELAY, read)

    def _finish(self, ticket: int, inquiry: _Inquiry) -> None:
        if self._under_way.pop(ticket, None) is not None:
            silent = sorted(inquiry.waiting_for)
            report = {"node": self._own(), "processes": inquiry.answers, "silent": silent}
            for reply in inquiry.replies:
                reply(report)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_STACK_BYTES)

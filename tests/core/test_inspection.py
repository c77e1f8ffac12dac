"""Collecting reports: whoever does not begin to answer is not waited for, whoever works on its answer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlray.core.local.inspection import Inspections


class Room:
    """The surroundings of inspections: processes that answer when the test says so, and a clock that it turns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients = [1, 2, 3]
        self.asked: list[tuple[int, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.dumped: list[int] = []
        self._now = 0.0
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.inspections = Inspections(
            lambda: self.clients, lambda *sent: self.asked.append(sent), self._later, lambda: {"n": 1}, self._dump
        )

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append((self._now + seconds, action))

    def _dump(self, client: int) -> str | None:
        self.dumped.append(client)
        return str(self.folder / str(client)) if client != 3 else None

    def wait(self, seconds: float) -> None:
        until = self._now + seconds
        while due := sorted((timer for timer in self._timers if timer[0] <= until), key=lambda timer: timer[0]):
            self._timers.remove(due[0])
            self._now = due[0][0]
            due[0][1]()
        self._now = until

    def ask(self, kind: str = "tasks", shared: bool = False) -> int:
        """Ask everybody; returns the ticket of what was sent."""
        self.inspections.ask(kind, {"limit": 1}, self.answers.append, shared)
        return int(self.asked[-1][1][1])


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    one = Room(tmp_path)
    yield one
    one.wait(1000)
    assert not one.inspections._under_way, "an inquiry was never answered"


def test_everybody_answers(room: Room) -> None:
    ticket = room.ask()
    assert [client for client, _ in room.asked] == [1, 2, 3]
    for client in (1, 2):
        room.inspections.reported(client, ticket, {"pid": client})
        assert not room.answers
    room.inspections.reported(3, ticket, {"pid": 3})
    assert room.answers == [{"node": {"n": 1}, "processes": {n: {"pid": n} for n in (1, 2, 3)}, "silent": []}]


def test_the_stuck_are_not_waited_for_and_the_working_are(room: Room) -> None:
    ticket = room.ask()
    room.inspections.reported(1, ticket, {})
    room.inspections.at_work(2, ticket)
    room.wait(3)
    assert not room.answers, "2 has begun"
    room.inspections.reported(2, ticket, {})
    assert room.answers[0]["silent"] == [3]


def test_work_that_takes_too_long_is_not_waited_for_either(room: Room) -> None:
    ticket = room.ask()
    for client in room.clients:
        room.inspections.at_work(client, ticket)
    room.wait(4)
    assert not room.answers
    room.wait(4)
    assert room.answers[0]["silent"] == [1, 2, 3]
    room.inspections.reported(1, ticket, {})
    room.inspections.at_work(1, ticket)
    assert len(room.answers) == 1


def test_the_dead_are_not_waited_for(room: Room) -> None:
    ticket = room.ask()
    room.inspections.reported(1, ticket, {})
    room.inspections.gone(2)
    room.inspections.gone(3)
    assert room.answers[0]["silent"] == []
    assert list(room.answers[0]["processes"]) == [1]


def test_the_stuck_are_asked_for_their_stacks(room: Room) -> None:
    ticket = room.ask("stacks")
    room.inspections.reported(1, ticket, {"threads": []})
    room.wait(1.05)
    assert room.dumped == [2, 3]
    assert not room.answers
    (room.folder / "2").write_text("Thread 0x1")
    room.wait(0.1)
    (room.folder / "2").write_text("Thread 0x1, whole")
    room.wait(0.2)
    assert room.answers[0]["processes"] == {1: {"threads": []}, 2: {"dump": "Thread 0x1, whole"}}
    assert room.answers[0]["silent"] == [2, 3]


def test_one_that_wakes_up_after_all_keeps_what_it_wrote(room: Room) -> None:
    ticket = room.ask("stacks")
    for client in (1, 3):
        room.inspections.reported(client, ticket, {})
    room.wait(1.05)
    (room.folder / "2").write_text("Thread 0x1")
    room.inspections.reported(2, ticket, {"threads": []})
    room.wait(2)
    assert room.answers == [
        {"node": {"n": 1}, "processes": {1: {}, 3: {}, 2: {"threads": [], "dump": "Thread 0x1"}}, "silent": []}
    ]


def test_one_that_is_stopped_writes_nothing(room: Room) -> None:
    room.ask("stacks")
    room.wait(5)
    assert room.answers[0]["processes"] == {1: {"dump": ""}, 2: {"dump": ""}}


def test_only_those_who_share_get_an_answer_that_others_asked_for(room: Room) -> None:
    first = room.ask(shared=True)
    assert room.ask(shared=True) == first
    second = room.ask()
    assert second != first
    for ticket in (first, second):
        for client in room.clients:
            room.inspections.reported(client, ticket, {"of": ticket})
    assert [answer["processes"][1]["of"] for answer in room.answers] == [first, first, second]

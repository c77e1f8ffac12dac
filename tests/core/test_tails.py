"""Reading the files of a worker while it writes them: a real process writes, lines come with the right names."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlray.core.local.logs import LogFile
from rlray.core.local.tails import CHUNK, Printed, Tail

WRITER = """
import os, sys
from rlray.core.local.logs import WorkerOutput, flush
if len(sys.argv) > 3:
    os.getpid = lambda: int(sys.argv[3])
answers = os.fdopen(os.dup(1), "w", buffering=1)
output = WorkerOutput(sys.argv[1], sys.argv[2], 7)
answers.write("ready\\n")
for line in sys.stdin:
    what, *given = eval(line)
    if what == "print":
        sys.stdout.write(given[0])
        flush()
    elif what == "raw":
        os.write(given[0], given[1])
    elif what == "task":
        output.task(*given)
    elif what == "actor":
        output.actor(*given)
    answers.write("done\\n")
"""


class Writer:
    """A process that prints as a worker does, and the tail that reads it."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], pid: int) -> None:
        self.logs = folder / "logs"
        self.pid = pid
        self._process = process
        self._answer()
        self.tail = Tail(str(folder / "names"), str(self.logs), 7, self.pid)
        self.now = 1000.0

    def _answer(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def do(self, *what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what!r}\n")
        self._process.stdin.flush()
        self._answer()

    def read(self, stream: str = "out") -> list[Printed]:
        found, more = self.tail.read(stream, self.now)
        while more:
            fresh, more = self.tail.read(stream, self.now)
            found += fresh
        return found

    def lines(self, stream: str = "out") -> list[str]:
        return [line for printed in self.read(stream) for line in printed.lines]


@contextmanager
def writing(folder: Path, pid: int | None = None) -> Iterator[Writer]:
    """A fresh one, which takes ``pid`` for its own if that is given."""
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "names").mkdir(exist_ok=True)
    command = [sys.executable, "-c", WRITER, str(folder / "names"), str(folder / "logs"), *([str(pid)] if pid else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        writer = Writer(folder, process, pid or process.pid)
        yield writer
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with writing(tmp_path) as one:
        yield one


def test_lines_have_the_name_of_what_printed_them(writer: Writer) -> None:
    writer.do("print", "before\n")
    writer.do("task", "f")
    writer.do("print", "one\ntwo\n")
    writer.do("task", "g h")
    writer.do("raw", 2, b"err\n")
    writer.do("actor", "Class", "left\tright")
    writer.do("print", "three\n")
    assert writer.read() == [
        Printed("", "", ["before"]),
        Printed("f", "", ["one", "two"]),
        Printed("Class", "left right", ["three"]),
    ]
    assert writer.read("err") == [Printed("g h", "", ["err"])]
    assert writer.read() == []


def test_the_files_hold_what_was_printed_and_nothing_else(writer: Writer) -> None:
    for name in ("f", "g"):
        writer.do("task", name)
        writer.do("raw", 1, b"\x1ebytes \xff\x00 as they are\n")
    for _ in range(1000):  # announcements without output take no room
        writer.do("task", "f" * 50)
        writer.do("task", "g")
    out, err = (writer.logs / f"worker-7-pid{writer.pid}.{stream}" for stream in ("out", "err"))
    assert out.read_bytes() == b"\x1ebytes \xff\x00 as they are\n" * 2
    assert err.read_bytes() == b""
    names = writer.logs.parent / "names" / f"7-{writer.pid}"
    assert names.stat().st_size < 300
    assert writer.read() == [Printed(name, "", ["\x1ebytes \ufffd\x00 as they are"]) for name in ("f", "g")]


def test_a_line_ends_where_another_task_begins(writer: Writer) -> None:
    writer.do("task", "f")
    writer.do("print", "half a li")
    assert writer.read() == []
    writer.do("print", "ne")
    writer.do("task", "g")
    assert writer.read() == []  # as far as anybody knows the line goes on
    writer.do("print", "and another\n")
    assert writer.read() == [Printed("f", "", ["half a line"]), Printed("g", "", ["and another"])]


def test_a_last_line_without_an_end(writer: Writer) -> None:
    writer.do("task", "f")
    writer.do("print", "whole\nlast words")
    assert writer.lines() == ["whole"]
    assert writer.tail.end("out") == [Printed("f", "", ["last words"])]
    assert writer.tail.end("out") == []


def test_the_files_of_an_actor_are_called_after_it_and_read_on(writer: Writer) -> None:
    writer.do("print", "first\n")
    assert writer.lines() == ["first"]
    writer.do("actor", "Class", "a/b c")
    writer.do("print", "second\n")
    assert sorted(file.name for file in writer.logs.iterdir()) == [
        f"worker-7-pid{writer.pid}-Class-a_b_c.{stream}" for stream in ("err", "out")
    ]
    assert writer.read() == [Printed("Class", "a/b c", ["second"])]
    assert writer.tail.path("out").endswith("-Class-a_b_c.out")
    assert LogFile(str(writer.logs), 7, writer.pid, "out").size() == len("first\nsecond\n")


def test_no_file_of_an_earlier_run_is_read_or_replaced(tmp_path: Path) -> None:
    """In containers pids repeat: the files of a kept directory may have the very names of this run's."""
    with writing(tmp_path) as earlier:
        earlier.do("print", "a task of an earlier run\n")
    task, actor = (tmp_path / "logs" / f"worker-7-pid{earlier.pid}{label}.out" for label in ("", "-Class"))
    actor.write_text("an actor of an earlier run\n")
    os.unlink(tmp_path / "names" / f"7-{earlier.pid}")
    assert Tail(str(tmp_path / "names"), str(tmp_path / "logs"), 7, earlier.pid).read("out", 0.0) == ([], False)
    with writing(tmp_path, pid=earlier.pid) as writer:
        writer.do("print", "first\n")
        assert writer.lines() == ["first"]
        writer.do("actor", "Class", None)
        writer.do("print", "second\n")
        assert writer.lines() == ["second"]
    assert actor.read_text() == "an actor of an earlier run\n"
    assert task.read_text() == "a task of an earlier run\nfirst\nsecond\n"


def test_what_a_carriage_return_overwrites_is_left_out(writer: Writer) -> None:
    writer.do("print", "1%\r50%\r100%\nwindows\r\nover and over\r\r\n")
    assert writer.lines() == ["100%", "windows", "over and over"]


def test_a_progress_bar_is_given_now_and_then(writer: Writer) -> None:
    shown: list[str] = []
    for percent in range(100):
        writer.do("raw", 2, f"\r{percent}% of it".encode())
        shown += writer.lines("err")
        writer.now += 0.5
    assert shown == [f"{percent}% of it" for percent in (3, 24, 45, 66, 87)]
    writer.do("raw", 2, b"\r100% of it\nnext\n")
    assert writer.lines("err") == ["100% of it", "next"]
    for percent in range(4):  # such as `print(text, end="\r")` makes
        writer.do("print", f"{percent}%\r")
        assert writer.lines() == []
    writer.do("print", "\n")
    assert writer.lines() == ["3%"]


def test_movements_of_the_cursor_are_left_out_and_colours_are_not(writer: Writer) -> None:
    writer.do("print", "\x1b[31mred\x1b[0m \x1b[2Aup \x1b[2K\x1b[?25lend\n")
    assert writer.lines() == ["\x1b[31mred\x1b[0m up end"]


def test_very_long_lines_are_cut_between_characters(writer: Writer) -> None:
    text = "".join(random.Random(1).choices("aü€\N{SNAKE}", k=1_200_000))
    for start in range(0, len(text), 300_000):
        writer.do("print", text[start : start + 300_000])
    writer.do("print", "\nshort\n")
    *pieces, last = writer.lines()
    assert last == "short"
    assert "".join(pieces) == text
    assert 2 <= len(pieces) <= 4


def test_a_file_that_somebody_truncates_is_read_from_its_beginning(writer: Writer) -> None:
    writer.do("task", "f")
    writer.do("print", "x" * 100 + "\n")
    writer.do("task", "g")
    assert len(writer.lines()) == 1
    os.truncate(writer.tail.path("out"), 0)
    writer.do("print", "after\n")
    assert writer.read() == [Printed("g", "", ["after"])]


def test_a_file_that_somebody_removes_is_no_harm(writer: Writer) -> None:
    writer.do("print", "one\n")
    for file in writer.logs.iterdir():
        file.unlink()
    assert writer.read() == []
    writer.logs.rmdir()
    assert writer.read() == []
    assert writer.tail.unread("out") == 0
    assert LogFile(str(writer.logs), 7, writer.pid, "out").size() == 0


def lines_of(prints: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(name, line) of what was printed, given (name, text): a line ends with a newline or where the name changes."""
    lines: list[tuple[str, str]] = []
    name, line = "", ""
    for who, text in [*prints, ("", "")]:
        if line and who != name:
            lines.append((name, line))
            line = ""
        name = who
        *whole, line = (line + text).split("\n")
        lines += [(name, one) for one in whole]
    return lines


@pytest.mark.parametrize("seed", range(8))
def test_it_does_not_matter_when_one_reads(writer: Writer, seed: int) -> None:
    """Random output in random pieces, read at random moments, gives what was printed, under the right names."""
    rng = random.Random(seed)
    prints: list[tuple[str, str]] = []
    found: list[Printed] = []
    name = ""
    for _ in range(300):
        choice = rng.random()
        if choice < 0.2:
            name = rng.choice(("f", "g", "a longer name"))
            writer.do("task", name)
        elif choice < 0.4:
            found += writer.read()
        else:
            text = "".join(rng.choices(("a", "bc", "\n", " ", "ü"), k=rng.randrange(1, 12)))
            if rng.random() < 0.02:
                text = "y" * CHUNK + "\n" + text
            prints.append((name, text))
            writer.do("print", text)
    found += writer.read() + writer.tail.end("out")
    assert [(printed.name, line) for printed in found for line in printed.lines] == lines_of(prints)

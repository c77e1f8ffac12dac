"""Progress of ``map``: what a function is told, and what people see on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import rlray
from rlray.core import progress as module
from rlray.util import ActorPool
from tests.support import PACKAGE_PARENT

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]

Told = list[tuple[int, "int | None"]]


@rlray.remote
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@rlray.remote
class Napper:
    def nap(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


class Teller:
    """Remembers what it was told, when, and by which thread."""

    def __init__(self) -> None:
        self.told: Told = []
        self.times: list[float] = []
        self.threads: set[int] = set()

    def __call__(self, done: int, total: int | None) -> None:
        self.told.append((done, total))
        self.times.append(time.monotonic())
        self.threads.add(threading.get_ident())


@pytest.mark.parametrize("way", ["references", "results", "as_completed"])
def test_a_function_is_told_how_many_are_done_of_how_many(way: str) -> None:
    tell = Teller()
    mapped = nap.map([0.02] * 60, progress=tell)
    read = {"references": lambda: mapped, "results": mapped.results, "as_completed": mapped.as_completed}[way]()
    assert len(list(read)) == 60
    counts = [done for done, _ in tell.told]
    assert counts == sorted(set(counts)), "never twice the same, and only upwards"
    assert {total for _, total in tell.told} == {60}
    assert counts[-1] == 60 if way != "references" else 30 < counts[-1] <= 60
    assert len(counts) >= 2
    assert tell.threads == {threading.get_ident()}
    assert len(counts) <= (tell.times[-1] - tell.times[0]) / 0.1 + 2, "ten times a second at most, and at the end"


def test_what_has_no_length_has_no_total() -> None:
    tell = Teller()
    assert len(list(nap.map((0.0 for _ in range(500)), progress=tell).results())) == 500
    assert tell.told[-1] == (500, None)
    tell = Teller()
    assert list(nap.map([], progress=tell).results()) == []
    assert tell.told == [(0, 0)]


@pytest.mark.processes
def test_finished_items_count_before_they_are_read() -> None:
    tell = Teller()
    results = nap.map([0.0] * 8, progress=tell).results()
    next(results)
    time.sleep(0.5)  # meanwhile the others finish
    next(results)
    list(results)
    waiting = Teller()
    first, *_ = nap.map([1.0, *[0.01] * 9], progress=waiting).results()  # told while the first one is waited for
    assert first == 1.0
    assert any(
        done >= 5 for (done, _), when in zip(waiting.told, waiting.times, strict=True) if when < waiting.times[-1]
    )


def test_methods_and_pools_tell_too() -> None:
    tell = Teller()
    napper = Napper.remote()
    assert len(list(napper.nap.map([0.0] * 50, progress=tell).results())) == 50
    assert tell.told[-1] == (50, 50)
    nappers = [Napper.remote() for _ in range(2)]
    for call in (
        lambda pool, tell: pool.map("nap", [0.0] * 50, progress=tell).results(),
        lambda pool, tell: pool.map(lambda actor, value: actor.nap.remote(value), [0.0] * 50, progress=tell),
        lambda pool, tell: pool.map_unordered(lambda actor, value: actor.nap.remote(value), [0.0] * 50, progress=tell),
    ):
        tell = Teller()
        assert len(list(call(ActorPool(nappers), tell))) == 50
        assert tell.told[-1] == (50, 50)
    tell = Teller()
    list(nap.options(num_cpus=2).map([0.0] * 5, progress=tell).results())
    assert tell.told[-1] == (5, 5)


def test_the_last_state_is_told_when_it_is_abandoned_or_fails() -> None:
    @rlray.remote
    def picky(x: int) -> int:
        if x == 3:
            raise KeyError(x)
        return x

    tell = Teller()
    with pytest.raises(KeyError):
        list(picky.map(range(10), progress=tell).results())
    assert tell.told[-1][1] == 10
    before = len(tell.told)
    tell = Teller()
    results = nap.map([0.0] * 100, progress=tell).results()
    next(results)
    del results
    assert tell.told[-1][0] > 0

    def broken() -> Iterator[float]:
        yield 0.0
        raise OSError("no more items")

    tell = Teller()
    with pytest.raises(OSError, match="no more items"):
        list(nap.map(broken(), progress=tell).results())
    assert tell.told[-1][1] is None
    assert before


def test_what_the_function_raises_ends_the_iteration() -> None:
    calls = []

    def tell(done: int, total: int | None) -> None:
        calls.append(done)
        raise ZeroDivisionError(f"told {done}")

    with pytest.raises(ZeroDivisionError, match="told"):
        list(nap.map([0.01] * 100, progress=tell).results())
    assert len(calls) == 1


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_another_progress_is_a_type_error_that_says_what_it_may_be(wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"progress of nap\.map\(\) is True, False, or a function .* got {wrong!r}"):
        nap.map([0.0], progress=wrong)


# -- shown -------------------------------------------------------------------------------------------------------------


def test_without_a_terminal_a_line_now_and_then_and_the_last_state(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(nap.map([0.0] * 100, progress=True).results())
    assert capsys.readouterr().err == "", "nothing of what takes less than a second"
    monkeypatch.setattr(module, "_SHORT", 0.3)
    list(nap.map([0.02] * 60, progress=True).results())
    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"nap: 60/60 \(100%\) in \d+\.\d s, \d+/s", line)
    monkeypatch.setattr(module, "_LINE_EVERY", 0.3)
    list(nap.map((0.05 for _ in range(60)), progress=True).results())
    *lines, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"nap: 60 in \d+\.\d s, \d+/s", last)
    assert lines
    assert all(re.fullmatch(r"nap: \d+, \d+(\.\d)?/s", line) for line in lines)
    results = Napper.remote().nap.map([0.02] * 60, progress=True).results()
    for _ in range(25):
        next(results)
    results.close()  # type: ignore[attr-defined]
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"Napper\.nap: \d\d/60 \(\d+%\), stopped after \d+\.\d s", last)


@pytest.mark.parametrize("stream", [None, "closed", "raising"])
def test_without_a_usable_stderr_nothing_is_shown_and_nothing_fails(
    stream: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raising:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    with open(os.devnull) as closed:
        pass
    monkeypatch.setattr(module, "_SHORT", 0.0)
    monkeypatch.setattr(sys, "stderr", {None: None, "closed": closed, "raising": Raising()}[stream])
    assert list(nap.map([0.0] * 10, progress=True).results()) == [0.0] * 10


PROGRAM = """
import sys, time
import rlray
from rlray.core import progress

progress._SHORT = 0.3

@rlray.remote
def work(x):
    time.sleep(0.05)
    if x % 10 == 0:
        print(f"working on {x}", flush=True)
    return x

rlray.init(num_cpus=2, engine=sys.argv[1])
"""


class Screen:
    """What a terminal shows of what is written to it: lines, a cursor, carriage returns, and erasing to the end."""

    def __init__(self) -> None:
        self.lines = [""]
        self.column = 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[K|\r|\n|[^\x1b\r\n]+", text):
            line = self.lines[-1]
            if part == "\n":
                self.lines.append("")
                self.column = 0
            elif part == "\r":
                self.column = 0
            elif part == "\x1b[K":
                self.lines[-1] = line[: self.column]
            else:
                self.lines[-1] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)


def on_a_terminal(code: str, engine: str, **environment: str) -> tuple[str, Screen]:
    """All that a program writes to a terminal of 60 columns, and what that shows in the end."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 60, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code, engine],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "TERM": "xterm", **environment},
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(ours)
    assert process.wait(30) == 0, written
    text = written.decode()
    screen = Screen()
    screen.write(text.replace("\r\n", "\n"))
    return text, screen


def test_on_a_terminal_it_stays_in_place(engine: str) -> None:
    code = """
assert len(list(work.map(range(40), progress=True).results())) == 40
print("between")
long = work.options(name="long " * 20)
assert len(list(long.map(range(40), progress=True).results())) == 40
"""
    text, screen = on_a_terminal(code, engine)
    drawn = re.findall(r"\r\x1b\[K([^\r\n]*)\r(?!\n)", text)
    for name in ("work: ", "long "):
        assert len([line for line in drawn if line.startswith(name)]) > 3
        assert len([line for line in screen.lines if line.startswith(name)]) == 1, screen.lines
    assert any(line.endswith(" left") for line in drawn)
    assert max(map(len, drawn)) == 59, "as much as fits on the line"
    assert any(re.fullmatch(r"work: 40/40 \(100%\) in \d+\.\d s, [\d.]+/s", line) for line in screen.lines)
    assert "between" in screen.lines


@pytest.mark.differs("ray", "Ray prints what workers print")
def test_what_workers_and_the_program_print_goes_above_it(engine: str) -> None:
    code = """
stdout, stderr = sys.stdout, sys.stderr
for number in work.map(range(40), progress=True).results():
    if number % 8 == 7:
        print("got", number)
        print("half ", end="", flush=True)
        time.sleep(0.15)
        sys.stderr.write("a line\\n")
    assert sys.stdout.fileno() == 1 and sys.stdout.encoding == stdout.encoding
assert (sys.stdout, sys.stderr) == (stdout, stderr)
print("after")
"""
    text, screen = on_a_terminal(code, engine)
    told = [line for line in screen.lines if "working on" in line]
    prefix = r"\(work pid=\d+\) " if engine == "local" else ""
    assert len(told) == 4
    assert all(re.fullmatch(rf"{prefix}working on \d+", line) or line.startswith("half ") for line in told), (
        screen.lines
    )
    assert [line for line in screen.lines if line.startswith("got ")] == [f"got {n}" for n in range(7, 40, 8)]
    assert sum("a line" in line for line in screen.lines) == 5
    assert [line for line in screen.lines if "work: " in line] == [screen.lines[-3]], screen.lines
    assert screen.lines[-2:] == ["after", ""]
    assert text.count("work: ") > 5


def test_a_program_that_has_redirected_its_streams_meanwhile(engine: str) -> None:
    code = """
import contextlib, io
stdout = sys.stdout
results = work.map(range(40), progress=True).results()
for number in results:
    if number == 20:
        with contextlib.redirect_stdout(io.StringIO()) as taken:
            print("into the buffer")
            results.close()
        break
assert "into the buffer" in taken.getvalue()
print("after")
sys.stdout.writelines(["one\\n", "two\\n"])
"""
    _, screen = on_a_terminal(code, engine)
    assert [line for line in screen.lines if line in ("after", "one", "two")] == ["after", "one", "two"]
    assert any(re.fullmatch(r"work: \d+/40 \(\d+%\)(,| in) .*", line) for line in screen.lines), screen.lines
    assert "into the buffer" not in screen.lines


@pytest.mark.differs("ray", "Ray prints what workers print")
def test_a_second_one_at_the_same_time_gives_lines_above_the_first(engine: str) -> None:
    code = """
progress._LINE_EVERY = 0.2
pairs = zip(work.map(range(40), progress=True).results(), work.map((1 for _ in range(40)), progress=True).results())
assert len(list(pairs)) == 40
"""
    _, screen = on_a_terminal(code, engine)
    lines = [line for line in screen.lines if line.startswith("work: ")]
    now = r"work: \d+(/40 \(\d+%\))?, \S+/s(, \S+ s left)?"
    last = r"work: 40(/40 \(100%\))?( in \S+ s, \S+/s|, stopped after \S+ s)"  # `zip` does not ask the second for more
    assert len([line for line in lines if re.fullmatch(last, line)]) == 2, lines
    assert len([line for line in lines if re.fullmatch(now, line)]) == len(lines) - 2 > 0, lines


@pytest.mark.differs("ray", "Ray prints what workers print")
def test_a_dumb_terminal_gets_no_control_characters(engine: str) -> None:
    text, _ = on_a_terminal("list(work.map(range(40), progress=True).results())\n", engine, TERM="dumb")
    assert "work: 40/40 (100%) in " in text
    assert "\x1b" not in text
    assert text.count("work: ") == 1


def test_off_shows_nothing(engine: str) -> None:
    text, _ = on_a_terminal("list(work.map(range(40)).results())\n", engine)
    assert "work: " not in text

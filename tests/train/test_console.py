"""The console in a real terminal (a pty, drawn by a small emulator of our own) and in a file."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pytest

from rlray.config import RunConfig
from rlray.train.console import Console

VALUES = {
    "time/steps_per_second": 512.3,
    "time/updates_per_second": 64.04,
    "time/policy_lag": 1.5,
    "train/return_mean": -12.345,
    "replay/fill": 0.305,
    "learner/loss": 0.012345,
    "learner/epsilon": 0.5,
    "learner/q_mean": 77.0,
}


def config(**stop: float) -> RunConfig:
    values = {"name": "toy", "env": "CartPole-v1", "algo": "tests.config.toy:ALGORITHM"}
    return RunConfig.from_dict({**values, "stop": {"steps": 400_000, **stop}})


class Screen:
    """As much of a terminal as rich writes for: lines, colours, cursor up, erase line, hide and show the cursor."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.row = self.column = 0
        self.cursor_shown = True

    def feed(self, text: str) -> None:
        for escape, character in re.findall(r"(\x1b\[[?0-9;]*[A-Za-z])|([^\x1b])", text):
            if escape:
                self._escape(escape[2:-1], escape[-1])
            elif character == "\r":
                self.column = 0
            elif character == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
                self.column += 1
                assert self.column <= self.columns, f"wrapped: {self.lines[self.row]}"

    def _escape(self, argument: str, command: str) -> None:
        if command == "A":
            self.row = max(0, self.row - int(argument or 1))
        elif command == "K":
            assert argument == "2"
            self.lines[self.row] = ""
        elif command in "hl" and argument == "?25":
            self.cursor_shown = command == "h"
        else:
            assert command == "m", f"escape sequence {argument}{command}"

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


class Terminal:
    """A Python program on a pty."""

    def __init__(self, code: str, columns: int = 100, **environment: str) -> None:
        self.screen, self.raw = Screen(columns), ""
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
        env |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment}
        command = [sys.executable, "-c", "from tests.train.test_console import *\n" + code]
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True
        )
        os.close(terminal)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._controller)

    def run(self, until: Callable[[], bool] = lambda: False, seconds: float = 15.0) -> None:
        """Draw what the program writes until it ends, or ``until`` is true."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, f"still:\n{self.screen.text}"
            if select.select([self._controller], [], [], 0.1)[0]:
                try:
                    written = os.read(self._controller, 1 << 16)
                except OSError:  # what Linux says when the other side is closed
                    break
                if not written:
                    break
                text = written.decode()
                self.raw += text
                self.screen.feed(text)


ENDLESS = """
with Console(config(), frame_skip=4) as console:
    for step in itertools.count(1000, 1000):
        console.update(VALUES, step)
        if step == 5000:
            console.update({"eval/return_mean": 3.0, "eval/return_std": 1.25}, 4000)
        if step == 10000:
            console.message("a [bold]message[/bold]")
            print("printed")
            print("complaint", file=sys.stderr)
        time.sleep(0.02)
"""


def test_the_display_shows_what_matters_and_messages_stay_above_it() -> None:
    with Terminal("import itertools\n" + ENDLESS) as terminal:
        terminal.run(lambda: "complaint" in terminal.screen.text and "left 0:0" in terminal.screen.text)
        terminal.run(lambda: terminal.screen.text.endswith("lag 1.5"))
        lines = terminal.screen.text.splitlines()
        assert lines[:3] == ["a [bold]message[/bold]", "printed", "complaint"]
        assert not terminal.screen.cursor_shown
        assert re.fullmatch(r"toy: tests.config.toy:ALGORITHM on CartPole-v1 +elapsed 0:\d\d, left 0:\d\d", lines[3])
        assert set(lines[4]) <= set("━╸╺")
        assert re.fullmatch(r"steps [\d,]+ / 400,000   frames [\d,]+   512 steps/s   64 updates/s", lines[5])
        step, frames = (int(number.replace(",", "")) for number in re.findall(r"(?:steps|frames) ([\d,]+)", lines[5]))
        assert frames == 4 * step > 40_000
        assert lines[6:] == [
            "return -12.35 (mean of the last 100)   eval 3.00 ± 1.25 at 4,000",
            "replay 30%   loss 0.0123   epsilon 0.5   lag 1.5",
        ]


def test_ctrl_c_leaves_a_clean_terminal() -> None:
    with Terminal("import itertools\n" + ENDLESS) as terminal:
        terminal.run(lambda: re.search(r"steps [2-9]\d,000", terminal.screen.text) is not None)  # all has been printed
        terminal.process.send_signal(signal.SIGINT)
        terminal.run()
        assert terminal.process.wait(10) == -signal.SIGINT
        text = terminal.screen.text
        assert text.startswith("a [bold]message[/bold]\nprinted\ncomplaint\nTraceback (most recent call last):")
        assert text.endswith("KeyboardInterrupt")
        assert terminal.screen.cursor_shown
        assert "steps/s" not in text


def test_nothing_is_left_after_the_end() -> None:
    code = "with Console(config()) as console:\n  console.update(VALUES, 5)\n  console.message('kept')\nprint('after')"
    with Terminal(code) as terminal:
        terminal.run()
        assert "steps 5 / 400,000" in terminal.raw
        assert terminal.screen.text == "kept\nafter"
        assert terminal.screen.cursor_shown
        assert not re.search(r"\x1b\[[0-3]?J|\x1b\[\?1049", terminal.raw), "cleared the screen: that flickers"


def test_narrow_terminals_cut_lines_short() -> None:
    code = "with Console(config(minutes=5)) as console:\n  console.update(VALUES, 5)\n  time.sleep(60)"
    with Terminal(code, columns=40) as terminal:  # a line that wraps fails in the screen
        terminal.run(lambda: "left 4:5" in terminal.screen.text and terminal.screen.text.count("\n") == 4)
        assert re.fullmatch(r"toy: tests\S*… elapsed 0:\d\d, left 4:5\d", terminal.screen.lines[0])
        assert terminal.screen.lines[2] == "steps 5 / 400,000   512 steps/s   64 up…"


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "latin-1"}])
def test_lesser_terminals_get_plain_lines(environment: dict[str, str]) -> None:
    code = "with Console(config()) as console:\n"
    code += "    console.update({**VALUES, 'eval/return_mean': 1, 'eval/return_std': 2}, 5)"
    with Terminal(code, columns=300, **environment) as terminal:
        terminal.run()
        assert "\x1b" not in terminal.raw
        assert terminal.screen.text.startswith("steps 5 / 400,000  512 steps/s")
        assert "eval 1.00 +/- 2.00 at 5" in terminal.screen.text


def test_files_get_a_line_at_an_interval_and_one_at_the_end() -> None:
    out = io.StringIO()
    with Console(config(), out, interval=3600) as console:
        console.update({"learner/loss": 1.0}, 100)
        console.update({"learner/epsilon": 0.25}, 200)
        console.message("a message\nof two lines")
        console.update({"learner/loss": 2.0}, 150)
    lines = out.getvalue().splitlines()
    assert lines == [
        "steps 100 / 400,000  loss 1  elapsed 0:00",
        "a message",
        "of two lines",
        lines[-1],
    ]
    assert re.fullmatch(r"steps 200 / 400,000  loss 2  epsilon 0.25  elapsed 0:0\d, left \d+:[\d:]+", lines[-1])


def test_an_interval_of_nothing_writes_every_time() -> None:
    out = io.StringIO()
    with Console(config(), out, interval=0) as console:
        for step in range(5):
            console.update({}, step)
    assert len(out.getvalue().splitlines()) == 5


def test_no_news_no_line() -> None:
    out = io.StringIO()
    with Console(config(), out):
        pass
    assert out.getvalue() == ""


def test_time_left_follows_the_nearer_limit() -> None:
    out = io.StringIO()
    with Console(config(minutes=10_000), out, interval=0) as console:
        console.update({}, 0)
        time.sleep(0.2)
        console.update({}, 200_000)
    assert re.search(r"left 0:0[0-2]$", out.getvalue().strip())
    out = io.StringIO()
    with Console(config(minutes=5), out, interval=0) as console:
        console.update({}, 0)
        time.sleep(0.2)
        console.update({}, 1)
    assert re.search(r"left (5:00|4:5\d)$", out.getvalue().strip())

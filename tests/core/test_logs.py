"""What workers print appears in the driver, each line under its writer's name and pid."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import run_driver

PROGRAM = """
import os, sys, time
import rlray as ray

@ray.remote
def talk(text):
    print(text)
    print("to stderr", file=sys.stderr)
    return os.getpid()

@ray.remote
class Speaker:
    def say(self, text):
        print(text)
        return os.getpid()

@ray.remote(max_retries=0)
def last_words():
    print("last words", flush=True)
    os._exit(1)

@ray.remote
def several():
    print("line one\\nline two\\n\\nline four")
    sys.stdout.write("no newline at the end")
    os.system("echo from a shell")
    print("ünïcødé \\N{SNAKE}")
    print("x" * 20_000)

def tell(*words):  # in one write: log lines come from another thread, and print writes text and line end apart
    sys.stdout.write(" ".join(map(str, words)) + "\\n")

if len(sys.argv) > 1:
    ray.init(num_cpus=1, **eval(sys.argv[1]))
else:
    ray.init(num_cpus=1)
tell("TASK", ray.get(talk.remote("hello from a task")))
speaker = Speaker.remote()
tell("ACTOR", ray.get(speaker.say.remote("hello from an actor")))
ray.get(several.remote())
try:
    ray.get(last_words.remote())
except ray.exceptions.WorkerCrashedError:
    pass
tell("driver's own line")
tell("LATE", ray.get(talk.remote("printed just before the end")))
"""


def plain(output: str) -> list[str]:
    """Lines without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()


def said(lines: list[str], name: str, pid: str, text: str) -> bool:
    return any(re.fullmatch(rf"\({name} pid={pid}\) {re.escape(text)}", line) for line in lines)


def value(lines: list[str], word: str) -> str:
    return next(line.split()[1] for line in lines if line.startswith(word))


def test_lines_are_prefixed_with_name_and_pid() -> None:
    lines = plain(run_driver(PROGRAM))
    task, actor, late = value(lines, "TASK"), value(lines, "ACTOR"), value(lines, "LATE")
    assert said(lines, "talk", task, "hello from a task")
    assert said(lines, "talk", task, "to stderr")
    assert said(lines, "Speaker", actor, "hello from an actor")
    assert said(lines, "talk", late, "printed just before the end")
    assert "driver's own line" in lines
    for text in ("line one", "line two", "line four", "from a shell", "x" * 20_000):
        assert said(lines, "several", r"\d+", text), text[:40]
    assert any("no newline at the end" in line and line.startswith("(several pid=") for line in lines)
    assert any("\N{SNAKE}" in line for line in lines)
    assert said(lines, "last_words", r"\d+", "last words")


def test_log_to_driver_false_keeps_them_out() -> None:
    lines = plain(run_driver(PROGRAM, "{'log_to_driver': False}"))
    assert value(lines, "TASK")
    assert not [line for line in lines if "hello from" in line or "last words" in line or "to stderr" in line]


def test_log_dir_holds_every_line_unshortened(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    run_driver(PROGRAM, repr({"log_dir": str(folder), "log_to_driver": False}))
    text = "\n".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())
    for line in ("hello from a task", "to stderr", "hello from an actor", "last words", "x" * 20_000):
        assert line in text, line[:40]


def test_log_dir_of_a_path_object_and_a_bad_one(tmp_path: Path) -> None:
    code = "import sys, pathlib, rlray; rlray.init(num_cpus=1, log_dir=pathlib.Path(sys.argv[1])); rlray.put(1)"
    run_driver(code, str(tmp_path / "deep" / "logs"))
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    probe = (
        "import sys, rlray\ntry:\n    rlray.init(num_cpus=1, log_dir=sys.argv[1])\n"
        "except (OSError, ValueError) as error:\n    assert sys.argv[1] in str(error), error\n    print('REFUSED')\n"
    )
    assert "REFUSED" in run_driver(probe, str(blocked))

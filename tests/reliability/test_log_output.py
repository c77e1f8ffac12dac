"""What workers print reaches the driver's output, however they end and however the driver's output behaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support import PACKAGE_PARENT, Driver, children, needs_proc, run_driver, still_running, wait_until

PROGRAM = """
import ctypes, io, logging, os, signal, subprocess, sys, threading, time, warnings
import rlray as ray

def tell(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")

@ray.remote(max_retries=0)
def count(number, text=""):
    for i in range(number):
        print("line", i, text)

@ray.remote(max_retries=0)
def count_and_die(number):
    for i in range(number):
        os.write(1, b"line %d \\n" % i)
    os.write(1, b"no newline")
    os.kill(os.getpid(), signal.SIGKILL)

@ray.remote(max_retries=0)
def count_for_ever():
    for i in range(10**9):
        os.write(1, b"line %d \\n" % i)

def memory(pid):
    [peak] = [line.split()[1] for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM")]
    return int(peak) * 1024

"""


def numbers(output: str) -> list[int]:
    """Of the lines that ``count`` and its like have printed."""
    return [int(number) for number in re.findall(r"^\(count\w* pid=\d+\) line (\d+) ", output, re.MULTILINE)]


def command(code: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """A driver whose streams the test holds itself."""
    return [sys.executable, "-c", PROGRAM + code, *arguments], {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)}


def test_every_way_to_write_reaches_the_driver() -> None:
    code = """
@ray.remote
def write():
    print("print")
    print("stderr", file=sys.stderr)
    print("original", file=sys.__stdout__)
    os.write(1, b"os.write\\n")
    ctypes.CDLL(None).puts(b"C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run("echo shell; echo shell stderr >&2", shell=True)
    logging.getLogger("mine").warning("logged")
    warnings.warn("warned")
    thread = threading.Thread(target=print, args=("thread",))
    thread.start(), thread.join()
    for word in ("in", " pie", "ces\\n"):
        os.write(1, word.encode())
    os.write(1, b"\\x1ebytes \\xff\\x00\\n")
    sys.stdout.buffer.write(b"buffer\\n")

ray.init(num_cpus=1)
ray.get(write.remote())
"""
    output = run_driver(PROGRAM + code)
    lines = [re.sub(r"^\(write pid=\d+\) ", "", line) for line in output.split("\n")]
    for expected in (
        "print",
        "stderr",
        "original",
        "os.write",
        "C",
        "shell",
        "shell stderr",
        "logged",
        "thread",
        "in pieces",
        "\x1ebytes \ufffd\x00",
        "buffer",
    ):
        assert lines.count(expected) == 1, f"{expected!r} in {output}"
    assert any("UserWarning: warned" in line for line in lines)


def test_all_that_was_written_before_a_kill_is_printed() -> None:
    code = """
ray.init(num_cpus=2)
for result in [count_and_die.remote(5000) for _ in range(2)]:
    try:
        ray.get(result)
    except ray.exceptions.WorkerCrashedError:
        tell("CRASHED")
time.sleep(2)
tell("AFTER")
"""
    with Driver(PROGRAM + code) as driver:
        driver.expect("CRASHED")
        driver.expect("CRASHED")
        driver.expect("AFTER")
        assert set(numbers(driver.output)) == set(range(5000)), "shown while the program runs on"
        output = driver.finish()
    assert Counter(numbers(output)) == dict.fromkeys(range(5000), 2)  # some are folded, some are not
    assert output.count(") no newline") == 2


def test_what_an_actor_prints_while_it_leaves() -> None:
    code = """
import atexit

@ray.remote
class Leaver:
    def leave(self):
        atexit.register(print, "printed at exit")
        ray.actor.exit_actor()

ray.init(num_cpus=1)
try:
    ray.get(Leaver.options(name="who").remote().leave.remote())
except ray.exceptions.RayActorError:
    pass
"""
    assert re.search(r"^\(Leaver:who pid=\d+\) printed at exit$", run_driver(PROGRAM + code), re.MULTILINE)


@pytest.mark.parametrize("end", ["shutdown", "return", "raise", "SIGINT"])
def test_at_the_end_all_that_is_in_the_files_is_printed(end: str, tmp_path: Path) -> None:
    """Workers that print without end are killed at some moment: the driver prints up to the last whole line."""
    code = """
ray.init(num_cpus=2, log_dir=sys.argv[1])
busy = [count_for_ever.remote() for _ in range(2)]
time.sleep(0.2)
tell("READY")
match sys.argv[2]:
    case "shutdown":
        ray.shutdown()
    case "raise":
        raise KeyError("uncaught")
    case "SIGINT":
        ray.get(busy)
"""
    with Driver(PROGRAM + code, str(tmp_path), end) as driver:
        driver.expect("READY")
        if end == "SIGINT":
            os.kill(driver.pid, signal.SIGINT)
        output = driver.finish()
    text = "".join(file.read_text() for file in tmp_path.glob("*.out"))
    written = Counter(int(number) for number in re.findall(r"^line (\d+) ", text, re.MULTILINE))
    printed = Counter(numbers(output))
    assert len(written) > 100
    assert printed == written


@needs_proc
def test_a_killed_node_takes_no_line_along(tmp_path: Path) -> None:
    """All is printed then and there, and the zygote, which waited for that with the files, is gone too."""
    code = """
ray.init(num_cpus=1)
busy = count_for_ever.remote()
time.sleep(0.2)
tell("READY")
try:
    ray.get(busy)
except ray.exceptions.RayError as error:
    tell("LOST", type(error).__name__)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
tell("AFTER")
"""
    with Driver(PROGRAM + code, str(tmp_path / "go on")) as driver:
        driver.expect("READY")
        [zygote] = children(driver.pid)
        node = min(children(zygote.pid), key=lambda process: process.start)
        os.kill(node.pid, signal.SIGKILL)
        driver.expect("LOST")
        assert not still_running([zygote], 20)
        (tmp_path / "go on").touch()
        driver.expect("AFTER")
        before = driver.output
        output = driver.finish()
    printed = numbers(output)
    assert len(printed) > 100
    assert printed == list(range(len(printed)))
    assert numbers(before) == printed


def test_a_reader_that_goes_away_does_not_stop_the_program(tmp_path: Path) -> None:
    code = """
ray.init(num_cpus=1)
tell("READY")
sys.stdout.flush()
os.close(1)
os.dup2(int(sys.argv[1]), 1)
ray.get(count.remote(50_000))
assert ray.get(ray.put(3)) == 3
sys.stderr.write("FINE\\n")
"""
    reading, writing = os.pipe()
    os.close(reading)
    arguments, environment = command(code, str(writing))
    done = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=60, pass_fds=[writing], check=False
    )
    os.close(writing)
    assert done.stdout == "READY\n"
    assert "FINE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("blocking", [True, False])
def test_a_slow_reader_gets_every_line_and_nobody_waits_for_it(blocking: bool) -> None:
    code = """
os.set_blocking(1, sys.argv[1] == "True")
ray.init(num_cpus=1)
ray.get(count.remote(30_000))
sys.stderr.write("DONE\\n")
sys.stderr.flush()
"""
    arguments, environment = command(code, str(blocking))
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        assert driver.stderr.readline() == "DONE\n"  # while nobody has read a word
        output = driver.stdout.read()
        assert driver.wait(30) == 0
    assert numbers(output) == list(range(30_000))


def test_what_a_stuck_reader_does_not_take_is_counted_and_the_program_ends(tmp_path: Path) -> None:
    """One driver keeps its log files, one does not."""
    code = """
ray.init(num_cpus=1, log_dir=sys.argv[1] or None)
ray.get(count.remote(30_000))
"""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    arguments, environment = command(code)
    with (
        subprocess.Popen([*arguments, str(tmp_path)], env=environment, **pipes) as keeping,
        subprocess.Popen([*arguments, ""], env=environment, **pipes) as removing,
    ):
        lost = []
        for driver in (keeping, removing):
            said = driver.stderr.read()  # until it has ended, without having read a word of stdout
            assert driver.wait(30) == 0
            left = re.fullmatch(r"rlray: ([\d,]+) lines of workers were not printed here: (.*)\n", said)
            assert left, said
            printed = numbers(driver.stdout.read())
            assert printed == list(range(len(printed)))
            assert len(printed) + int(left[1].replace(",", "")) == 30_000
            lost.append(left[2])
    [file] = tmp_path.glob("*.out")
    assert lost == [f"they are in {file}", "init(log_dir=...) would have kept them"]
    assert len(file.read_text().splitlines()) == 30_000


@needs_proc
def test_a_flood_grows_nobodys_memory() -> None:
    """150 MB of lines, to a reader that takes nothing until they are all written."""
    code = """
ray.init(num_cpus=1)
ray.get(count.remote(1))
[zygote] = [int(pid) for pid in open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()]
node = min(int(pid) for pid in open(f"/proc/{zygote}/task/{zygote}/children").read().split())
time.sleep(0.5)
before = memory(os.getpid()), memory(node)
ray.get(count.remote(1500, "x" * 100_000))
time.sleep(0.5)
after = memory(os.getpid()), memory(node)
sys.stderr.write(f"GREW {after[0] - before[0]} {after[1] - before[1]}\\n")
sys.stderr.flush()
"""
    arguments, environment = command(code)
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        word, *grew = driver.stderr.readline().split()
        size = 0
        while part := driver.stdout.read(1 << 20):
            size += len(part)
        assert driver.wait(30) == 0
    assert word == "GREW"
    assert max(map(int, grew)) < 30_000_000
    assert size > 150_000_000


@pytest.mark.parametrize(
    ("setting", "environment"),
    [
        ("sys.stdout = None", {}),
        ("sys.stdout.close()", {}),
        ("sys.stdout = type('Odd', (), {'write': lambda self: None, 'flush': lambda self: None})()", {}),
        ("os.set_blocking(1, False)", {}),
        ("", {"PYTHONIOENCODING": "ascii"}),
        ("sys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'latin-1')", {}),
    ],
)
def test_odd_streams_of_the_driver(setting: str, environment: dict[str, str]) -> None:
    code = f"""
ray.init(num_cpus=1)
original = sys.stdout
ray.get(count.remote(3))
{setting}
ray.get(count.remote(2000, "snake \\N{{SNAKE}} "))
assert ray.get(ray.put(1)) == 1
time.sleep(0.3)
ray.shutdown()
sys.stderr.write("FINE\\n")
"""
    output = run_driver(PROGRAM + code, **environment)
    assert "FINE" in output
    assert "Exception" not in output
    if "stdout =" not in setting and "close" not in setting:
        assert numbers(output) == [0, 1, 2, *range(2000)]
        assert (r"\U0001f40d" in output) == bool(environment)


def test_a_replaced_stdout_gets_the_lines() -> None:
    code = """
ray.init(num_cpus=1)
original, sys.stdout = sys.stdout, io.StringIO()
ray.get(count.remote(3))
ray.shutdown()
taken, sys.stdout = sys.stdout.getvalue(), original
print("TAKEN", taken.count("(count pid="))
"""
    output = run_driver(PROGRAM + code)
    assert "TAKEN 3" in output
    assert numbers(output) == []


def test_two_drivers_with_one_log_directory_print_their_own_lines(tmp_path: Path) -> None:
    code = """
ray.init(num_cpus=2, log_dir=sys.argv[1])
ray.get([count.remote(200, sys.argv[2]) for _ in range(2)])
"""
    with Driver(PROGRAM + code, str(tmp_path), "mine ") as one, Driver(PROGRAM + code, str(tmp_path), "yours ") as two:
        outputs = one.finish(), two.finish()
    third = run_driver(PROGRAM + code, str(tmp_path), "third ")
    for output, word, others in (
        (outputs[0], "mine", ("yours", "third")),
        (outputs[1], "yours", ("mine", "third")),
        (third, "third", ("mine", "yours")),
    ):
        assert len(numbers(output)) == 400
        assert output.count(word) == 400
        assert not any(other in output for other in others)


def test_the_files_tell_whose_they_are_and_hold_what_was_printed(tmp_path: Path) -> None:
    code = """
@ray.remote
class Speaker:
    def say(self, *words):
        print(*words)
        return os.getpid()

ray.init(num_cpus=1, log_dir=sys.argv[1])
tell("TASK", ray.get(ray.remote(lambda: print("from a task") or os.getpid()).remote()))
plain, named = Speaker.remote(), Speaker.options(name="left/1").remote()
tell("PLAIN", ray.get(plain.say.remote("from an actor")))
tell("NAMED", ray.get(named.say.remote("from a named one")))
"""
    output = run_driver(PROGRAM + code, str(tmp_path))
    pids = dict(line.split() for line in output.splitlines() if line.split()[0].isupper())
    for who, label, text in (
        ("TASK", "", "from a task\n"),
        ("PLAIN", "-Speaker", "from an actor\n"),
        ("NAMED", "-Speaker-left_1", "from a named one\n"),
    ):
        [out] = tmp_path.glob(f"worker-*-pid{pids[who]}{label}.out")
        [err] = tmp_path.glob(f"worker-*-pid{pids[who]}{label}.err")
        assert out.read_text() == text
        assert err.read_text() == ""
    assert f"(Speaker:left/1 pid={pids['NAMED']}) from a named one" in output


@needs_proc
def test_last_words_are_in_the_error_from_either_stream() -> None:
    code = """
ray.init(num_cpus=1, log_to_driver=False)

@ray.remote(max_retries=0)
def die():
    print("on stdout")
    sys.stderr.write("on stderr, and no newline")
    sys.stderr.flush()
    os.abort()

try:
    ray.get(die.remote())
except ray.exceptions.WorkerCrashedError as error:
    tell(error)
"""
    output = run_driver(PROGRAM + code)
    assert "SIGABRT" in output
    assert "    on stdout\n" in output
    assert "    on stderr, and no newline\n" in output


def test_many_short_lived_workers_leave_no_descriptors(tmp_path: Path) -> None:
    code = """
ray.init(num_cpus=2, log_dir=sys.argv[1])
once = ray.remote(max_calls=1)(lambda number: print("line", number, ""))
before = len(os.listdir("/proc/self/fd"))
ray.get([once.remote(number) for number in range(60)])
time.sleep(0.5)
tell("FDS", len(os.listdir("/proc/self/fd")) - before)
"""
    with Driver(PROGRAM + code, str(tmp_path)) as driver:
        assert int(driver.expect("FDS")) < 20
        output = driver.finish()
    assert sorted(int(number) for number in re.findall(r"\) line (\d+) $", output, re.MULTILINE)) == list(range(60))
    assert wait_until(lambda: len(list(tmp_path.glob("*.out"))) >= 60)

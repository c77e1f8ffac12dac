"""``rlray status``, ``memory``, ``stack`` and ``timeline`` against a real driver, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlray.core.local.visit import Visit, find_runs
from rlray.core.local.wire import Connection, hello
from tests.cli.inside_support import BUSY, PATIENCE, Inside, driver, run
from tests.core.test_timeline import check
from tests.support import needs_proc, wait_until

pytestmark = needs_proc


@pytest.fixture(scope="module")
def busy() -> Iterator[Inside]:
    with driver(BUSY) as inside:
        yield inside


class TestStatus:
    def test_what_people_see(self, busy: Inside) -> None:
        out = busy.run("status")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert re.fullmatch(rf"run \w+, driver pid {busy.driver.pid}, up [\d.]+ .*s", lines[0])
        assert any(re.match(r"in use CPU 2 of 2, memory 0 B of .*, special 1 of 1", line) for line in lines)
        assert any(re.match(r"store 2\d(\.\d)? MB of 200 MB, 0 B spilled to disk", line) for line in lines)
        assert any(re.match(rf"{busy.keeper} actor Keeper 'the keeper' Keeper.loop [\d.]+", line) for line in lines)
        assert any(
            re.match(rf"{busy.driver.pid} driver waits .* in get for 2 values of long nap", line) for line in lines
        )
        assert sum(bool(re.match(r"\d+ worker long nap", line)) for line in lines) == 2
        assert "tasks need args need worker running finished failed mean" in lines
        assert any(re.match(r"nap 20 \d+", line) for line in lines)
        assert "queued 5" in lines
        assert "late 1" in lines
        assert "dies 1" in lines
        assert "Keeper 2 alive, 1 pending_creation" in lines
        assert "actor Keeper needs special 1 free: special 0" in lines
        assert any(
            re.match(r"tasks of driver want (a|\d+ more) workers? with CPU 1 free: CPU 0", line) for line in lines
        )
        assert any(re.match(r"worker process \d+ exited with code 3", line) for line in lines)
        assert f"logs {busy.driver.folder}" in out.replace("     ", " ")
        assert max(map(len, out.splitlines())) <= 110

    def test_what_programs_read(self, busy: Inside) -> None:
        told = json.loads(busy.run("status", "--json"))
        assert told["driver_pid"] == busy.driver.pid
        assert told["resources"]["CPU"] == {"total": 2.0, "free": 0.0}
        by_pid = {row["pid"]: row for row in told["processes"]}
        assert by_pid[busy.keeper]["what"] == "actor Keeper 'the keeper'"
        assert by_pid[busy.keeper]["runs"][0]["name"] == "Keeper.loop"
        assert all(row["answers"] for row in told["processes"])
        tasks = {row["name"]: row for row in told["tasks"]}
        assert tasks["nap"]["finished"] == 20
        assert 0.01 <= tasks["nap"]["mean_seconds"] < 1
        assert tasks["long nap"]["running"] == 2
        assert tasks["queued"]["worker"] == 5
        assert tasks["late"]["arguments"] == 1
        assert told["deaths"] == 1
        assert [row["short_of"] for row in told["waiting"] if row["what"] == "actor Keeper"] == [["special"]]

    def test_a_terminal_gets_lines_that_fit(self, busy: Inside) -> None:
        """`script` gives the command a terminal of 80 columns."""
        if shutil.which("script") is None:
            pytest.skip("there is no program 'script' here to make a terminal")
        import subprocess
        import sys

        command = f"stty cols 80; {sys.executable} -m rlray.cli status --temp {busy.driver.folder}"
        environment = {**os.environ, "COLUMNS": "80"}
        done = subprocess.run(
            ["script", "-qec", command, "/dev/null"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        lines = done.stdout.replace("\r", "").splitlines()
        assert any("Keeper.loop" in line for line in lines), done
        assert max(map(len, lines)) == 80, "the program's line is long, and cut"


class TestMemory:
    def test_what_people_see(self, busy: Inside) -> None:
        out = busy.run("memory", "--top", "2")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert any(re.match(rf"driver, pid {busy.driver.pid} 2\d(\.\d)? MB 2\d(\.\d)? MB", line) for line in lines)
        assert any(re.match(rf"actor Keeper 'the keeper', pid {busy.keeper} 16 MB", line) for line in lines)
        assert "8 MB memory 1 × numbers" in lines
        at = next(i for i, line in enumerate(lines) if line == "the 2 largest values")
        assert re.match(rf"16 MB memory put at <string>:\d+ owner pid {busy.driver.pid}", lines[at + 1])
        assert f"driver has a reference (pid {busy.driver.pid})" in lines[at + 2]
        assert f"actor Keeper 'the keeper' reads it (pid {busy.keeper})" in lines[at + 2]
        assert re.match(rf"8 MB memory numbers owner pid {busy.driver.pid}", lines[at + 3])
        assert len(lines) == at + 5

    def test_what_programs_read(self, busy: Inside) -> None:
        told = json.loads(busy.run("memory", "--json"))
        assert [row["bytes"] for row in told["values"]][:2] == sorted(row["bytes"] for row in told["values"])[-1:-3:-1]
        assert told["values"][1]["made_by"] == "numbers"
        rows = {row["pid"]: row for row in told["processes"]}
        assert rows[busy.keeper]["reads"] >= 16_000_000
        assert rows[busy.driver.pid]["holds"] >= 24_000_000
        assert told["waiting_for_room"] == []


class TestStack:
    def test_every_process_at_once(self, busy: Inside) -> None:
        out = busy.run("stack")
        assert re.search(r"driver, pid \d+\n  MainThread: waits .* in get for 2 values of long nap\n", out)
        assert re.search(r"MainThread: long nap for .*\n    +File \"<string>\", line \d+, in nap\n", out)
        assert re.search(r"  3 coroutines: Async.nap for .*\n(.*\n)*?    +File .*in sleep\n", out)
        assert "_stand_in" not in out, "the runtime's own threads are left out"
        assert "executor.py" not in out, "and its own frames"
        assert "base_events.py" not in out, "and the event loop that waits"
        assert re.search(r"^idle: 1 × actor Keeper, pid \d+$", out, re.MULTILINE)

    def test_of_one_process(self, busy: Inside) -> None:
        out = busy.run("stack", "--pid", str(busy.keeper))
        assert out.startswith(f"actor Keeper 'the keeper', pid {busy.keeper}\n  MainThread: Keeper.loop for ")
        assert "in loop" in out
        assert "driver" not in out

    def test_of_a_process_that_there_is_not(self, busy: Inside) -> None:
        answer = run("stack", "--pid", "1", "--temp", str(busy.driver.folder))
        assert answer.code == 2
        assert f"no process of the run has pid 1; there are {busy.driver.pid}" in answer.err


class TestTimeline:
    def test_a_trace_that_opens(self, busy: Inside, tmp_path: Path) -> None:
        file = tmp_path / "trace.json"
        out = busy.run("timeline", str(file))
        spans = check(json.loads(file.read_text())["traceEvents"])
        assert out.startswith(f"{file}: {len(spans):,} spans, ")
        assert "https://ui.perfetto.dev" in out
        names = [span["name"] for span in spans]
        assert names.count("nap") == 20
        assert names.count("long nap") == 2
        assert {span["cat"] for span in spans if span["name"] == "long nap"} == {"task,running"}

    def test_the_default_name(self, busy: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        busy.run("timeline")
        [file] = os.listdir(tmp_path)
        assert re.fullmatch(r"timeline-\w+\.json", file)

    def test_every_call_for_some_seconds(self, tmp_path: Path) -> None:
        program = """
quick = rlray.remote(lambda: 1).options(name="quick")
print("READY")
while True:
    rlray.get([quick.remote() for _ in range(10)])
    time.sleep(0.02)
"""
        with driver(program) as inside:
            inside.run("timeline", str(tmp_path / "before.json"))
            out = inside.run("timeline", str(tmp_path / "after.json"), "--seconds", "1")
            assert "noting every call for 1 s" in out

            def quick(file: str) -> int:
                spans = check(json.loads((tmp_path / file).read_text())["traceEvents"])
                return sum(span["name"] == "quick" for span in spans)

            assert quick("after.json") > 20 + quick("before.json")
            time.sleep(0.5)
            inside.run("timeline", str(tmp_path / "later.json"))
            assert quick("later.json") < quick("after.json") + 20, "it notes less again"

    def test_a_place_that_cannot_be_written(self, busy: Inside, tmp_path: Path) -> None:
        answer = run("timeline", str(tmp_path / "no" / "trace.json"), "--temp", str(busy.driver.folder))
        assert answer.code == 1
        assert "No such file or directory" in answer.err


class TestWhichRun:
    def test_none(self, tmp_path: Path) -> None:
        for command in ("status", "memory", "stack", "timeline", "metrics"):
            answer = run(command, "--temp", str(tmp_path))
            assert answer.code == 1
            assert f"no driver of yours is running rlray here; looked in {tmp_path}" in answer.err
            assert not answer.out

    def test_several(self, busy: Inside) -> None:
        with driver("print('READY')\ntime.sleep(1000)") as other:
            places = [busy.driver.folder, other.driver.folder]
            runs = find_runs(places)
            assert [one.driver_pid for one in runs] == [other.driver.pid, busy.driver.pid], "the latest first"
            # one folder for both, as it is for drivers that do not choose theirs
            [path] = busy.driver.folder.glob("rlray-*")
            moved = other.driver.folder / path.name
            path.rename(moved)
            try:
                temp = ["--temp", str(other.driver.folder)]
                answer = run("status", *temp)
                assert answer.code == 0
                assert "2 runs; rlray status --run NAME shows one of them" in answer.out
                assert all(f"driver pid {one.driver.pid}" in answer.out for one in (busy, other))
                for command in ("memory", "stack", "timeline", "metrics"):
                    answer = run(command, *temp)
                    assert answer.code == 2
                    assert "2 runs; pick one with --run NAME" in answer.err
                    assert str(busy.driver.pid) in answer.err
                name = path.name.removeprefix("rlray-")
                for which in (name, str(busy.driver.pid)):
                    assert f"run {name}, driver pid {busy.driver.pid}" in run("status", "--run", which, *temp).out
                answer = run("status", "--run", "another", *temp)
                assert answer.code == 2
                assert "there is no run 'another'; there are" in answer.err
            finally:
                moved.rename(path)

    def test_it_is_found_in_tmp_from_a_shell_with_another_place(self, tmp_path: Path) -> None:
        with driver("print('READY')\ntime.sleep(1000)") as inside:
            path = next(inside.driver.folder.glob("rlray-*"))
            name = path.name.removeprefix("rlray-")
            link = Path("/tmp") / path.name
            path.rename(link)
            try:
                assert f"run {name}," in run("status", "--run", name, TMPDIR=str(tmp_path)).out
            finally:
                link.rename(path)

    def test_a_pid_that_was_used_again_is_no_run(self, busy: Inside) -> None:
        [run_file] = busy.driver.folder.glob("rlray-*/run.json")
        text = run_file.read_text()
        run_file.write_text(json.dumps({**json.loads(text), "driver_pid": os.getpid()}))
        try:
            assert find_runs([busy.driver.folder]) == []
        finally:
            run_file.write_text(text)
        assert len(find_runs([busy.driver.folder])) == 1

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"driver_pid": 1, "secret": "zz"}'])
    def test_files_that_tell_nothing(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "rlray-odd").mkdir(mode=0o700)
        (tmp_path / "rlray-odd" / "run.json").write_text(text)
        assert find_runs([tmp_path]) == []


class TestEnds:
    def test_the_run_ends_meanwhile(self) -> None:
        with driver("print('READY')\ntime.sleep(1000)") as inside:
            [found] = find_runs([inside.driver.folder])
            inside.driver.process.kill()
            inside.driver.process.wait()
            assert wait_until(lambda: find_runs([inside.driver.folder]) == [])
            text = f"the run of driver {inside.driver.pid} "
            with pytest.raises(ConnectionError, match=text), Visit(found) as visit:
                visit.inspect("tasks", limit=1)  # its node may need a moment to end, too

    def test_it_ends_while_every_call_is_noted(self, tmp_path: Path) -> None:
        with driver("print('READY')\ntime.sleep(1.5)") as inside:
            answer = run("timeline", str(tmp_path / "x.json"), "--seconds", "60", "--temp", str(inside.driver.folder))
            assert answer.code == 1
            assert f"the run of driver {inside.driver.pid} has ended" in answer.err

    def test_the_node_is_stopped(self, busy: Inside) -> None:
        """Even then the command ends, with a sentence."""
        node = next(
            process.pid
            for process in busy.driver.family()
            if os.path.exists(f"/proc/{process.pid}/fd") and "node.log" in _open_files(process.pid)
        )
        os.kill(node, signal.SIGSTOP)
        try:
            answer = run("status", "--temp", str(busy.driver.folder))
        finally:
            os.kill(node, signal.SIGCONT)
        assert answer.code == 1
        assert f"the run of driver {busy.driver.pid} gave no answer within" in answer.err
        assert "Keeper" in busy.run("status")


def _open_files(pid: int) -> str:
    try:
        return " ".join(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return ""


class TestStrangers:
    def test_what_a_run_says_of_itself_is_private(self, busy: Inside) -> None:
        [file] = busy.driver.folder.glob("rlray-*/run.json")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    def test_without_the_secret_nothing_is_told(self, busy: Inside) -> None:
        [found] = find_runs([busy.driver.folder])
        for secret in (bytes(32), os.urandom(32), found.secret[:-1] + bytes([found.secret[-1] ^ 1])):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(5)
                sock.connect(str(found.directory / "0.sock"))
                sock.sendall(hello(secret, (1 << 32) - 1))
                body = b"\x80\x05\x95"
                with contextlib.suppress(ConnectionError):
                    sock.sendall(len(body).to_bytes(4, "little") + body)
                    assert sock.recv(1) == b""
        assert "Keeper" in busy.run("status")

    def test_a_visitor_cannot_make_anything_run(self, busy: Inside, tmp_path: Path) -> None:
        """It has shown the secret, and sends what a process of the run might send: all of it is dropped."""
        [found] = find_runs([busy.driver.folder])
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(found.directory / "0.sock"))
        sock.sendall(hello(found.secret, (1 << 32) - 1))
        connection = Connection(sock, 0)
        marker = tmp_path / "ran"
        for message in (
            ("stop",),
            ("demand", ((("CPU", 10_000),), b"", -1, False, ""), 1),
            ("kill_worker", 2),
            ("actor_kill", b"", True, "no"),
            ("exited", 2, busy.keeper, "no"),
            ("run", f"touch {marker}"),
            (),
        ):
            connection.send(message)
        time.sleep(0.5)
        connection.close()
        told = json.loads(busy.run("status", "--json"))
        assert told["deaths"] == 1
        assert busy.keeper in [row["pid"] for row in told["processes"]]
        assert not marker.exists()


def test_arguments_that_are_wrong() -> None:
    for arguments, text in (
        (["memory", "--top", "0"], "must be a whole number above 0, got '0'"),
        (["timeline", "--seconds", "-3"], "must be seconds above 0 and at most 3600, got '-3'"),
        (["metrics", "--listen", "70000"], "must be a port, 0 to 65535, got '70000'"),
        (["status", "extra"], "unrecognized arguments: extra"),
    ):
        answer = run(*arguments)
        assert answer.code == 2
        assert text in answer.err


def test_looking_loads_no_learning_and_no_numpy() -> None:
    """It must be quick, and work in any environment in which the run does."""
    from tests.test_import_law import loaded_by

    code = (
        "import rlray.cli.status, rlray.cli.memory, rlray.cli.stack, rlray.cli.serving, rlray.core.samples\n"
        "import rlray.core.local.visit"
    )
    assert not loaded_by(code) & {"torch", "numpy", "pydantic", "rich", "gymnasium", "tensorboard", "zmq"}

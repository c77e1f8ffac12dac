"""``rlray metrics``: the text, and the endpoint that gives it to those who know the token and nobody else."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlray.core.prometheus import Sample, render
from tests.cli.inside_support import BUSY, PATIENCE, Inside, driver, run
from tests.support import needs_proc, wait_until

pytestmark = needs_proc

SERIES = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+)')


@pytest.fixture(scope="module")
def busy() -> Iterator[Inside]:
    with driver(BUSY) as inside:
        yield inside


def parse(text: str) -> dict[str, float]:
    """Series and values, by a reader that forgives nothing."""
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    current = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            assert current not in kinds, f"{current} stands twice"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == current
            assert kind in ("counter", "gauge")
            assert name.endswith("_total") == (kind == "counter"), name
            kinds[name] = kind
        else:
            match = SERIES.fullmatch(line)
            assert match, line
            assert match[1] == current
            assert line.rpartition(" ")[0] not in found, f"twice: {line}"
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def test_the_numbers(busy: Inside) -> None:
    found = parse(busy.run("metrics"))
    assert found['rlray_tasks_finished_total{name="nap"}'] == 20
    assert found['rlray_tasks_failed_total{name="dies"}'] == 1
    assert found['rlray_tasks{name="long nap",state="RUNNING"}'] == 2
    assert found['rlray_tasks{name="queued",state="PENDING_NODE_ASSIGNMENT"}'] == 5
    assert 0.2 <= found['rlray_task_seconds_total{name="nap"}'] < 20
    assert found['rlray_actors{class="Keeper",state="ALIVE"}'] == 2
    assert found['rlray_actors{class="Keeper",state="PENDING_CREATION"}'] == 1
    assert found['rlray_resource_capacity{resource="CPU"}'] == 2
    assert found['rlray_resource_free{resource="CPU"}'] == 0
    assert found["rlray_store_capacity_bytes"] > found["rlray_store_used_bytes"] >= 24_000_000
    assert found['rlray_value_bytes{where="memory"}'] >= 24_000_000
    assert found["rlray_process_deaths_total"] == 1
    assert found["rlray_processes_silent"] == 0
    memory = f'rlray_process_resident_memory_bytes{{pid="{busy.keeper}",process="actor Keeper \'the keeper\'"}}'
    assert found[memory] > 10_000_000
    assert found[f'rlray_process_cpu_seconds_total{{pid="{busy.driver.pid}",process="driver"}}'] > 0
    assert found["rlray_start_time_seconds"] > 1_600_000_000


def test_labels_are_escaped() -> None:
    odd = 'a "quoted"\\\nname'
    text = render([Sample("x", "gauge", "Help.", {"name": odd}, 1.5)])
    assert text == '# HELP x Help.\n# TYPE x gauge\nx{name="a \\"quoted\\"\\\\\\nname"} 1.5\n'
    assert len(parse(text)) == 1


# -- over HTTP -------------------------------------------------------------------------------------------------------


@contextmanager
def listening(inside: Inside, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """The command, its port, and the second line that it prints."""
    command = [sys.executable, "-m", "rlray.cli", "metrics", "--listen", "0", "--temp", str(inside.driver.folder)]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first, second = process.stdout.readline(), process.stdout.readline()
            match = re.fullmatch(r"serving http://127\.0\.0\.1:(\d+)/metrics until the run ends or Ctrl-C\n", first)
            assert match, first
            yield process, int(match[1]), second
        finally:
            process.kill()


def ask(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_token_opens_it_and_nothing_else_does(busy: Inside) -> None:
    with listening(busy) as (_, port, line):
        token = line.split("Authorization: Bearer ")[1].strip()
        assert len(token) >= 40
        good = {"Authorization": f"Bearer {token}"}
        code, text = ask(port, **good)
        assert code == 200
        assert parse(text)['rlray_tasks_finished_total{name="nap"}'] == 20
        for headers in (
            {},
            {"Authorization": token},
            {"Authorization": f"Bearer {token[:-1]}"},
            {"Authorization": f"Bearer {token}x"},
            {"Authorization": "Bearer \xe9"},
        ):
            code, text = ask(port, **headers)
            assert code == 401, headers
            assert "rlray_" not in text
        for host in ("example.org", f"example.org:{port}", "127.0.0.1:1", ""):
            code, text = ask(port, **good, Host=host)
            assert code == 421, host
            assert "rlray_" not in text
        for host in (f"localhost:{port}", "127.0.0.1"):
            assert ask(port, **good, Host=host)[0] == 200
        assert ask(port, "/", **good)[0] == 404
        assert ask(port, "/metrics/../x", **good)[0] == 404
        for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
            assert ask(port, method=method, **good)[0] == 501


def test_it_listens_on_this_machine_only(busy: Inside) -> None:
    with listening(busy) as (process, port, _):
        rows = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
        ]
        addresses = {row[1] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
        assert addresses == {f"0100007F:{port:04X}"}


def test_a_silent_caller_holds_up_nobody(busy: Inside) -> None:
    import socket

    with listening(busy) as (_, port, line):
        token = line.split("Bearer ")[1].strip()
        with socket.create_connection(("127.0.0.1", port)) as quiet:
            quiet.sendall(b"GET /metrics HT")
            assert ask(port, Authorization=f"Bearer {token}")[0] == 200


def test_the_token_of_a_file(busy: Inside, tmp_path: Path) -> None:
    file = tmp_path / "token"
    for _ in range(2):  # it is made, then it is used
        with listening(busy, "--token-file", str(file)) as (_, port, line):
            assert file.stat().st_mode & 0o777 == 0o600
            token = file.read_text()
            assert token not in line
            assert ask(port, Authorization=f"Bearer {token}")[0] == 200
    assert file.read_text() == token
    temp = ["--listen", "0", "--temp", str(busy.driver.folder), "--token-file", str(file)]
    file.chmod(0o644)
    answer = run("metrics", *temp)
    assert (answer.code, answer.err) == (2, f"others may read the token in {file}; chmod 600 {file}\n")
    file.chmod(0o600)
    file.write_text("short")
    answer = run("metrics", *temp)
    assert answer.code == 2
    assert "has no token of 16 characters or more" in answer.err


def test_it_ends_with_ctrl_c_and_with_the_run() -> None:
    with driver("print('READY')\ntime.sleep(1000)") as inside:
        with listening(inside) as (process, _, _):
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        with listening(inside) as (process, _, _):
            inside.driver.process.kill()
            inside.driver.process.wait()
            assert wait_until(lambda: process.poll() is not None, PATIENCE)
            assert process.returncode == 0


def test_a_port_that_is_taken(busy: Inside) -> None:
    with listening(busy) as (_, port, _):
        answer = run("metrics", "--listen", str(port), "--temp", str(busy.driver.folder))
        assert answer.code == 1
        assert "in use" in answer.err

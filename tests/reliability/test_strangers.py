"""Strangers at a real run: it goes on, says so in its logs, and gives nothing away. Single sockets: test_door.py."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlray.core.local.settings import VISITOR
from rlray.core.local.visit import find_runs
from rlray.core.local.wire import encode, hello
from tests.attacks import Bomb, addresses, raw
from tests.support import Driver, Process, descendants, needs_proc, run_driver, wait_until

pytestmark = needs_proc

PROGRAM = """
import os, resource, sys, time
import rlray
{before}
rlray.init(num_cpus=2, log_dir=sys.argv[1])

@rlray.remote
def square(x):
    if x == 2: print("two")  # the socket for what workers print is there as well
    return x * x

@rlray.remote
class Counter:
    def __init__(self): self.n = 0
    def add(self): self.n += 1; return self.n

counter = Counter.remote()
rlray.get([counter.add.remote(), square.remote(2)])
print("READY")
for line in sys.stdin:
    fresh = Counter.remote()  # a process that nobody has called yet
    calls = [*[square.remote(i) for i in range(200)], fresh.add.remote(), rlray.put(b"x" * 200_000)]
    assert rlray.get(calls, timeout=60) == [*[i * i for i in range(200)], 1, b"x" * 200_000]
    print("WORKS", rlray.get(counter.add.remote(), timeout=60))
"""


class Target:
    """A run to be attacked, in processes of its own; `works` has it do something of each kind."""

    def __init__(self, logs: Path, before: str = "") -> None:
        self.logs = logs
        self.driver = Driver(PROGRAM.format(before=before), str(logs), listens=True)
        self.driver.expect("READY")

    def sockets(self) -> list[tuple[str, int]]:
        return addresses(self.driver.pid)

    def works(self) -> None:
        self.driver.say("go")
        self.driver.expect("WORKS", timeout=90)

    def logged(self) -> str:
        """All that is in log files."""
        return "".join(path.read_text(errors="replace") for path in self.logs.iterdir())

    def processes(self) -> dict[int, Process]:
        return {process.pid: process for process in descendants(self.driver.pid)}

    @property
    def directory(self) -> Path:
        [found] = self.driver.folder.glob("rlray-*")
        return found


@pytest.fixture
def target(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Target]:
    target = Target(tmp_path / "logs", getattr(request, "param", ""))
    with target.driver:
        yield target


def test_each_process_logs_the_strangers_that_it_turned_away(target: Target) -> None:
    for address, kind in target.sockets():
        with raw(address, kind) as stranger:
            stranger.sendall(hello(os.urandom(32), 1))
    mine = f"turned away process {os.getpid()}, which called at "
    why = ": it does not know the run's secret"
    names = [Path(address).name for address, _ in target.sockets() if Path(address).stem.isdigit()]
    assert {"0.sock", "1.sock", "2.sock"} <= set(names)
    assert wait_until(lambda: f"{mine}1.sock{why}" in target.driver.output), "the driver's own logging"
    for name in names:
        if name != "1.sock":
            assert wait_until(lambda name=name: f"{mine}{name}{why}" in target.logged()), name
    assert f"WARNING {mine}0.sock{why}" in (target.logs / "node.log").read_text()
    target.works()


def test_a_flood_neither_fills_the_log_nor_stops_anything(target: Target, tmp_path: Path) -> None:
    bomb, rng = pickle.dumps(Bomb(tmp_path / "unpickled")), random.Random(0)
    attacks = 0
    with contextlib.ExitStack() as stack:
        for address, kind in target.sockets() * 40:
            opening = rng.choice([b"", b"rlr1", b"rlr1" + bytes(35), hello(os.urandom(32), 3), rng.randbytes(50), bomb])
            with contextlib.suppress(OSError):
                stack.enter_context(raw(address, kind)).sendall(opening + bomb)
                attacks += 1
        target.works()
    target.works()
    assert attacks > 150
    assert not (tmp_path / "unpickled").exists()
    lines = [*target.logged().splitlines(), *target.driver.output.splitlines()]
    strangers = [line for line in lines if "turned away" in line]
    assert 0 < len(strangers) <= 3 * len(target.sockets()), len(strangers)


LIMITED = "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"


@pytest.mark.parametrize("target", [LIMITED], indirect=True, ids=["100 descriptors"])
def test_more_connections_than_a_process_can_have_descriptors(target: Target) -> None:
    """Strangers that stay take none of those that the run needs, and no processor time."""
    with contextlib.ExitStack() as stack:
        for address, kind in target.sockets():
            for _ in range(250):
                connection = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
                connection.settimeout(0.2)
                with contextlib.suppress(OSError):
                    connection.connect(address)
        target.works()
        target.works()
    target.works()


STARVED = """
import os, resource, sys, threading, time
import rlray
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
rlray.init(num_cpus=4)
nap = rlray.remote(lambda x: time.sleep(0.2) or x)
actor = rlray.remote(type("Echo", (), {"echo": lambda self, x: x}))
first = actor.remote()
assert rlray.get(first.echo.remote(1)) == 1
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
later = [nap.remote(i) for i in range(12)] + [actor.remote().echo.remote(12)]  # on processes that were never called
assert rlray.get(first.echo.remote(2)) == 2
print("STARVED", len(rlray.wait(later, num_returns=13, timeout=1)[0]))
for fd in taken:
    os.close(fd)
assert rlray.get(later, timeout=60) == list(range(13))
print("FED")
"""


def test_calls_of_a_driver_without_descriptors_wait_and_are_not_lost() -> None:
    output = run_driver(STARVED)
    assert "FED" in output
    assert "messages to other processes of the run have to wait: Too many open files" in output


def test_a_node_has_descriptors_for_more_workers_than_the_shell_s_limit() -> None:
    program = """
import resource, rlray
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
rlray.init(num_cpus=1)
actors = [rlray.remote(type("A", (), {"me": lambda self: print("here") or 1})).remote() for _ in range(32)]
print("SUM", sum(rlray.get([actor.me.remote() for actor in actors], timeout=60)))
print("LIMIT", rlray.get(rlray.remote(lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0]).remote()))
"""
    output = run_driver(program)
    assert "SUM 32" in output
    assert "LIMIT 64" in output, "user code has the limit that it was started with"


# -- who knows the secret and talks nonsense ---------------------------------------------------------------------------


def memory_of(process: Process) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("nonsense", "why"),
    [
        (b"\xff\xff\xff\xff" + bytes(100), "announced a message of 4294967295 bytes"),
        (b"\x05\0\0\0hello", "sent what is no message: UnpicklingError"),
        (encode(("no such message", 1)), "the runtime failed on a 'no such message' message"),
        (encode(("inspect",)), None),
        (encode(("inspect", "no such kind", {})), None),
    ],
    ids=["4 GB announced", "no pickle", "an unknown message", "too short a message", "an unknown question"],
)
def test_nonsense_from_one_with_the_secret_is_logged_and_stops_nothing(
    target: Target, nonsense: bytes, why: str | None
) -> None:
    secret = bytes.fromhex(json.loads((target.directory / "run.json").read_text())["secret"])
    sender = VISITOR if why is None or "runtime" not in why else 4242
    for address in (target.directory / "0.sock", target.directory / "1.sock", target.directory / "2.sock"):
        with raw(str(address), socket.SOCK_STREAM) as visitor:
            visitor.sendall(hello(secret, sender) + nonsense)
            if why is not None and "process" not in why and "runtime" not in why:
                assert visitor.recv(1) == b"", "it is cut off"
    if why is not None:
        assert wait_until(lambda: why in (target.logs / "node.log").read_text())
    target.works()


def test_a_large_message_takes_memory_as_it_comes_not_as_it_is_announced(target: Target) -> None:
    secret = bytes.fromhex(json.loads((target.directory / "run.json").read_text())["secret"])
    before = {process: memory_of(process) for process in target.processes().values() if process.running}
    with contextlib.ExitStack() as stack:
        for address, kind in target.sockets():
            if Path(address).stem.isdigit():
                visitor = stack.enter_context(raw(address, kind))
                visitor.sendall(hello(secret, VISITOR) + (1 << 31).to_bytes(4, "little") + bytes(1000))
        target.works()
        grown = {process.command: memory_of(process) - size for process, size in before.items() if process.running}
        assert max(grown.values()) < 100_000_000, grown


SPOILED = """
import time, rlray
from rlray.core import engine
rlray.init(num_cpus=1)
@rlray.remote(max_retries=0)
def spoil(nonsense):
    engine.current().peers._connections[1].write(nonsense)
    time.sleep(60)
for nonsense in (b"\\xff" * 8, b"\\x05\\0\\0\\0hello"):
    try:
        rlray.get(spoil.remote(nonsense), timeout=30)
    except rlray.exceptions.WorkerCrashedError as error:
        print("ENDED", error)
print("WORKS", rlray.get(rlray.remote(lambda: 1).remote(), timeout=30))
"""


def test_a_worker_whose_messages_are_spoiled_is_ended_so_that_nobody_waits_for_it() -> None:
    output = run_driver(SPOILED)
    assert output.count("ENDED spoil failed") == 2
    assert "WORKS 1" in output


# -- what is given away ------------------------------------------------------------------------------------------------

REVEALING = """
import os, sys, time
import numpy as np
import rlray
os.umask(int(sys.argv[2], 8))
rlray.init(num_cpus=1, log_dir=sys.argv[1], object_store_memory=8_000_000)
rlray.get(rlray.remote(lambda: print("hello")).remote())
values = [rlray.put(np.zeros(500_000)) for _ in range(4)]  # some go to disk
from rlray.core import engine
print("SETTINGS", repr(engine.current().settings))
print("SECRET", engine.current().settings.secret.hex())
sys.stdin.read()
"""


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_nobody_else_can_read_anything_and_the_secret_is_nowhere_else(umask: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with Driver(REVEALING, str(logs), umask, listens=True) as driver:
        secret = bytes.fromhex(driver.expect("SECRET"))
        [directory] = driver.folder.glob("rlray-*")
        assert directory.stat().st_mode & 0o777 == 0o700
        entries = [*directory.rglob("*"), *logs.rglob("*")]
        assert any("spilled" in str(entry) for entry in entries)
        open_to_others = [
            f"{entry.stat().st_mode & 0o777:o} {entry}"
            for entry in entries
            if not entry.is_dir() and entry.stat().st_mode & 0o077
        ]
        assert not open_to_others
        shown = [form.encode() for form in (secret.hex(), repr(secret), base64.b64encode(secret).decode())] + [secret]
        files = [entry for entry in entries if entry.is_file() and entry.name != "run.json"]
        for process in [driver.pid, *(process.pid for process in descendants(driver.pid))]:
            files += [Path(f"/proc/{process}/{name}") for name in ("environ", "cmdline", "comm")]
        for file in files:
            with contextlib.suppress(ProcessLookupError):
                content = file.read_bytes()
                assert not any(form in content for form in shown), file
        assert not any(form.decode("latin-1") in driver.output.partition("SECRET")[0] for form in shown)


INHERITED = """
import os, subprocess, sys
import rlray
rlray.init(num_cpus=1)

LIST = [sys.executable, "-S", "-c", '''
import os
for number in os.listdir("/proc/self/fd"):
    if int(number) > 2 and os.path.lexists("/proc/self/fd/" + number):
        print(os.readlink("/proc/self/fd/" + number), end=" ")
''']

def started():
    out = f"/tmp/{os.getpid()}.fds"
    yield subprocess.run(LIST, close_fds=False, capture_output=True, text=True).stdout
    for start in (lambda: os.system(f"'{LIST[0]}' -S -c '{LIST[3]}' > {out}"),
                  lambda: os.waitpid(os.posix_spawn(LIST[0], LIST, os.environ, file_actions=[
                      (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT, 0o600)]), 0)):
        start()
        yield open(out).read()
        os.unlink(out)

@rlray.remote
class Actor:
    def started(self): return list(started())

actor = Actor.remote()
rlray.put(b"x" * 1_000_000)
for where, found in (("driver", list(started())), ("task", rlray.get(rlray.remote(lambda: list(started())).remote())),
                     ("actor", rlray.get(actor.started.remote()))):
    for way, names in zip(("subprocess", "system", "posix_spawn"), found):
        print("INHERITED", where, way, names.strip())
"""


def test_programs_that_user_code_starts_inherit_nothing_of_the_run() -> None:
    output = run_driver(INHERITED)
    rows = [line.split(None, 3) for line in output.splitlines() if line.startswith("INHERITED")]
    assert len(rows) == 9
    for _, where, way, *names in rows:
        ours = [name for name in " ".join(names).split() if "memfd" in name or "socket" in name or "rlray" in name]
        assert not ours, (where, way, ours)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of others")
def test_the_command_line_believes_no_directory_that_somebody_else_has_made(target: Target, tmp_path: Path) -> None:
    """In /tmp anybody can make a directory of any name: what looks like a run there must get no secret of ours."""
    assert [run.directory for run in find_runs([target.driver.folder])] == [target.directory]
    for owner, mode in ((65534, 0o755), (65534, 0o700), (0, 0o777)):
        place = tmp_path / f"{owner}-{mode:o}"
        trap = place / "rlray-trap"
        trap.mkdir(parents=True)
        (trap / "run.json").symlink_to(target.directory / "run.json")
        trap.chmod(mode)
        os.chown(trap, owner, owner)
        assert find_runs([place]) == []
    (tmp_path / "rlray-link").symlink_to(target.directory)
    assert find_runs([tmp_path]) == []
    assert "secret" not in repr(find_runs([target.driver.folder])[0]), sys.executable

"""Every way to start a program: what ``__main__`` defines works in it, and nothing is left 2 s after its end."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

import rlray
from tests.support import MARK, PACKAGE_PARENT, Driver, Process, marked, needs_proc, still_running

pytestmark = needs_proc

PROGRAM = """
import sys
import rlray

class Point:
    def __init__(self, x): self.x = x

class Worse(ValueError):
    pass

def double(x): return 2 * x  # by value, as all of a program's main module

@rlray.remote
def move(point, by): return Point(point.x + double(by))

@rlray.remote
def outer(x): return rlray.get(move.remote(Point(x), 1)).x

@rlray.remote
def fails(): raise Worse("on purpose")

@rlray.remote
class Keeper:
    def __init__(self): self.points = []
    def keep(self, point): self.points.append(point); return len(self.points)
    def last(self): return self.points[-1]

def main():
    rlray.init(num_cpus=2)
    moved = rlray.get(move.remote(Point(1), 2))
    assert type(moved) is Point and moved.x == 5, moved
    assert rlray.get(outer.remote(10)) == 12
    keeper = Keeper.remote()
    assert rlray.get([keeper.keep.remote(rlray.put(Point(i))) for i in range(3)]) == [1, 2, 3]
    assert type(rlray.get(keeper.last.remote())) is Point
    try:
        rlray.get(fails.remote())
    except Worse as error:
        assert "on purpose" in str(error)
    print("GOOD", flush=True)

if __name__ == "__main__":
    main()
"""


def ends_well(driver: Driver, word: str = "GOOD", timeout: float = 60.0) -> str:
    """The program says ``word`` and exits with 0; nothing that it started is there after 2 s. Returns its output."""
    with driver:
        output = driver.finish(timeout)
        assert driver.process.returncode == 0, output
        assert word in output, output
        assert still_running(marked(driver.mark), 2.0) == []
        assert not list(driver.folder.rglob("rlray-*"))
    return output


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return str(path)


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "-X dev",
        "-W error",
        "-OO -B",
        "-E -s -u",
        "-v",
        "-m cProfile",
        "-m trace --count -C out",
        "-m pdb -c continue",
    ],
)
def test_a_script(script: str, flags: str, tmp_path: Path) -> None:
    if flags.startswith("-m pdb"):
        flags += " -c quit"
    if "-E" in flags:  # it does not see PYTHONPATH
        Path(script).write_text(f"import sys; sys.path.insert(0, {str(PACKAGE_PARENT)!r})\n{PROGRAM}")
    output = ends_well(Driver(script, python=tuple(flags.split()), cwd=tmp_path))
    assert "Warning" not in output, "also those that only developers see"


def test_a_script_without_site_packages_or_in_isolation(script: str) -> None:
    places = [str(PACKAGE_PARENT), *(place for place in sys.path if place.endswith("-packages"))]
    Path(script).write_text(f"import sys; sys.path[:0] = {places!r}\n{PROGRAM}")
    for flag in ("-S", "-I"):
        ends_well(Driver(script, python=(flag,)))


def test_command_line_flags_reach_the_workers(script: str) -> None:
    look = "rlray.get(rlray.remote(lambda: (sys.flags.optimize, sys.dont_write_bytecode, sys.warnoptions)).remote())"
    code = f"import rlray, sys; rlray.init(num_cpus=1); print('FLAGS', {look})"
    output = ends_well(Driver(code, python=("-O", "-B", "-Werror::ResourceWarning", "-c")), "FLAGS")
    assert "FLAGS (1, True, ['error::ResourceWarning'])" in output


def test_a_command(tmp_path: Path) -> None:
    ends_well(Driver(PROGRAM))


def test_standard_input(tmp_path: Path) -> None:
    driver = Driver("-", python=(), listens=True)
    driver.say(PROGRAM)
    assert driver.process.stdin is not None
    driver.process.stdin.close()
    ends_well(driver)


def test_a_package_with_relative_imports(tmp_path: Path) -> None:
    package = tmp_path / "game" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "game" / "__init__.py").touch()
    (package / "__init__.py").write_text("import rlray\n\n@rlray.remote\ndef triple(x): return 3 * x\n")
    (tmp_path / "game" / "__main__.py").write_text(
        PROGRAM.replace("def main():", "from .inner import triple\n\ndef main():").replace(
            "    keeper =", "    assert rlray.get(triple.remote(2)) == 6\n    keeper ="
        )
    )
    ends_well(Driver("game", python=("-m",), cwd=tmp_path))


@pytest.mark.parametrize("pack", [False, True], ids=["directory", "zip"])
def test_a_directory_or_a_zip_file_with_modules_in_it(tmp_path: Path, pack: bool) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "__main__.py").write_text(f"import helper\n{PROGRAM}    assert helper.check() == 8\n")
    (app / "helper.py").write_text(
        "import rlray\n\n@rlray.remote\ndef cube(x): return x ** 3\n\ndef check(): return rlray.get(cube.remote(2))\n"
    )
    if pack:
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            for path in app.iterdir():
                archive.write(path, path.name)
    ends_well(Driver(str(tmp_path / "app.zip") if pack else str(app), python=()))


def test_a_directory_with_spaces_and_letters_from_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "mein Spiel ä 遊戯 'quoted\" $HOME"
    folder.mkdir()
    (folder / "programm ß.py").write_text(f"import hilfe\n{PROGRAM}")
    (folder / "hilfe.py").touch()
    ends_well(Driver(str(folder / "programm ß.py"), python=(), cwd=folder, TMPDIR=str(folder)))
    assert not list(folder.glob("rlray-*"))


# -- directories and paths ---------------------------------------------------------------------------------------------


def test_a_current_directory_with_modules_named_as_the_library_s(script: str, tmp_path: Path) -> None:
    """A script does not look for modules in the current directory, so neither may the processes that it starts."""
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("ctypes", "gc", "heapq", "importlib", "logging", "pickle", "queue", "random", "selectors", "shutil",
                 "signal", "socket", "struct", "threading", "cloudpickle", "numpy", "rlray", "pathlib"):  # fmt: skip
        (trap / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')")
    ends_well(Driver(script, python=(), cwd=trap))


RELATIVE = """
import os, sys
{path}
import rlray, nearby
rlray.init(num_cpus=1)
@rlray.remote
def elsewhere():
    os.chdir("/")
    import also_nearby  # not imported before
    return nearby.word() + also_nearby.word()
os.chdir("/")
assert rlray.get(elsewhere.remote()) == "nearalso"
print("GOOD", rlray.get(rlray.remote(nearby.word).remote()))
"""


@pytest.mark.parametrize("way", ["of a command", "inserted", "in PYTHONPATH"])
def test_a_relative_sys_path_holds_after_a_change_of_directory(tmp_path: Path, way: str) -> None:
    place = tmp_path if way == "of a command" else tmp_path / "lib"
    place.mkdir(exist_ok=True)
    (place / "nearby.py").write_text("def word(): return 'near'\n")
    (place / "also_nearby.py").write_text("def word(): return 'also'\n")
    code = RELATIVE.format(path="sys.path.insert(0, 'lib')" if way == "inserted" else "")
    more = {"PYTHONPATH": os.pathsep.join(["lib", str(PACKAGE_PARENT)])} if way == "in PYTHONPATH" else {}
    ends_well(Driver(code, cwd=tmp_path, **more))


def test_a_current_directory_that_has_been_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.rmdir({str(gone)!r})\n" + PROGRAM
    ends_well(Driver(code, cwd=gone))


@pytest.mark.parametrize("name", ["x" * 150, "ü" * 40, "near"], ids=["long", "few letters of many bytes", "relative"])
def test_a_place_for_temporary_files_whose_path_is_long_or_relative(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as short:
        place = Path(short) / name
        place.mkdir()
        ends_well(Driver(PROGRAM, cwd=Path(short), TMPDIR=name if name == "near" else str(place)))
        assert not list(place.iterdir())


def test_a_place_for_temporary_files_that_cannot_be_written_to_is_named_with_the_remedy(script: str) -> None:
    code = """
import tempfile, rlray
tempfile.tempdir = "/proc/self"
try:
    rlray.init(num_cpus=1)
except rlray.exceptions.RaySystemError as error:
    print("REFUSED", error)
assert not rlray.is_initialized()
"""
    output = ends_well(Driver(code), "REFUSED")
    assert "cannot make /proc/self/rlray-" in output
    assert "set the environment variable TMPDIR" in output


def test_a_log_directory_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = f"""
import rlray
try:
    rlray.init(num_cpus=1, log_dir={str(tmp_path / "file" / "logs")!r})
except OSError as error:
    print("REFUSED", error)
"""
    ends_well(Driver(code), "REFUSED")


# -- terminals, daemons ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_as_a_daemon_has_them(script: str, tmp_path: Path, closed: str) -> None:
    report = tmp_path / "report"
    program = PROGRAM.replace(
        '    print("GOOD", flush=True)',
        f"""    move.options(num_cpus=1)
    rlray.get(rlray.remote(lambda: print("a line to nowhere")).remote())
    import os
    assert os.system("exit 3") == 3 << 8
    open({str(report)!r}, "w").write("GOOD")""",
    )
    Path(script).write_text(program)
    code = (
        f"import os, sys; os.execv('/bin/sh', ['sh', '-c', 'exec \"$0\" \"$1\" {closed}', sys.executable, {script!r}])"
    )
    output = ends_well(Driver(code), "")
    assert report.read_text() == "GOOD"
    assert "Traceback" not in output


def test_nohup_outlives_its_terminal(script: str, tmp_path: Path) -> None:
    """The terminal closes: SIGHUP for the program's whole group."""
    program = f"import os, signal, time\n{PROGRAM}    os.killpg(os.getpgrp(), signal.SIGHUP)\n    main()\n"
    Path(script).write_text(
        program.replace("    rlray.init(num_cpus=2)", "    rlray.init(num_cpus=2, ignore_reinit_error=True)")
    )
    code = f"import os, sys; os.execvp('nohup', ['nohup', sys.executable, {script!r}])"
    assert ends_well(Driver(code)).count("GOOD") == 2


class Terminal:
    """A program on a terminal of its own, as a person has it."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.mark = os.urandom(8).hex()
        ours, theirs = pty.openpty()
        self._screen = ours
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), MARK: self.mark, "TERM": "dumb", **environment},
        )
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def sees(self, text: str, seconds: float = 30.0) -> None:
        """Wait until ``text`` is shown; what was shown up to there counts as seen."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._screen], [], [], 0.1)[0]:
                with suppress(OSError):  # its last process has gone
                    self.shown += os.read(self._screen, 4096).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def close(self) -> set[Process]:
        """Hang up; returns the processes that came of it."""
        family = marked(self.mark)
        os.close(self._screen)
        self.process.wait(30)
        return family


def test_an_interactive_interpreter() -> None:
    terminal = Terminal("-i", "-q", "-u", PYTHON_BASIC_REPL="1")
    try:
        terminal.sees(">>>")
        terminal.type("import rlray; _ = rlray.init(num_cpus=2)\n")
        terminal.type("def twice(x): return 2 * x\n\n")
        terminal.type("rlray.get(rlray.remote(twice).remote(21))\n")
        terminal.sees("42")
        terminal.type("def twice(x): return 200 * x\n\n")
        terminal.type("rlray.get(rlray.remote(twice).remote(21))\n")
        terminal.sees("4200")
        terminal.type("import time; rlray.get(rlray.remote(lambda: time.sleep(60)).remote())\n")
        time.sleep(0.5)
        terminal.type("\x03")
        terminal.sees("KeyboardInterrupt")
        terminal.type("rlray.get(rlray.remote(lambda: print('from', 'a worker')).remote())\n")
        terminal.sees("from a worker")
        terminal.type("exit()\n")
        terminal.process.wait(30)
        assert terminal.process.returncode == 0
    finally:
        terminal.process.kill()
        family = terminal.close()
    assert still_running(family, 2.0) == []


def test_a_terminal_that_is_closed_under_a_program(script: str) -> None:
    Path(script).write_text(f"{PROGRAM}    import time; time.sleep(60)\n")
    terminal = Terminal(script)
    try:
        terminal.sees("GOOD")
    finally:
        family = terminal.close()
    assert len(family) > 3
    assert still_running(family, 2.0) == []


# -- other packages ----------------------------------------------------------------------------------------------------


def test_torch_imported_after_the_start() -> None:
    """The other order: test_the_process_that_forks_workers_has_one_thread_and_no_cuda."""
    code = """
import rlray
rlray.init(num_cpus=1)
import torch
add = rlray.remote(lambda x: (x + 1, torch.get_num_threads()))
value, threads = rlray.get(add.remote(torch.zeros(50_000)))
assert value.sum() == 50_000 and threads == 1, (value, threads)
print("GOOD")
"""
    ends_well(Driver(code))


def test_xdist_runs_tests_that_each_have_a_runtime(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import os, time
import pytest, rlray

@pytest.fixture(scope="module", autouse=True)
def runtime():
    rlray.init(num_cpus=1)
    keeper = Keeper.options(name="the same in both").remote()
    yield
    rlray.shutdown()

class Point:
    pass

@rlray.remote
class Keeper:
    def get(self): return Point()

@pytest.mark.parametrize("number", range(6))
def test_of_many(number):
    assert isinstance(rlray.get(rlray.get_actor("the same in both").get.remote()), Point)
    assert rlray.get(rlray.remote(lambda x: time.sleep(0.2) or x + 1).remote(number)) == number + 1
    print("RAN IN", os.environ["PYTEST_XDIST_WORKER"], rlray.get_runtime_context().get_job_id())
""")
    arguments = ["-n", "2", "-q", "-rP", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]
    output = ends_well(Driver("pytest", *arguments, python=("-m",), cwd=tmp_path), "6 passed")
    ran = {tuple(line.split()[2:]) for line in output.splitlines() if line.startswith("RAN IN")}
    assert {worker for worker, _ in ran} == {"gw0", "gw1"}
    assert len(ran) == 2, "each has a run of its own"


# -- several at once ---------------------------------------------------------------------------------------------------

NEIGHBOUR = """
import os, sys, time
import rlray
rlray.init(num_cpus=1)
me = sys.argv[1]
actor = rlray.remote(type("Named", (), {"whose": lambda self: me})).options(name="same name").remote()
print("STARTED")
count = 0
for line in sys.stdin:
    if line == "end\\n":
        break
    value, other = rlray.remote(lambda: me).remote(), rlray.get_actor("same name").whose.remote()
    print("ANSWER", *rlray.get([value, other], timeout=30), rlray.cluster_resources()["CPU"])
"""


def test_four_drivers_whose_beginnings_and_ends_overlap(tmp_path: Path) -> None:
    """In one directory for temporary files; each knows nothing of the others, also when one of them is killed."""

    def ask(driver: Driver, name: str) -> None:
        driver.say("answer")
        assert driver.expect("ANSWER") == f"{name} {name} 1.0"

    def start(name: str) -> Driver:
        return Driver(NEIGHBOUR, name, listens=True, TMPDIR=str(tmp_path))

    with start("a") as a, start("b") as b:
        a.expect("STARTED")
        with start("c") as c:
            b.expect("STARTED")
            for name, driver in (("a", a), ("b", b)):
                ask(driver, name)
            c.expect("STARTED")
            a.say("end")
            ask(b, "b")
            with start("d") as d:
                a.finish()
                ask(c, "c")
                killed = c.family()
                c.process.kill()
                d.expect("STARTED")
                for name, driver in (("b", b), ("d", d)):
                    ask(driver, name)
                assert still_running(killed, 2.0) == []
                b.say("end")
                ask(d, "d")
                b.finish()
                ask(d, "d")
                d.say("end")
                d.finish()
    assert not list(tmp_path.iterdir())


# -- what importing and starting leave alone ---------------------------------------------------------------------------

UNTOUCHED = """
import gc
gc.disable()
import multiprocessing, os, signal, sys, threading, time
import numpy  # which starts threads of its own
def state():
    return (
        multiprocessing.get_start_method(allow_none=True),
        threading.enumerate(),
        len(os.listdir("/proc/self/task")),
        {number: signal.getsignal(number) for number in signal.valid_signals()},
        sys.excepthook, threading.excepthook, sys.getswitchinterval(), sys.stdout, sys.stderr,
        dict(os.environ), os.getcwd(), os.umask(0o22), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0),
    )
before = state()
descriptors = len(os.listdir("/proc/self/fd"))
import rlray, rlray.util, rlray.core.api
assert state() == before, (state(), before)
assert len(os.listdir("/proc/self/fd")) == descriptors and not open("/proc/self/task/%d/children" % os.getpid()).read()
for _ in range(2):
    rlray.init(num_cpus=1)
    inside = state()
    large = rlray.put(bytes(30_000_000))
    assert rlray.get(rlray.remote(lambda: multiprocessing.get_start_method(allow_none=True)).remote()) is None
    handlers = {number for number in before[3] if inside[3][number] != before[3][number]}
    assert inside[0] is None and handlers == {signal.SIGINT} and inside[7:] == before[7:], inside
    rlray.shutdown()
    assert "RssShmem:\\t       0 kB" in open("/proc/self/status").read(), "the memory is free without a collection"
    deadline = time.monotonic() + 5  # the kernel takes a moment to end a thread
    while (after := state()) != before and time.monotonic() < deadline: time.sleep(0.01)
    assert after == before, [pair for pair in zip(after, before) if pair[0] != pair[1]]
    assert len(os.listdir("/proc/self/fd")) == descriptors
print("GOOD")
"""


def test_import_starts_nothing_and_a_run_changes_nothing_for_the_rest_of_the_program() -> None:
    """No thread, process, descriptor, signal handler or start method of the program is another one afterwards."""
    ends_well(Driver(UNTOUCHED))


def threads_of(process: Process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/task"))


def test_the_process_that_forks_workers_has_one_thread_and_no_cuda(tmp_path: Path) -> None:
    """Also when the driver has threads and torch, and workers are forked with torch in them."""
    code = """
import sys, threading, time
import torch
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
torch.ones(1000, 1000) @ torch.ones(1000, 1000)
import rlray
rlray.init(num_cpus=1, preload=["torch"])
@rlray.remote
def look():
    import os
    gpus = os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.is_available(), torch.cuda.is_initialized()
    return "torch" in sys.modules, *gpus
print("SEEN", rlray.get(look.remote()))
print("ACTOR", rlray.get(rlray.remote(type("A", (), {"look": lambda self: look._function()})).remote().look.remote()))
sys.stdin.read()
"""
    with Driver(code, listens=True) as driver:
        assert driver.expect("SEEN", timeout=60) == "(True, '', False, False)"
        assert driver.expect("ACTOR") == "(True, '', False, False)"
        [zygote] = [
            process for process in marked(driver.mark) if "zygote" in process.command and forks(process, driver)
        ]
        assert threads_of(zygote) == 1
        maps = Path(f"/proc/{zygote.pid}/maps").read_text()
        assert "/dev/nvidia" not in maps
        assert not [
            fd for fd in os.listdir(f"/proc/{zygote.pid}/fd") if "nvidia" in os.readlink(f"/proc/{zygote.pid}/fd/{fd}")
        ]


def forks(process: Process, driver: Driver) -> bool:
    seen = process.stat()
    return seen is not None and seen[1] == driver.pid


@pytest.mark.usefixtures("fresh")
def test_a_function_that_captures_too_much_is_refused_with_the_remedy() -> None:
    lump = bytes(101_000_000)
    with pytest.raises(
        ValueError, match=r"takes 101 MB to send, and 100 are the most.*put\(\) that and pass the reference"
    ):
        rlray.remote(lambda: lump).remote()

"""How actors begin and end: failing constructors, kill, crashes, restarts, handles that go out of scope."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.exceptions import ActorDiedError, RayActorError
from tests.support import needs_proc, wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
class Worker:
    def __init__(self, start: int = 0, log: Path | None = None) -> None:
        if log is not None:
            with log.open("a") as file:
                file.write("begun\n")
        self.value = start

    def add(self) -> int:
        self.value += 1
        return self.value

    def pid(self) -> int:
        return os.getpid()

    def nap(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def die(self, how: int = signal.SIGKILL) -> None:
        os.kill(os.getpid(), how)
        time.sleep(30)

    def leave(self) -> None:
        os._exit(7)

    def reconstructed(self) -> bool:
        return rlray.get_runtime_context().was_current_actor_reconstructed


@rlray.remote
class Broken:
    def __init__(self, text: str) -> None:
        raise ValueError(f"constructor says {text}")

    def call(self) -> int:
        return 1


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def call_until_alive(actor: Any) -> int:
    """``add`` once the actor is back from a restart."""

    def attempt() -> int:
        try:
            return rlray.get(actor.add.remote(), timeout=10)
        except RayActorError:
            return 0

    return wait_until(attempt, 20)


def test_a_failing_constructor_shows_at_the_first_call() -> None:
    actor = Broken.remote("no")
    with pytest.raises(ActorDiedError, match="constructor says no") as caught:
        rlray.get(actor.call.remote(), timeout=20)
    assert "__init__" in str(caught.value)
    assert "Broken" in str(caught.value)
    with pytest.raises(RayActorError, match="constructor says no"):
        rlray.get(actor.call.remote(), timeout=20)


def test_a_constructor_whose_argument_failed() -> None:
    def fail() -> None:
        raise KeyError("argument")

    actor = Worker.remote(rlray.remote(fail).remote())
    with pytest.raises(RayActorError, match="argument"):
        rlray.get(actor.add.remote(), timeout=20)


@pytest.mark.processes
def test_kill_ends_it_now() -> None:
    actor = Worker.remote()
    pid = rlray.get(actor.pid.remote())
    running = actor.nap.remote(60)
    rlray.kill(actor)
    for ref in (running, actor.add.remote()):
        with pytest.raises(RayActorError, match=r"(?i)kill"):
            rlray.get(ref, timeout=10)
    assert wait_until(lambda: not alive(pid), 5)


def test_kill_of_an_actor_that_has_not_begun() -> None:
    actor = Worker.remote(rlray.remote(lambda: time.sleep(1.0) or 1).remote())
    rlray.kill(actor)
    with pytest.raises(RayActorError):
        rlray.get(actor.add.remote(), timeout=10)


def test_kill_twice_is_harmless_and_takes_only_actors() -> None:
    actor = Worker.remote()
    rlray.get(actor.add.remote())
    rlray.kill(actor)
    rlray.kill(actor)
    with pytest.raises((TypeError, ValueError), match=r"(?i)actor"):
        rlray.kill(rlray.put(1))


@pytest.mark.differs("ray", "Ray does not tell how a process died")
@pytest.mark.processes
@pytest.mark.parametrize(
    ("how", "named"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")], ids=["SIGKILL", "SIGSEGV"]
)
def test_a_crash_names_the_class_and_the_signal(how: int, named: str) -> None:
    actor = Worker.remote()
    with pytest.raises(RayActorError, match=named) as caught:
        rlray.get(actor.die.remote(how), timeout=20)
    assert "Worker" in str(caught.value)
    with pytest.raises(ActorDiedError):
        rlray.get(actor.add.remote(), timeout=20)


@pytest.mark.differs("ray", "Ray does not tell how a process died")
@pytest.mark.processes
def test_os_exit_names_the_code() -> None:
    with pytest.raises(RayActorError, match=r"\b7\b"):
        rlray.get(Worker.remote().leave.remote(), timeout=20)


@pytest.mark.differs("ray", "Ray does not tell how a process died")
@pytest.mark.processes
def test_killed_from_outside_while_idle() -> None:
    actor = Worker.remote()
    os.kill(rlray.get(actor.pid.remote()), signal.SIGKILL)

    def call_on() -> None:
        while True:
            rlray.get(actor.add.remote(), timeout=20)

    with pytest.raises(RayActorError, match="SIGKILL"):
        call_on()


def test_results_of_a_dead_actor_stay() -> None:
    actor = Worker.remote(4)
    ref = actor.add.remote()
    rlray.wait([ref])
    rlray.kill(actor)
    assert rlray.get(ref, timeout=10) == 5


@pytest.mark.processes
def test_every_queued_call_fails_when_the_actor_dies() -> None:
    actor = Worker.remote()
    refs = [actor.die.remote()] + [actor.add.remote() for _ in range(20)]
    for ref in refs:
        with pytest.raises(RayActorError):
            rlray.get(ref, timeout=20)


@pytest.mark.processes
def test_restarts_with_fresh_state_as_often_as_allowed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    actor = Worker.options(max_restarts=2).remote(10, log)
    for life in range(3):
        assert call_until_alive(actor) == 11
        assert rlray.get([actor.add.remote(), actor.reconstructed.remote()]) == [12, life > 0]
        with pytest.raises(RayActorError):
            rlray.get(actor.die.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        rlray.get(actor.add.remote(), timeout=20)
    assert log.read_text().count("begun") == 3


@pytest.mark.processes
def test_restarts_for_ever_with_minus_one() -> None:
    actor = Worker.options(max_restarts=-1).remote()
    for _ in range(4):
        assert call_until_alive(actor) == 1
        os.kill(rlray.get(actor.pid.remote()), signal.SIGKILL)


@pytest.mark.processes
def test_task_retries_bridge_a_restart(tmp_path: Path) -> None:
    """With ``max_task_retries`` a call in flight is run again by the next life; the caller sees no error."""
    marker = tmp_path / "died"

    @rlray.remote(max_restarts=1, max_task_retries=1)
    class Fragile:
        def work(self, i: int) -> int:
            if i == 3 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return i

    actor = Fragile.remote()
    assert rlray.get([actor.work.remote(i) for i in range(6)], timeout=30) == list(range(6))


@pytest.mark.processes
def test_kill_without_no_restart_restarts() -> None:
    actor = Worker.options(max_restarts=1).remote(5)
    first, _ = rlray.get([actor.pid.remote(), actor.add.remote()])
    rlray.kill(actor, no_restart=False)

    def reborn() -> bool:
        try:
            return bool(rlray.get(actor.pid.remote(), timeout=10) != first)
        except RayActorError:
            return False

    assert wait_until(reborn, 20)
    assert rlray.get(actor.add.remote()) == 6
    rlray.kill(actor)
    with pytest.raises(RayActorError):
        rlray.get(actor.add.remote(), timeout=10)


@needs_proc
@pytest.mark.processes
def test_ends_when_the_last_handle_goes() -> None:
    actor = Worker.remote()
    pid = rlray.get(actor.pid.remote())
    inside = rlray.put([actor])
    del actor
    time.sleep(0.5)
    assert alive(pid), "a handle inside a put value counts"
    assert rlray.get(rlray.get(inside)[0].add.remote()) == 1
    del inside
    assert wait_until(lambda: not alive(pid), 5)


@needs_proc
def test_calls_made_before_the_last_handle_went_are_carried_out() -> None:
    ref = Worker.remote(1).add.remote()
    assert rlray.get(ref, timeout=20) == 2
    slow = Worker.remote().nap.remote(0.5)
    assert rlray.get(slow, timeout=20) == 0.5


def test_many_short_lives() -> None:
    for i in range(15):
        assert rlray.get(Worker.remote(i).add.remote(), timeout=20) == i + 1


# -- leaving of one's own accord -------------------------------------------------------------------------------------


@rlray.remote(max_restarts=2, max_task_retries=2)
class Leaver:
    """A method that leaves, in an ordinary actor or, with ``max_concurrency``, in one with threads."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def leave(self) -> None:
        rlray.actor.exit_actor()

    def write(self, path: Path, text: str) -> str:
        with path.open("a") as file:
            file.write(text)
        return text

    def write_at_exit(self, path: Path) -> None:
        atexit.register(path.write_text, "bye")

    def hold(self) -> str:
        self.gate.wait(30)
        return "held"

    def release(self, after: float) -> None:
        threading.Timer(after, self.gate.set).start()

    def leave_in_a_generator(self) -> Iterator[int]:
        yield 1
        rlray.actor.exit_actor()

    def pid(self) -> int:
        return os.getpid()


@rlray.remote(max_restarts=2, max_task_retries=2)
class AsyncLeaver:
    """The same with coroutines."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def leave(self) -> None:
        rlray.actor.exit_actor()

    async def write(self, path: Path, text: str) -> str:
        with path.open("a") as file:
            file.write(text)
        return text

    async def write_at_exit(self, path: Path) -> None:
        atexit.register(path.write_text, "bye")

    async def hold(self) -> str:
        await self.gate.wait()
        return "held"

    async def release(self, after: float) -> None:
        asyncio.get_running_loop().call_later(after, self.gate.set)

    async def leave_in_a_generator(self) -> AsyncIterator[int]:
        yield 1
        rlray.actor.exit_actor()

    async def pid(self) -> int:
        return os.getpid()


LEAVERS = {"sync": Leaver, "threads": Leaver.options(max_concurrency=3), "async": AsyncLeaver}
every_leaver = pytest.mark.parametrize("kind", LEAVERS)


@every_leaver
@pytest.mark.processes
def test_exit_actor_ends_it_for_good(kind: str) -> None:
    """Whatever ``max_restarts`` and ``max_task_retries`` say."""
    actor = LEAVERS[kind].remote()
    pid = rlray.get(actor.pid.remote(), timeout=20)
    with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
        rlray.get(actor.leave.remote(), timeout=20)
    with pytest.raises(ActorDiedError, match=r"exit_actor\(\)"):
        rlray.get(actor.pid.remote(), timeout=20)
    assert wait_until(lambda: not alive(pid), 10)


def test_exit_actor_with_calls_before_and_behind(tmp_path: Path) -> None:
    """Those before are carried out, those behind are not."""
    log, actor = tmp_path / "log", Leaver.remote()
    before = [actor.write.remote(log, "b") for _ in range(20)]
    leaving = actor.leave.remote()
    behind = [actor.write.remote(log, "x") for _ in range(20)]
    assert rlray.get(before, timeout=20) == ["b"] * 20
    for ref in (leaving, *behind):
        with pytest.raises(ActorDiedError, match="exit_actor"):
            rlray.get(ref, timeout=20)
    assert log.read_text() == "b" * 20


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_calls_under_way_end_before_the_actor_does(kind: str, tmp_path: Path) -> None:
    log, actor = tmp_path / "log", LEAVERS[kind].remote()
    held = actor.hold.remote()
    rlray.get(actor.release.remote(0.5), timeout=20)
    leaving = actor.leave.remote()
    with pytest.raises(ActorDiedError):
        rlray.get(leaving, timeout=20)
    late = actor.write.remote(log, "x")
    assert rlray.get(held, timeout=20) == "held"
    with pytest.raises(ActorDiedError):
        rlray.get(late, timeout=20)
    assert not log.exists()


@pytest.mark.differs("ray", "the stream of an asynchronous actor that exits has no more to say")
@every_leaver
def test_exit_actor_inside_a_generator(kind: str) -> None:
    first, last = list(LEAVERS[kind].remote().leave_in_a_generator.remote())
    assert rlray.get(first) == 1
    with pytest.raises(ActorDiedError, match="exit_actor"):
        rlray.get(last, timeout=20)


@every_leaver
@pytest.mark.processes
def test_functions_registered_with_atexit_run(kind: str, tmp_path: Path) -> None:
    actor = LEAVERS[kind].remote()
    rlray.get(actor.write_at_exit.remote(tmp_path / "note"), timeout=20)
    pid = rlray.get(actor.pid.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        rlray.get(actor.leave.remote(), timeout=20)
    assert wait_until(lambda: not alive(pid), 10)
    assert (tmp_path / "note").read_text() == "bye"


@pytest.mark.differs("ray", "a name is free a moment later")
def test_exit_actor_frees_its_name_and_resources() -> None:
    actor = Leaver.options(name="leaver", num_cpus=4).remote()
    with pytest.raises(ActorDiedError):
        rlray.get(actor.leave.remote(), timeout=20)
    again = Leaver.options(name="leaver", num_cpus=4).remote()
    assert rlray.get(again.pid.remote(), timeout=20)
    rlray.kill(again)


def test_exit_actor_outside_of_an_actor() -> None:
    with pytest.raises(TypeError, match="outside of an actor"):
        rlray.actor.exit_actor()
    with pytest.raises(TypeError, match="outside of an actor"):
        rlray.get(rlray.remote(lambda: rlray.actor.exit_actor()).remote(), timeout=20)


@pytest.mark.differs("ray", "Ray says exit_actor(), and threads end with it")
@every_leaver
def test_terminate_lets_earlier_calls_finish(kind: str, tmp_path: Path) -> None:
    log, actor = tmp_path / "log", LEAVERS[kind].remote()
    earlier = [actor.write.remote(log, "b") for _ in range(20)]
    end = actor.__ray_terminate__.remote()
    behind = actor.write.remote(log, "x")
    assert rlray.get(earlier, timeout=20) == ["b"] * 20
    with pytest.raises(ActorDiedError, match="__ray_terminate__"):
        rlray.get(end, timeout=20)
    if kind == "sync":  # with threads and coroutines calls that are made together may start together
        with pytest.raises(ActorDiedError, match="__ray_terminate__"):
            rlray.get(behind, timeout=20)
        assert log.read_text() == "b" * 20
    with pytest.raises(ActorDiedError, match="__ray_terminate__"):
        rlray.get(actor.pid.remote(), timeout=20)


def test_ready_and_call() -> None:
    actor = Worker.remote(3)
    assert rlray.get(actor.__ray_ready__.remote(), timeout=20) is True
    assert rlray.get(actor.__ray_call__.remote(lambda self, more: self.value + more, 4), timeout=20) == 7
    with pytest.raises(ActorDiedError, match="constructor says no"):
        rlray.get(Broken.remote("no").__ray_ready__.remote(), timeout=20)

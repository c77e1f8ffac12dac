"""Actors found by name, in namespaces."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

import rlray
from rlray.exceptions import RayActorError
from tests.support import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
class Register:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def name(self) -> str:
        return str(rlray.get_runtime_context().get_actor_name())

    def pid(self) -> int:
        return os.getpid()


def known(name: str, **where: str) -> bool:
    try:
        rlray.get_actor(name, **where)
    except ValueError:
        return False
    return True


def test_found_by_name_in_driver_task_and_actor() -> None:
    actor = Register.options(name="findable").remote(1)
    assert rlray.get(rlray.get_actor("findable").add.remote()) == 2
    assert rlray.get(rlray.remote(lambda: rlray.get(rlray.get_actor("findable").add.remote())).remote()) == 3
    assert rlray.get_actor("findable") == actor
    assert rlray.get(actor.name.remote()) == "findable"


def test_found_at_once_though_its_constructor_is_slow() -> None:
    @rlray.remote
    class Slow:
        def __init__(self) -> None:
            time.sleep(0.5)

        def ok(self) -> bool:
            return True

    actor = Slow.options(name="slow to begin").remote()
    assert rlray.get(rlray.get_actor("slow to begin").ok.remote(), timeout=20)
    del actor


def test_an_unknown_name_is_a_value_error_that_says_it() -> None:
    with pytest.raises(ValueError, match="nobody has this name"):
        rlray.get_actor("nobody has this name")


@pytest.mark.parametrize(("name", "kind"), [("", ValueError), (5, TypeError)])
def test_bad_names(name: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="name"):
        Register.options(name=name).remote()


def test_a_taken_name_is_a_value_error() -> None:
    actor = Register.options(name="taken").remote()
    with pytest.raises(ValueError, match="taken") as caught:
        Register.options(name="taken").remote()
    assert isinstance(caught.value, rlray.exceptions.ActorAlreadyExistsError)
    assert rlray.get(actor.add.remote()) == 1


def test_namespaces_keep_names_apart() -> None:
    here, there = Register.options(name="twin").remote(1), Register.options(name="twin", namespace="there").remote(10)
    assert rlray.get(rlray.get_actor("twin").add.remote()) == 2
    assert rlray.get(rlray.get_actor("twin", namespace="there").add.remote()) == 11
    assert rlray.get(there.name.remote()) == "twin"
    with pytest.raises(ValueError, match="twin"):
        rlray.get_actor("twin", namespace="nowhere")
    del here


def test_get_if_exists() -> None:
    first = Register.options(name="shared", get_if_exists=True).remote(5)
    second = Register.options(name="shared", get_if_exists=True).remote(99)
    assert first == second
    assert rlray.get([first.add.remote(), second.add.remote()]) == [6, 7]
    with pytest.raises(ValueError, match="name"):
        Register.options(get_if_exists=True).remote()


def test_get_if_exists_by_many_at_once() -> None:
    @rlray.remote
    def join() -> int:
        actor = Register.options(name="crowd", get_if_exists=True, lifetime="detached").remote()
        return int(rlray.get(actor.add.remote()))

    assert sorted(rlray.get([join.remote() for _ in range(8)], timeout=60)) == list(range(1, 9))
    rlray.kill(rlray.get_actor("crowd"))


def test_the_name_is_free_again_after_death() -> None:
    for i in range(3):
        actor = Register.options(name="phoenix").remote(i)
        assert rlray.get(actor.add.remote()) == i + 1
        rlray.kill(actor)
        assert wait_until(lambda: not known("phoenix"), 5)


def test_a_name_does_not_keep_an_actor_alive() -> None:
    actor = Register.options(name="mortal").remote()
    rlray.get(actor.add.remote())
    del actor
    assert wait_until(lambda: not known("mortal"), 5)


def test_a_detached_actor_outlives_its_handles() -> None:
    rlray.get(Register.options(name="detached", lifetime="detached").remote(3).add.remote())
    time.sleep(0.3)
    again = rlray.get_actor("detached")
    assert rlray.get(again.add.remote()) == 5
    rlray.kill(again)

    def call_on() -> None:
        while True:  # on Ray calls may be in time before the process hears of its end
            rlray.get(again.add.remote(), timeout=10)

    with pytest.raises(RayActorError):
        call_on()


@pytest.mark.processes
def test_a_named_actor_keeps_its_name_through_a_restart() -> None:
    actor = Register.options(name="restarted", max_restarts=1, max_task_retries=1).remote(1)
    os.kill(rlray.get(actor.pid.remote()), 9)
    assert rlray.get(rlray.get_actor("restarted").add.remote(), timeout=20) == 2

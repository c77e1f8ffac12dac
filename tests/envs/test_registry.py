"""Registered names, and their way into another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray.envs import make_spec, make_vec, register, registered, registry
from tests.envs.toys import Counting


@pytest.fixture(autouse=True)
def _own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_names", {})


def first_reward(env: Any, **settings: Any) -> float:
    vec = make_vec(env, 1, seed=0, settings=settings)
    vec.reset()
    return float(vec.step(np.array([2])).reward[0])


def test_a_name_stands_for_a_factory_and_its_defaults() -> None:
    register("me/Count-v0", Counting, offset=100.0)
    assert first_reward("me/Count-v0") == 121.0
    assert first_reward("me/Count-v0", offset=5.0) == 26.0
    assert registered()["me/Count-v0"].defaults == {"offset": 100.0}
    assert make_spec("me/Count-v0").id == "me/Count-v0"


@pytest.mark.parametrize("target", ["tests.envs.toys:Counting", Counting, lambda offset: Counting(offset)])
def test_a_name_may_stand_for_whatever_make_vec_takes(target: Any) -> None:
    register("a", target, offset=1.0)
    register("b", "a", offset=2.0)
    register("c", "b")
    assert [first_reward(name) for name in "abc"] == [22.0, 23.0, 23.0]


def test_a_name_for_an_id_with_settings() -> None:
    register("lander", "LunarLander-v3", continuous=True)
    assert make_spec("lander").action_space.shape == (2,)
    assert make_spec("lander", {"continuous": False}).action_space.shape == ()
    register("quick", "rlray/Pong-v0", obs="pixels")
    assert make_spec("quick").frame_stack == 4


def test_registering_again_replaces_and_wins_over_gymnasium() -> None:
    register("CartPole-v1", Counting, offset=1.0)
    register("CartPole-v1", Counting, offset=2.0)
    assert first_reward("CartPole-v1") == 23.0


def test_the_table_cannot_be_changed_from_outside() -> None:
    registered()["x"] = registry.Registration(Counting)
    assert registered() == {}


def test_unknown_names_come_near_to_registered_ones() -> None:
    register("my-maze", Counting)
    with pytest.raises(ValueError, match="unknown environment 'my-mace'; did you mean 'my-maze'"):
        make_vec("my-mace", 1)


def test_names_in_a_circle_are_an_error() -> None:
    register("a", "b")
    register("b", "a")
    with pytest.raises(ValueError, match="stand for each other: a -> b -> a"):
        make_vec("a", 1)


@pytest.mark.parametrize(
    ("name", "factory", "kind", "text"),
    [
        (3, Counting, TypeError, "name must be a string, got 3"),
        ("", Counting, ValueError, "name must not be empty"),
        (" x", Counting, ValueError, "not begin or end with a space, got ' x'"),
        ("x", 3, TypeError, "factory of 'x' must be a class, a function or a string, got 3"),
        ("x", "x", ValueError, "'x' cannot stand for itself"),
    ],
)
def test_what_cannot_be_registered(name: Any, factory: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        register(name, factory)


DRIVER = """
import sys
import cloudpickle, gymnasium, numpy as np
from gymnasium import spaces
from rlray.envs import export_registry, register

class Mine(gymnasium.Env):
    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)
    def __init__(self, start=0.0): self.start = start
    def reset(self, *, seed=None, options=None): return np.array([self.start], np.float32), {}
    def step(self, action): return np.array([1.0], np.float32), float(action), True, False, {}

register("mine", Mine, start=4.0)
register("alias", "mine", start=5.0)
gymnasium.register("Mine-v7", entry_point=Mine, kwargs={"start": 6.0})
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump(export_registry(), file)
"""

WORKER = """
import pickle, sys
from rlray.envs import install_registry, make_vec, registered
with open(sys.argv[1], "rb") as file:
    table = pickle.load(file)
assert not registered()
install_registry(table)
print([float(make_vec(name, 2, seed=0).reset()[1, 0]) for name in ("mine", "alias", "Mine-v7")])
print(len(table.gymnasium))
"""


def test_the_table_reaches_a_fresh_process(tmp_path: Path) -> None:
    """Classes of the script itself, names for names, and what the script gave to gymnasium."""
    table = tmp_path / "table"
    for name, text in (("driver.py", DRIVER), ("worker.py", WORKER)):
        (tmp_path / name).write_text(text)
    outputs = [
        subprocess.run([sys.executable, tmp_path / name, table], capture_output=True, text=True, timeout=60)
        for name in ("driver.py", "worker.py")
    ]
    assert [each.returncode for each in outputs] == [0, 0], [each.stderr for each in outputs]
    assert outputs[1].stdout.split("\n")[:2] == ["[4.0, 5.0, 6.0]", "1"]

"""The bundled Pong as a `gymnasium.Env`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rlray.envs
from rlray.envs.pong import PongEnv

assert rlray.envs, "registers the id with gymnasium"


@pytest.mark.parametrize("settings", [{}, {"obs": "pixels"}, {"obs": "pixels", "frame_stack": 1, "frame_skip": 1}])
def test_gymnasiums_checker_finds_nothing(settings: dict[str, Any]) -> None:
    """Warnings are errors in these tests, so it does not warn either."""
    env = gymnasium.make("rlray/Pong-v0", **settings)
    check_env(env.unwrapped)
    env.close()


def test_pictures() -> None:
    env = gymnasium.make("rlray/Pong-v0", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert (picture.shape, picture.dtype) == ((210, 160, 3), np.uint8)
    assert PongEnv().render() is None
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        PongEnv(render_mode="human")


def test_without_a_seed_games_differ_and_with_one_they_go_on_from_it() -> None:
    def episodes(seed: int | None) -> list[np.ndarray]:
        env = PongEnv()
        return [env.reset(seed=seed)[0], env.reset()[0], env.reset()[0]]

    one, two = episodes(3), episodes(3)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(episodes(None), episodes(None))


@pytest.mark.parametrize("action", [6, -1, 1.0, np.array([1, 2])])
def test_a_wrong_action_is_explained(action: Any) -> None:
    env = PongEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be an integer from 0 to 5, got "):
        env.step(action)

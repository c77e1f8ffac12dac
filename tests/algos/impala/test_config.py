"""What the settings of IMPALA and APPO refuse, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from gymnasium import spaces
from pydantic import ValidationError

from rlray.algos import LearnerContext, get_algorithm
from rlray.envs.types import EnvSpec
from tests.algos.toys import Corridor


@pytest.mark.parametrize("name", ["impala", "appo"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"minibatch_size": 1024}, "minibatch_size 1024 is more than rollout_steps 512"),
        ({"learning_rate": -0.1}, "learning_rate must not be negative"),
        ({"clip_c": 2.0}, "clip_c 2.0 is more than clip_rho 1.0"),
        ({"rmsprop_decay": 0.9}, "choose rmsprop"),
        ({"normalize_reward": True, "clip_reward": True}, "exclude each other"),
        ({"clip_value": 0.2}, "clip_value"),
    ],
)
def test_wrong_settings(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        get_algorithm(name).config.model_validate(settings)


def test_the_surrogates_clip_is_of_appo_only() -> None:
    with pytest.raises(ValidationError, match="clip must not be negative"):
        get_algorithm("appo").config.model_validate({"clip": -0.1})
    with pytest.raises(ValidationError, match="clip"):
        get_algorithm("impala").config.model_validate({"clip": 0.1})


@pytest.mark.parametrize("name", ["impala", "appo"])
def test_actions_that_it_cannot_take(name: str) -> None:
    algorithm = get_algorithm(name)
    spec = EnvSpec("Many-v0", Corridor.spec.observation_space, spaces.MultiBinary(3))
    with pytest.raises(ValueError, match=f"{name} takes Discrete actions or a Box"):
        algorithm.make_policy(spec, algorithm.config())
    with pytest.raises(ValueError, match=f"{name} takes Discrete actions or a Box"):
        algorithm.make_learner(spec, algorithm.config(), LearnerContext("cpu", 0, 100))

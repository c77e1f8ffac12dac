from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlray.algos.sac import SACConfig


def test_every_setting_says_what_it_is_in_one_line_and_is_on_the_page() -> None:
    text = (Path(__file__).parents[3] / "docs" / "algos" / "sac.md").read_text(encoding="utf-8")
    for name, field in SACConfig.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description, name
        assert f"`{name}`" in text, name


def test_as_yaml_would_say_it() -> None:
    config = SACConfig.model_validate({"network": {"hidden": [8]}, "replay_capacity": 1e6, "target_entropy": -3})
    assert config.replay_capacity == 1_000_000
    assert SACConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learningrate": 1e-3}, "Extra inputs are not permitted"),
        ({"learning_rate": -1e-3}, "learning_rate must not be negative"),
        ({"network": {"dueling": True}}, "network: dueling is for Q-networks"),
        ({"network": {"layer_norm": True}}, "network: layer_norm is not for sac"),
        ({"network": {"noisy": True}}, "network: noisy is for Q-networks"),
        (
            {"tune_temperature": False, "target_entropy": -2.0},
            "target_entropy -2.0 has no effect with tune_temperature",
        ),
        ({"target_entropy": "none"}, "auto"),
        ({"temperature": 0}, "greater than 0"),
        ({"random_steps": -1}, "greater than or equal to 0"),
        ({"target_tau": 0.0}, "greater than 0"),
        ({"warmup_steps": 10, "replay_capacity": 5}, "warmup_steps 10 is more than replay_capacity 5"),
        ({"priority_alpha": 0.5}, "priority_alpha 0.5 has no effect with prioritized: false"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SACConfig.model_validate(settings)

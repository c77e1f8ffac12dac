from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rlray.algos.dqn import DQNConfig
from rlray.algos.network_config import NetworkConfig

C51: dict[str, Any] = {"distribution": "categorical", "v_min": -1.0, "v_max": 1.0}


@pytest.mark.parametrize("model", [DQNConfig, NetworkConfig])
def test_every_setting_says_what_it_is_in_one_line(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description, name


def test_every_setting_is_on_the_page_of_the_algorithm() -> None:
    text = (Path(__file__).parents[3] / "docs" / "algos" / "dqn.md").read_text(encoding="utf-8")
    for name in (*DQNConfig.model_fields, *NetworkConfig.model_fields):
        assert f"`{name}`" in text or f"{name}:" in text, name


def test_as_yaml_would_say_it() -> None:
    config = DQNConfig.model_validate(
        {
            "network": "nature",
            "replay_capacity": 1e6,
            "max_grad_norm": None,
            "epsilon": [[0, 1], [1e6, 0.1]],
            "learning_rate": {"points": [[0, 0.001], [1, 0]], "of": "run"},
        }
    )
    assert config.network.kind == "nature"
    assert config.replay_capacity == 1_000_000
    assert config.epsilon.at(500_000) == pytest.approx(0.55)
    assert config.learning_rate.at(50, 100) == pytest.approx(0.0005)
    assert DQNConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learningrate": 1e-3}, "Extra inputs are not permitted"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"batch_size": "32"}, "valid integer"),
        ({"batch_size": 32.5}, "valid integer"),
        ({"discount": 1.01}, "less than or equal to 1"),
        ({"adam_eps": 0}, "greater than 0"),
        ({"samples_per_step": float("inf")}, "finite"),
        ({"target_tau": 0.0}, "greater than 0"),
        ({"double": "yes"}, "valid boolean"),
        ({"warmup_steps": 10, "replay_capacity": 5}, "warmup_steps 10 is more than replay_capacity 5"),
        ({"epsilon": 1.5}, r"epsilon must lie in 0 ... 1, got values from 1.5 to 1.5"),
        ({"epsilon": {"points": [[0, 1], [1, 0]], "of": "run"}}, "epsilon goes by steps"),
        ({"learning_rate": -1e-3}, "learning_rate must not be negative"),
        ({"priority_beta": 1.5, "prioritized": True}, "priority_beta must lie in 0 ... 1, got values from 1.5"),
        (
            {"priority_alpha": 0.7},
            "priority_alpha 0.7 has no effect with prioritized: false: set prioritized: true, or leave priority_alpha",
        ),
        ({"priority_beta": 0.5}, r"priority_beta {'points': \[\[0.0, 0.5\]\], 'of': 'steps'} has no effect"),
        ({"atoms": 21}, "atoms 21 has no effect with distribution: none: set distribution: categorical or quantile"),
        ({"v_max": 21.0}, "v_max 21.0 has no effect with distribution: none: set distribution: categorical, or leave"),
        ({"distribution": "quantile", "v_min": -1.0}, "v_min -1.0 has no effect with distribution: quantile"),
        ({"distribution": "categorical"}, "categorical needs v_min and v_max, and v_min is null: set both"),
        ({"distribution": "categorical", "v_min": -1.0}, "categorical needs v_min and v_max, and v_max is null"),
        ({**C51, "v_min": 1.0}, "v_min 1.0 must be less than v_max 1.0"),
        ({**C51, "atoms": 1}, "categorical needs at least 2 atoms, got atoms 1"),
        (
            {**C51, "huber_delta": 2.0},
            "huber_delta 2.0 has no effect with distribution: categorical: set distribution: n",
        ),
        ({"distribution": "gaussian"}, "Input should be 'none', 'categorical' or 'quantile'"),
        ({"network": {"kind": "mlp", "noise_sigma": 0.3}}, "noise_sigma 0.3 has no effect without noisy: true"),
        ({"network": "resnet"}, "network kind 'resnet' is none of auto, nature"),
        ({"network": {"kind": "conv"}}, "needs filters, kernels and strides"),
        ({"network": {"kind": "mlp", "filters": [3]}}, "'mlp' takes no filters"),
        ({"network": {"kind": "nature", "filters": [3]}}, r"equally many, got {'filters': 1, 'kernels': 3"),
        ({"network": {"kind": "mine:Net", "dueling": True}}, "takes no hidden, layer_norm, dueling, noisy or init"),
        ({"network": {"kind": "mlp", "hidden": [0]}}, "greater than or equal to 1"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DQNConfig.model_validate(settings)


@pytest.mark.parametrize(
    "settings",
    [{}, C51, {"distribution": "quantile", "huber_delta": 0.5}, {"prioritized": True, "priority_beta": 0.5}],
)
def test_a_configuration_with_all_defaults_written_out_is_the_same(settings: dict[str, Any]) -> None:
    """As the file in a run's folder has it: defaults of what is switched off are no mistake."""
    config = DQNConfig.model_validate(settings)
    assert DQNConfig.model_validate(config.model_dump(mode="json")) == config


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DQNConfig().batch_size = 64  # type: ignore[misc]

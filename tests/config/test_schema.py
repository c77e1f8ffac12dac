"""The schema: defaults, what is refused and in which words, and configurations made from mappings."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from rlray.config import ConfigError, RunConfig
from tests.config.toy import ToyConfig

TOY = "tests.config.toy:ALGORITHM"


def values(**changes: Any) -> dict[str, Any]:
    return {"env": "CartPole-v1", "algo": TOY, "stop": {"steps": 1000}, **changes}


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(values(**changes))
    return str(caught.value)


def test_env_algo_and_stop_are_enough() -> None:
    config = RunConfig.from_dict(values())
    assert (config.name, config.seed, config.mode, config.run_dir) == ("run", 1, "async", "runs")
    assert config.hyperparameters == ToyConfig()
    assert (config.simulators.count, config.learner.num_gpus, config.eval.every) == (1, "auto", 25_000)
    assert (config.stop.steps, config.stop.minutes, config.engine.kind) == (1000, None, "local")


def test_whole_numbers_may_be_written_as_floats() -> None:
    steps = RunConfig.from_dict(values(stop={"steps": 1e6})).stop.steps
    assert steps == 1_000_000
    assert type(steps) is int
    assert "'stop.steps' must be a valid integer, received 1.5" in refusal(stop={"steps": 1.5})


def test_hyperparameters_are_the_algorithms_own_model() -> None:
    given = {"learning_rate": 3e-4, "network": {"hidden": [8, 8]}}
    settings = RunConfig.from_dict(values(hyperparameters=given)).hyperparameters
    assert isinstance(settings, ToyConfig)
    assert settings.network.hidden == (8, 8)
    assert settings.batch_size == 32
    own = ToyConfig(batch_size=8)
    assert RunConfig.from_dict(values(hyperparameters=own)).hyperparameters == own
    assert RunConfig.from_dict(values(hyperparameters=None)).hyperparameters == ToyConfig()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeed": 1}, "unknown key 'seeed'; did you mean 'seed'? Valid keys: name, seed, mode, env, env_settings,"),
        ({"xyz": 1}, "unknown key 'xyz'. Valid keys: name, seed"),
        ({"eval": {"evry": 1}}, "unknown key 'eval.evry'; did you mean 'every'? Valid keys: every, episodes"),
        (
            {"hyperparameters": {"learing_rate": 1.0}},
            "unknown key 'hyperparameters.learing_rate'; did you mean 'learning_rate'? Valid keys: learning_rate, "
            "gamma, batch_size, network, clip",
        ),
        (
            {"hyperparameters": {"network": {"hiden": [1]}}},
            "unknown key 'hyperparameters.network.hiden'; did you mean 'hidden'? Valid keys: kind, hidden",
        ),
        ({"learning_rate": 1.0}, "unknown key 'learning_rate'; did you mean 'hyperparameters.learning_rate'?"),
        ({"envs": 4}, "unknown key 'envs'; did you mean 'simulators.envs'?"),
        ({"stop": {}}, "missing key 'stop.steps'"),
        ({"seed": "one"}, "'seed' must be a valid integer, received 'one' (a string)"),
        ({"seed": True}, "'seed' must be a valid integer, received true"),
        ({"seed": -1}, "'seed' must be greater than or equal to 0, received -1"),
        ({"env": None}, "'env' must be a valid string, received null"),
        ({"mode": "fast"}, "'mode' must be 'async' or 'sync', received 'fast' (a string)"),
        ({"name": "a b"}, "'name' must match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', received 'a b'"),
        (
            {"simulators": 4},
            "'simulators' must hold keys (name, env, env_settings, count, envs, fragment_length, num_cpus, "
            "max_env_failures, realtime_hz), received 4",
        ),
        ({"simulators": {"count": 0}}, "'simulators.count' must be greater than or equal to 1, received 0"),
        ({"simulators": []}, "'simulators': the list holds no group; write at least one, or leave simulators out"),
        (
            {"simulators": [{"name": "a"}, {"name": "b"}, {"name": "a"}]},
            "'simulators': groups 0 and 2 are both called 'a'; give each its own name",
        ),
        ({"simulators": [{}, {}]}, "'simulators': groups 0 and 1 are both called 'main'"),
        ({"simulators": [{"name": "a"}, {"cuont": 2}]}, "unknown key 'simulators.1.cuont'; did you mean 'count'?"),
        ({"simulators": [{"envs": 0}]}, "'simulators.0.envs' must be greater than or equal to 1, received 0"),
        ({"simulators": [4]}, "'simulators.0' must hold keys (name, env"),
        ({"simulators": {"realtime_hz": 0}}, "'simulators.realtime_hz' must be greater than 0, received 0"),
        ({"simulators": [{"name": "a/b"}]}, "'simulators.0.name' must match pattern"),
        ({"eval": {"every": -5}}, "'eval.every' must be greater than or equal to 1, received -5"),
        ({"learner": {"num_gpus": "all"}}, "'learner.num_gpus' must be 'auto' or a valid number, received 'all'"),
        ({"learner": {"num_gpus": -1}}, "'learner.num_gpus' must be 'auto' or greater than or equal to 0, received -1"),
        ({"stop": {"steps": 1, "minutes": float("inf")}}, "'stop.minutes' must be a finite number, received inf"),
        ({"engine": {"kind": "cloud"}}, "'engine.kind' must be 'local'"),
        ({"env_settings": {"a": [1, object()]}}, "'env_settings.a.1'"),
        ({"hyperparameters": 3}, "'hyperparameters' must hold keys (learning_rate, gamma,"),
        ({"hyperparameters": {"learning_rate": "3e-4"}}, "'hyperparameters.learning_rate' must be a valid number"),
        ({"hyperparameters": {"network": {"hidden": [8, "x"]}}}, "'hyperparameters.network.hidden.1' must be a valid"),
        ({"hyperparameters": {"clip": "all"}}, "'hyperparameters.clip' must be 'auto' or a valid number, received"),
        ({"hyperparameters": {"batch_size": 3}}, "'hyperparameters': batch_size must be even, got 3"),
        (
            {"stop": {"steps": 9, "eval_return": 1.0}, "eval": {"every": None}},
            "'eval': every must be a number of steps",
        ),
        ({"algo": "dqm"}, "'algo': unknown algorithm 'dqm'. Did you mean 'dqn'?"),
        ({"algo": "no.such:ALGORITHM"}, "'algo': algorithm 'no.such:ALGORITHM': no module 'no' can be found"),
        ({"algo": "tests.config.toy:NOT_AN_ALGORITHM"}, "must be an rlray.algos.Algorithm, but is a int"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    text = refusal(**changes)
    assert text.startswith(message) or (message in text and "problems" not in text), text


def test_every_problem_is_named_at_once() -> None:
    text = refusal(seed="x", mode="fast", hyperparameters={"gama": 1, "learning_rate": -1.0}, stop={"steps": 0})
    assert text.startswith("5 problems in the configuration:\n")
    for name in ("'seed'", "'mode'", "'hyperparameters.gama'", "'hyperparameters.learning_rate'", "'stop.steps'"):
        assert name in text


def test_keys_that_are_no_words() -> None:
    with pytest.raises(ConfigError, match=r"unknown key '3'\. Valid keys: name"):
        RunConfig.from_dict({**values(), 3: 4})


def test_missing_sections_say_what_they_hold() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({})
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        "missing key 'env'",
        "missing key 'algo'",
        "missing key 'stop', which holds: steps, minutes, eval_return, train_return",
    ]
    with pytest.raises(TypeError, match="must be a mapping of keys to values, got list"):
        RunConfig.from_dict([1])  # type: ignore[arg-type]


def test_a_configuration_does_not_change() -> None:
    given = values(env_settings={"difficulty": [1, 2]})
    config = RunConfig.from_dict(given)
    given["env_settings"]["difficulty"].append(3)
    assert config.env_settings == {"difficulty": [1, 2]}
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 2  # type: ignore[misc]


def test_configurations_and_their_errors_travel_between_processes() -> None:
    config = RunConfig.from_dict(values())
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({})
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.problems == caught.value.problems


def test_errors_found_later_name_no_place_where_there_is_none() -> None:
    assert str(RunConfig.from_dict(values()).error("env", "unknown environment")) == "unknown environment"


def test_configurations_load_no_torch() -> None:
    code = "import sys, rlray.config; from rlray.config import RunConfig\n"
    code += f"RunConfig.from_dict({values()!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

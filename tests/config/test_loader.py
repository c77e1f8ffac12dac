"""Files and overrides: found by path or name, errors with file and line, and the way back to text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from rlray.config import ConfigError, RunConfig, config_folders, dump_config, find_config, load_config

TOY = "tests.config.toy:ALGORITHM"
GOOD = f"""\
# a run
env: CartPole-v1
algo: {TOY}
hyperparameters:
  learning_rate: 3e-4
  network: {{hidden: [8, 8]}}
stop:
  steps: 1e5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    (folder / "good one.yaml").write_text(text, encoding="utf-8")
    return load_config("good one.yaml", overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_file(folder: Path) -> None:
    config = load(folder, GOOD)
    assert config.name == "good-one"
    assert config.stop.steps == 100_000
    assert config.model_dump()["hyperparameters"]["learning_rate"] == 3e-4
    assert load(folder, "name: other\n" + GOOD).name == "other"


def test_errors_say_file_and_line(folder: Path) -> None:
    text = "envs: 3\nalgo: dqm\nstop:\n  minutes: soon\n\nsimulators: {count: 1,\n  enws: 4}\nseed: 1\nseed: 2\n"
    found = problems(folder, text)
    assert [message.partition(": ")[0] for message in found] == [
        "good one.yaml:1",  # unknown key
        "good one.yaml:1",  # env is missing: the top
        "good one.yaml:2",
        "good one.yaml:3",  # stop.steps is missing: its section
        "good one.yaml:4",
        "good one.yaml:7",
        "good one.yaml:9",
    ]
    assert found[4] == "good one.yaml:4: 'stop.minutes' must be a valid number, received 'soon' (a string)"
    assert found[5].startswith("good one.yaml:7: unknown key 'simulators.enws'; did you mean 'envs'?")
    assert found[6] == "good one.yaml:9: the key 'seed' stands here a second time; first in line 8"


def test_broken_yaml_is_the_only_thing_told(folder: Path) -> None:
    (found,) = problems(folder, GOOD + "eval: [1\n")
    assert found.startswith("good one.yaml:10: not valid YAML")


@pytest.mark.parametrize(("text", "message"), [("- 1\n", "must hold keys"), ("", "missing key 'env'"), ("hi", "must")])
def test_files_without_keys(folder: Path, text: str, message: str) -> None:
    assert problems(folder, text)[0].startswith(f"good one.yaml:1: {message}")


def test_a_file_that_is_no_text(folder: Path) -> None:
    (folder / "model.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"model\.yaml: not a text file"):
        load_config("model.yaml")


def test_files_elsewhere_are_named_in_full(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.yaml"
    elsewhere.write_text("seed: x\n")
    with pytest.raises(ConfigError) as caught:
        load_config(elsewhere)
    assert str(caught.value.problems[0]).startswith(f"{elsewhere}:1: ")


def test_overrides(folder: Path) -> None:
    overrides = [
        "hyperparameters.learning_rate=1e-2",
        "simulators.count=2",
        "seed=4",
        "seed=5",
        "env_settings.a.b=[1, x]",
    ]
    overrides += ["hyperparameters.network={kind: cnn}", "stop.minutes=null", "name='3e-4'", "run_dir=out=put"]
    config = load(folder, GOOD, *overrides)
    settings = config.model_dump()["hyperparameters"]
    assert settings["learning_rate"] == 0.01
    assert settings["network"] == {"kind": "cnn", "hidden": (64, 64)}
    assert (config.simulators.count, config.seed, config.name, config.run_dir) == (2, 5, "3e-4", "out=put")
    assert config.env_settings == {"a": {"b": [1, "x"]}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "override 'seed': must have the form key=value"),
        ("=3", "override '=3': must have the form key=value"),
        ("a..b=3", "override 'a..b=3': must have the form key=value"),
        ("seed=", "override 'seed=': has no value; write seed=null"),
        ("seed=[1", "override 'seed=[1': not valid YAML"),
        ("seed={a: 1, a: 2}", "override 'seed={a: 1, a: 2}': the key 'a' stands here a second time"),
        ("seed=x", "override 'seed=x': 'seed' must be a valid integer, received 'x' (a string)"),
        ("simulator.count=2", "override 'simulator.count=2': unknown key 'simulator'; did you mean 'simulators'?"),
        ("stop.step=2", "override 'stop.step=2': unknown key 'stop.step'; did you mean 'steps'?"),
        ("eval={every: 1, episode: 2}", "override 'eval={every: 1, episode: 2}': unknown key 'eval.episode'"),
        ("seed.x=1", "override 'seed.x=1': 'seed' must be a valid integer, received {'x': 1}"),
        ("eval.every.0=3", "override 'eval.every.0=3': 'eval.every' must be a valid integer"),
        ("hyperparameters.network.hidden.0=3", "override 'hyperparameters.network.hidden.0=3': 'hyperparameters."),
    ],
)
def test_overrides_that_are_refused(folder: Path, override: str, message: str) -> None:
    (found,) = problems(folder, GOOD, override)
    assert found.startswith(message)


def test_an_override_names_a_section_of_a_list_by_number(folder: Path) -> None:
    groups = "simulators=[{name: a}, {name: b, count: 2}]"
    config = load(folder, GOOD, groups, "simulators.1.count=3", "simulators.0={name: c, envs: 2}")
    assert [(one.name, one.count, one.envs) for one in config.groups] == [("c", 1, 2), ("b", 3, 8)]
    (found,) = problems(folder, GOOD, groups, "simulators.1.count=x")
    assert found.startswith("override 'simulators.1.count=x': 'simulators.1.count' must be a valid integer")
    for wrong in ("simulators.2.count=1", "simulators.count=1"):
        (found,) = problems(folder, GOOD, groups, wrong)
        assert "'simulators' is a list; give it anew, or name one of its sections by number" in found


def test_an_override_mends_and_spoils_what_the_file_says(folder: Path) -> None:
    assert load(folder, "seed: x\n" + GOOD, "seed=3").seed == 3
    text = GOOD + "eval: {every: x, episodes: y}\n"
    found = problems(folder, text, "eval.every=z")
    assert [message.partition(": ")[0] for message in found] == ["good one.yaml:9", "override 'eval.every=z'"]


def test_errors_found_later_still_know_the_line(folder: Path) -> None:
    assert str(load(folder, GOOD).error("env", "unknown environment 'CartPole-v1'")) == (
        "good one.yaml:2: unknown environment 'CartPole-v1'"
    )
    assert str(load(folder, GOOD, "env=Pnog").error("env", "unknown")) == "override 'env=Pnog': unknown"
    assert str(load(folder, GOOD).error("stop.minutes", "too long")) == "good one.yaml:7: too long"


def test_names_are_found_by_path_then_here_then_in_the_repository(folder: Path) -> None:
    here = folder / "configs"
    here.mkdir()
    assert config_folders()[0] == here
    repository = config_folders()[1]
    assert (repository / "dqn_pong.yaml").is_file()
    assert find_config("dqn_pong.yaml") == find_config("dqn_pong") == repository / "dqn_pong.yaml"
    (here / "dqn_pong.yaml").write_text(GOOD)
    assert find_config("dqn_pong") == here / "dqn_pong.yaml"
    (folder / "dqn_pong").write_text(GOOD)
    assert find_config("dqn_pong").absolute() == folder / "dqn_pong"
    assert find_config(here / "dqn_pong") == here / "dqn_pong.yaml"


def test_missing_files_have_their_neighbours_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no configuration 'dqn_pnog\.yaml' .*Did you mean dqn_pong\.yaml"):
        load_config("dqn_pnog.yaml")
    with pytest.raises(FileNotFoundError, match=r"There are: .*dqn_lunarlander\.yaml"):
        load_config("x")
    (folder / "mine.yaml").write_text(GOOD)
    with pytest.raises(FileNotFoundError, match=rf"looked in {folder}\)\. Did you mean mine\.yaml"):
        load_config(folder / "mime.yaml")
    with pytest.raises(FileNotFoundError, match="no configuration"):
        load_config(folder)


def random_config(rng: random.Random) -> dict[str, Any]:
    def some(**options: Any) -> dict[str, Any]:
        return {key: value() for key, value in options.items() if rng.random() < 0.7}

    def count() -> int:
        return rng.randrange(1, 10**6)

    def json_value(depth: int = 0) -> Any:
        plain = [None, True, rng.getrandbits(80), rng.uniform(-1, 1), "3e-4", "yes", "x: y", 1e-5, float("inf")]
        if depth > 2 or rng.random() < 0.5:
            return rng.choice(plain)
        if rng.random() < 0.5:
            return [json_value(depth + 1) for _ in range(rng.randrange(3))]
        return {str(rng.choice(plain)): json_value(depth + 1) for _ in range(rng.randrange(3))}

    def amount() -> Any:
        return rng.choice(["auto", rng.uniform(0, 4), 2])

    network = some(kind=lambda: rng.choice(["mlp", "cnn"]), hidden=lambda: [count() for _ in range(rng.randrange(4))])
    settings = some(
        learning_rate=lambda: 10 ** rng.uniform(-6, 0),
        gamma=rng.random,
        batch_size=lambda: 2 * count(),
        clip=lambda: rng.choice([None, "auto", rng.random()]),
        network=lambda: network,
    )
    return {
        "env": rng.choice(["CartPole-v1", "ALE/Pong-v5", "my.module:Env", "null", "1e5"]),
        "algo": TOY,
        "stop": {
            "steps": count(),
            **some(minutes=lambda: rng.uniform(0.1, 9), eval_return=lambda: rng.gauss(0, 100), train_return=count),
        },
        **some(
            name=lambda: rng.choice(["a", "1e5", "x.y-z", "007"]),
            seed=lambda: rng.getrandbits(62),
            mode=lambda: rng.choice(["sync", "async"]),
            env_settings=lambda: {str(n): json_value() for n in range(rng.randrange(4))},
            hyperparameters=lambda: settings,
            simulators=lambda: some(count=count, envs=count, fragment_length=count, num_cpus=amount),
            learner=lambda: some(num_cpus=amount, num_gpus=amount),
            eval=lambda: some(every=count, episodes=count, final_episodes=lambda: count() - 1),
            checkpoint=lambda: some(every=lambda: rng.choice([None, count()]), keep=count),
            engine=lambda: some(num_cpus=lambda: rng.choice([None, count()])),
            run_dir=lambda: rng.choice(["runs", "~/runs", "/tmp/é x", "null"]),
        ),
    }


def test_dumped_configurations_load_as_equal(folder: Path) -> None:
    for seed in range(150):
        config = RunConfig.from_dict(random_config(random.Random(seed)))
        (folder / "dumped.yaml").write_text(dump_config(config), encoding="utf-8")
        assert load_config("dumped.yaml") == config, f"seed {seed}"
    assert load_config("dumped.yaml", ["seed=12"]) != config


def test_dumped_configurations_are_complete(folder: Path) -> None:
    text = dump_config(load(folder, GOOD))
    assert text.startswith("name: good-one\nseed: 1\nmode: async\nenv: CartPole-v1\n")
    assert "  learning_rate: 0.0003\n  gamma: 0.99\n" in text
    assert "    hidden: [8, 8]\n" in text
    assert "stop:\n  steps: 100000\n  minutes: null\n" in text

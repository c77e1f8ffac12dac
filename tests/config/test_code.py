"""Where modules of a user's own are looked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlray.config import ConfigError, RunConfig, load_config

ALGORITHM = """
from rlray.algos import Algorithm, Settings

class MySettings(Settings):
    size: int = 3

MyAlgo = Algorithm("mine", MySettings, make_policy=None, make_learner=None)
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """One for the configuration, and the current one; what is imported from them is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
    monkeypatch.chdir(here)
    yield beside, here
    for name in set(sys.modules) - before:
        if name.startswith("mine_"):
            del sys.modules[name]


def write(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(f"stop: {{steps: 10}}\n{text}", encoding="utf-8")
    return path


def test_a_module_beside_the_file_is_found_and_its_folder_noted(folders: tuple[Path, Path]) -> None:
    beside, _ = folders
    (beside / "mine_1.py").write_text(ALGORITHM)
    config = load_config(write(beside, "env: CartPole-v1\nalgo: mine_1:MyAlgo\nhyperparameters: {size: 4}"))
    assert config.code == (str(beside),)
    assert config.hyperparameters.size == 4  # type: ignore[attr-defined]
    assert RunConfig.from_dict(config.model_dump(mode="json")) == config


def test_it_is_noted_every_time_but_not_where_python_finds_it_by_itself(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = folders
    for folder, name in ((beside, "mine_9"), (here, "mine_10")):
        (folder / f"{name}.py").write_text(ALGORITHM)
    for _ in range(2):  # the second time it is on sys.path
        assert load_config(write(beside, "env: CartPole-v1\nalgo: mine_9:MyAlgo")).code == (str(beside),)
    monkeypatch.syspath_prepend(str(here))
    assert load_config(write(beside, "env: CartPole-v1\nalgo: mine_10:MyAlgo")).code == ()


def test_one_in_the_current_folder_is_found_too_also_in_an_override(folders: tuple[Path, Path]) -> None:
    beside, here = folders
    (here / "mine_2").mkdir()
    (here / "mine_2" / "algo.py").write_text(ALGORITHM)
    config = load_config(write(beside, "env: CartPole-v1"), ["algo=mine_2.algo:MyAlgo"])
    assert config.code == (str(here),)


def test_environments_and_networks_count(folders: tuple[Path, Path]) -> None:
    beside, here = folders
    (beside / "mine_3.py").touch()
    (here / "mine_4.py").touch()
    text = "env: mine_3:Env\nalgo: dqn\nhyperparameters: {network: {kind: 'mine_4:Net'}}"
    assert load_config(write(beside, text)).code == (str(beside), str(here))


def test_what_is_installed_comes_first_and_is_not_noted(folders: tuple[Path, Path]) -> None:
    beside, _ = folders
    for name in ("rlray", "json"):
        (beside / f"{name}.py").write_text("1 / 0")
    (beside / "mine_5.py").touch()  # nobody names it
    assert load_config(write(beside, "env: json:Env\nalgo: rlray.algos.dqn:ALGORITHM")).code == ()


def test_a_folder_can_be_named_from_the_file(folders: tuple[Path, Path]) -> None:
    beside, _ = folders
    (beside / "src").mkdir()
    (beside / "src" / "mine_6.py").write_text(ALGORITHM)
    config = load_config(write(beside, "code: src\nenv: CartPole-v1\nalgo: mine_6:MyAlgo"))
    assert config.code == (str(beside / "src"),)
    with pytest.raises(ConfigError, match=r"my.yaml:2: 'code"):
        load_config(write(beside, "code: [3]\nenv: CartPole-v1\nalgo: dqn"))


@pytest.mark.parametrize(
    ("algo", "message"),
    [
        ("mine_7:MyAlgo", r"my.yaml:3: 'algo': .*no module 'mine_7' can be found; put it beside the configuration"),
        ("mine_8:MyAlgor", r"module 'mine_8' \(.*mine_8.py\) has no 'MyAlgor'. Did you mean 'MyAlgo'"),
        (
            "mine_8:MySettings",
            "must be an rlray.algos.Algorithm, but is a .*: make one by Algorithm",
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_remedy(folders: tuple[Path, Path], algo: str, message: str) -> None:
    beside, _ = folders
    (beside / "mine_8.py").write_text(ALGORITHM)
    with pytest.raises(ConfigError, match=message):
        load_config(write(beside, f"env: CartPole-v1\nalgo: {algo}"))

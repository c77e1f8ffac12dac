from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from rlray.algos import Algorithm, algorithm_names, get_algorithm


def test_every_bundled_algorithm_is_found_under_its_name() -> None:
    assert "dqn" in algorithm_names()
    for name in algorithm_names():
        algorithm = get_algorithm(name)
        assert isinstance(algorithm, Algorithm)
        assert algorithm.name == name


def test_an_algorithm_of_ones_own_is_named_by_module_and_attribute() -> None:
    assert get_algorithm("rlray.algos.dqn:ALGORITHM") is get_algorithm("dqn")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dnq", r"unknown algorithm 'dnq'. Did you mean 'dqn'\?"),
        ("rainforest", r"unknown algorithm 'rainforest'. Bundled are: .*dqn.*package.module:ATTRIBUTE"),
        ("rlray.algos.dqn:ALGORITM", r"module 'rlray.algos.dqn' \(.*\) has no 'ALGORITM'. Did you mean 'ALGORITHM'\?"),
        ("rlray.algos.dpn:ALGORITHM", r"no module 'rlray.algos.dpn' can be found"),
        ("no_such_package.x:ALGORITHM", r"no module 'no_such_package' can be found"),
        ("rlray.algos.dqn:", "must have the form 'package.module:ATTRIBUTE'"),
        ("../dqn.py:ALGORITHM", "must have the form 'package.module:ATTRIBUTE'"),
    ],
)
def test_an_unknown_name_is_explained(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_algorithm(name)


def test_a_wrong_type_is_explained() -> None:
    with pytest.raises(TypeError, match="must be a string, got 7"):
        get_algorithm(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be an rlray\.algos\.Algorithm, but is"):
        get_algorithm("rlray.algos.dqn:DQNConfig")


def test_settings_must_be_a_class_of_settings() -> None:
    with pytest.raises(TypeError, match=r"config of algorithm 'mine' must be a class of settings .* got <class 'dict'"):
        dataclasses.replace(get_algorithm("dqn"), name="mine", config=dict)  # type: ignore[type-var]


def test_what_a_module_raises_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_needs_more.py").write_text("import a_library_nobody_has\n")
    (tmp_path / "mine_is_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = "algorithm 'mine_needs_more:ALGORITHM': it imports 'a_library_nobody_has', and no such module can be found"
    with pytest.raises(ModuleNotFoundError, match=text):
        get_algorithm("mine_needs_more:ALGORITHM")
    with pytest.raises(ZeroDivisionError):
        get_algorithm("mine_is_broken:ALGORITHM")


def test_neither_the_names_nor_the_settings_load_torch() -> None:
    code = (
        "import sys, rlray.algos; rlray.algos.get_algorithm('dqn').config(network='nature')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""The configurations that come with rlray."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlray.config import load_config

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_they_are_where_they_belong() -> None:
    assert {"dqn_lunarlander", "dqn_pong", "dqn_pong_smoke"} <= {file.stem for file in FILES}
    assert {file.suffix for file in FOLDER.iterdir()} == {".yaml"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_valid_and_says_how_to_run_it(file: Path) -> None:
    config = load_config(file)
    assert config.name == file.stem
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"#   python scripts/train.py --config {file.name}\n" in text

"""Metrics to Weights & Biases, by the real package, where it is installed; nothing leaves this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlray.config import RunConfig
from tests.support import run_driver
from tests.train.conftest import toy_config

PROGRAM = """
import sys
import rlray
from tests.train.conftest import toy_config

if __name__ == "__main__":
    rlray.init(num_cpus=4, preload=("torch", "gymnasium"))
    config = toy_config(run_dir=sys.argv[1], wandb={"project": "toys", "mode": "offline"})
    print("RUN", rlray.train(config).run_dir)
"""


def test_a_run_goes_there_under_the_name_of_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs pip install wandb")
    output = run_driver(PROGRAM, str(tmp_path), WANDB_SILENT="true")
    run = Path(output.rpartition("RUN ")[2].strip())
    (sent,) = run.glob("wandb/offline-run-*/*.wandb")
    assert sent.name == f"run-{run.name}.wandb"
    records = sent.read_bytes()
    rows = (run / "metrics.csv").read_text().splitlines()
    assert records.count(b"train/episodes") >= len(rows) - 1
    assert b"learner/loss" in records
    assert b"fragment_length" in records, "the configuration"


def test_the_section_wants_a_project() -> None:
    with pytest.raises(ValueError, match=r"missing key 'wandb\.project'"):
        RunConfig.from_dict(toy_config(wandb={}))

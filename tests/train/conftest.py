"""A runtime whose workers have torch and gymnasium already, and runs of toys on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.algos.types import Metrics
from rlray.config import RunConfig
from rlray.train import Experiment
from rlray.train.run import plan_for, resolve, spec_of


@pytest.fixture(scope="module")
def runtime() -> Iterator[None]:
    """Four CPUs, shared by the tests of a module."""
    rlray.init(num_cpus=4, preload=("torch", "torch._dynamo", "gymnasium"))  # the second is what optimisers import
    yield
    rlray.shutdown()


@dataclass
class Played:
    """What an experiment yielded, and the experiment, ended."""

    records: list[Metrics]
    experiment: Experiment

    def repeatable(self) -> list[Metrics]:
        """The records without what depends on the clock."""
        return [{tag: v for tag, v in record.items() if not tag.startswith("time/")} for record in self.records]

    def of(self, tag: str) -> list[float]:
        return [record[tag] for record in self.records if tag in record]


def toy_config(**changes: Any) -> dict[str, Any]:
    """Two simulators of four corridors, fragments of ten steps, 800 steps in all."""
    return {
        "env": "tests.train.toys:Corridor",
        "algo": "tests.train.toys:ALGORITHM",
        "mode": "sync",
        "stop": {"steps": 800},
        "simulators": {"count": 2, "envs": 4, "fragment_length": 10, "num_cpus": 1.0},
        "learner": {"num_cpus": 1.0},
        "eval": {"every": None, "final_episodes": 0},
        "checkpoint": {"every": None},
        **changes,
    }


@pytest.fixture
def run(tmp_path: Path, runtime: None) -> Callable[..., Played]:
    """Run an experiment to its end: ``run(**changes of toy_config)``; ``watch`` is called with each record."""

    def run(watch: Callable[[Experiment, Metrics], None] = lambda experiment, record: None, **changes: Any) -> Played:
        config, source = resolve(RunConfig.from_dict(toy_config(**changes)))
        folder = tmp_path / f"checkpoints-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        records = []
        with Experiment(config, source, spec_of(config, source), plan_for(config), folder) as experiment:
            for record in experiment:
                records.append(record)
                watch(experiment, record)
        return Played(records, experiment)

    return run

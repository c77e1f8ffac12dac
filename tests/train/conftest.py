"""A runtime whose workers have torch and gymnasium already, and runs of toys on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.algos.types import Metrics
from rlray.config import RunConfig
from rlray.train import Experiment
from rlray.train.checkpoint_folder import checkpoint_to_resume
from rlray.train.groups import spec_of
from rlray.train.run import plan_for, resolve


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
    folder: Path  # of its checkpoints

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


class KeptRecords:
    """The records of a run in a list: what is withdrawn is gone from it."""

    def __init__(self) -> None:
        self.records: list[Metrics] = []

    def position(self) -> dict[str, Any]:
        return {"count": len(self.records)}

    def rewind(self, position: Mapping[str, Any] | None, step: int) -> None:
        del self.records[0 if position is None else position["count"] :]


Watch = Callable[[Experiment, Metrics], None]


@pytest.fixture
def run(tmp_path: Path, runtime: None) -> Callable[..., Played]:
    """Run an experiment to its end: ``run(**changes of toy_config)``; ``watch`` is called with each record.

    ``resume`` is a `Played` to go on with from its last checkpoint, or from its beginning where it has none;
    ``folder`` is for its checkpoints.
    """

    def run(
        watch: Watch = lambda experiment, record: None,
        *,
        resume: Played | None = None,
        folder: Path | None = None,
        **changes: Any,
    ) -> Played:
        config, source = resolve(RunConfig.from_dict(toy_config(**changes)))
        kept = KeptRecords()
        if resume is not None:
            folder, kept.records = resume.folder, list(resume.records)
        elif folder is None:
            folder = tmp_path / f"checkpoints-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
        checkpoint = checkpoint_to_resume(folder)
        if checkpoint is None:
            kept.rewind(None, 0)
        spec, plan = spec_of(config, source), plan_for(config)
        with Experiment(config, source, spec, plan, folder, records=kept, resume=checkpoint) as experiment:
            for record in experiment:
                kept.records.append(record)
                try:
                    watch(experiment, record)
                except Leave:
                    break
        return Played(kept.records, experiment, folder)

    return run


class Leave(Exception):
    """Raised by a ``watch`` to leave the run at once, as if its driver had been killed."""

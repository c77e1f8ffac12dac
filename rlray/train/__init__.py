"""Training. ``rlray.train(config)`` runs one experiment; the parts are here for those who want more than that.

This module can be called: ``rlray.train(...)`` is `rlray.train.run.train`. Names are imported when first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlray.train.evaluation import evaluate
    from rlray.train.evaluator import EvalResult
    from rlray.train.experiment import Experiment
    from rlray.train.failures import TrainingError
    from rlray.train.run import Result, RunInterrupted, train
    from rlray.train.simulation import SimulationInterrupted, simulate
    from rlray.train.simulation_report import SimulationReport

__all__ = [
    "EvalResult",
    "Experiment",
    "Result",
    "RunInterrupted",
    "SimulationInterrupted",
    "SimulationReport",
    "TrainingError",
    "evaluate",
    "simulate",
    "train",
]

_HOMES = {
    "EvalResult": "evaluator",
    "Experiment": "experiment",
    "Result": "run",
    "RunInterrupted": "run",
    "SimulationInterrupted": "simulation",
    "SimulationReport": "simulation_report",
    "TrainingError": "failures",
    "evaluate": "evaluation",
    "simulate": "simulation",
    "train": "run",
}


class _CallableModule(ModuleType):
    """A module that is also the function `rlray.train.run.train`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        from rlray.train.run import train

        return train(*args, **kwargs)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _CallableModule

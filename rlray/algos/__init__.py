"""Algorithms: one folder each, and the maths they share. Importing this loads no torch."""

from rlray.algos.registry import algorithm_names, get_algorithm
from rlray.algos.settings import Settings
from rlray.algos.types import Algorithm, Fragment, Learner, LearnerContext, Metrics, Outcomes, Policy, Trials, Weights

__all__ = [
    "Algorithm",
    "Fragment",
    "Learner",
    "LearnerContext",
    "Metrics",
    "Outcomes",
    "Policy",
    "Settings",
    "Trials",
    "Weights",
    "algorithm_names",
    "get_algorithm",
]

"""The settings of ES. Loads no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Counts, Finite, Positive, Settings


class ESConfig(Settings):
    """Hyperparameters; the defaults suit small vectors. A generation is one update, and one round of tasks."""

    hidden: Counts = (64, 64)
    """Units of each hidden layer; an empty list is a linear policy."""
    activation: Literal["tanh", "relu"] = "tanh"
    """What follows each hidden layer."""
    population: Count = 256
    """Policies in a generation: an even number, half of them disturbed by some noise, half by its opposite."""
    sigma: Positive = 0.05
    """Standard deviation of the noise that is added to each parameter."""
    learning_rate: Schedule = Schedule(points=((0, 0.01),))
    """Step size: a number, points `[[step, value], ...]`, or `{points, of: run}` by the part of the run done."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """What turns the estimated gradient into a step."""
    momentum: Annotated[Finite, Field(ge=0, lt=1)] = 0.9
    """Of sgd; for adam its first beta."""
    weight_decay: Annotated[Finite, Field(ge=0)] = 0.0
    """Each update first shrinks all parameters by the part learning_rate × weight_decay."""
    episodes: Count = 1
    """Episodes that each policy plays; what counts is their mean return."""
    max_steps: Count | None = None
    """Agent steps after which an episode of the training is cut off; null plays all to their end."""
    same_episodes: Literal["pair", "generation"] = "pair"
    """Who plays episodes of the same seeds: a policy and its opposite, or all of a generation."""
    sample_actions: bool = False
    """Numbered actions are drawn from the softmax of the outputs; else the largest output is taken."""
    normalize_obs: bool = False
    """Observations are centred and scaled by what earlier generations have seen."""
    noise_size: Count = 25_000_000
    """Numbers in the table of noise that all tasks share (4 bytes each); parameters are disturbed by a piece of it."""

    @model_validator(mode="after")
    def _check(self) -> ESConfig:
        if self.population % 2:
            raise ValueError(f"population must be even, since noise comes with its opposite, got {self.population}")
        if self.learning_rate.bounds()[0] < 0:
            raise ValueError(f"learning_rate must not be negative, got {self.learning_rate.bounds()[0]}")
        return self

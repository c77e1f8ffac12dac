"""A small algorithm for tests of configurations; its settings have the shapes that real ones have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from rlray.algos.types import Algorithm, EnvSpec, Learner, LearnerContext, Policy


class Network(BaseModel):
    """A section within the hyperparameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mlp", "cnn"] = "mlp"
    hidden: tuple[Annotated[int, Strict()], ...] = (64, 64)


class ToyConfig(BaseModel):
    """Settings of the toy."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    learning_rate: Annotated[float, Strict()] = Field(default=1e-3, gt=0)
    """Step size."""
    gamma: Annotated[float, Strict()] = Field(default=0.99, ge=0, le=1)
    batch_size: Annotated[int, Strict()] = 32
    network: Network = Network()
    clip: Literal["auto"] | Annotated[float, Strict()] | None = None

    @model_validator(mode="after")
    def _check(self) -> ToyConfig:
        if self.batch_size % 2:
            raise ValueError(f"batch_size must be even, got {self.batch_size}")
        return self


def make_policy(spec: EnvSpec, settings: Any) -> Policy:
    raise NotImplementedError("configurations only")


def make_learner(spec: EnvSpec, settings: Any, context: LearnerContext) -> Learner:
    raise NotImplementedError("configurations only")


ALGORITHM = Algorithm("toy", ToyConfig, make_policy, make_learner)
NOT_AN_ALGORITHM = 3

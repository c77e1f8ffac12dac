"""The settings of SAC. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlray.algos.network_config import FeedForwardConfig, NetworkConfig
from rlray.algos.replay.settings import ReplaySettings
from rlray.algos.schedules import Schedule
from rlray.algos.settings import Count, Finite, Fraction, Positive, Whole


class SACConfig(ReplaySettings):
    """Hyperparameters; the defaults are the paper's. "Steps" are agent steps, "updates" gradient steps."""

    network: FeedForwardConfig = NetworkConfig()
    """Actor and critics, or just their kind: auto, nature, dqn2013, small, conv, mlp, `package.module:MyNet`."""
    discount: Fraction = 0.99
    """Gamma, per step."""
    n_step: Count = 1
    """Rewards that are summed before the target bootstraps."""
    clip_reward: bool = False
    """Clip each reward to -1 ... 1 for learning; reports stay raw."""
    scale_reward: Finite = 1.0
    """Rewards are multiplied by it for learning; reports stay raw."""
    batch_size: Count = 256
    """Transitions in one update."""
    samples_per_step: Positive = 256.0
    """Transitions replayed per step: every `batch_size / samples_per_step` steps there is one update."""
    random_steps: Whole = Field(default=5_000, ge=0)
    """Steps of the run in which actions are uniformly random, before the policy acts."""
    learning_rate: Schedule = Schedule(points=((0, 3e-4),))
    """Adam's step size: a number, points `[[step, value], ...]`, or `{points, of: run}` by the part of the run done."""
    adam_eps: Positive = 1e-8
    """Adam's epsilon."""
    max_grad_norm: Positive | None = None
    """Gradients are scaled down to this norm over all parameters; null leaves them."""
    policy_every: Count = 1
    """Updates of the critics for each of the policy and the temperature."""
    target_tau: float = Field(default=0.005, gt=0, le=1)
    """How far the target critics move towards the others in each update."""
    temperature: Positive = 1.0
    """Alpha, what a nat of entropy is worth in reward; where it is tuned, at first."""
    tune_temperature: bool = True
    """Adapt alpha so that the policy's entropy becomes `target_entropy`."""
    target_entropy: Finite | Literal["auto"] = "auto"
    """In nats, of actions rescaled to -1 ... 1; auto is -1 for each number of an action."""

    @model_validator(mode="after")
    def _check(self) -> SACConfig:
        if self.learning_rate.bounds()[0] < 0:
            raise ValueError(f"learning_rate must not be negative, got {self.learning_rate.bounds()[0]}")
        for name in ("dueling", "noisy"):
            if getattr(self.network, name):
                raise ValueError(f"network: {name} is for Q-networks over numbered actions; leave it out")
        if self.network.layer_norm:
            raise ValueError("network: layer_norm is not for sac, whose critics share one pass; leave it out")
        if not self.tune_temperature:
            self._without_effect("tune_temperature: false", "true", "target_entropy")
        return self

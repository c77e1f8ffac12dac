"""A policy and a value of the same observation, in one network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlray.algos.distributions import ActionDistribution, Gaussian
from rlray.algos.network_config import NetworkConfig
from rlray.algos.networks import InputNorm, activated, make_features, make_trunk, orthogonal
from rlray.envs.types import EnvSpec


class ValueNorm(nn.Module):
    """Values in the units of returns, from a head that gives them in deviations from the mean return.

    Mean and deviation follow the critic's targets, and travel in the state dict (van Hasselt et al. 2016, arXiv
    1602.07714, without the correction of the last layer: `fit` moves slowly enough to do without).
    """

    center: Tensor
    scale: Tensor
    fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, normalised: Tensor) -> Tensor:
        """In the units of returns."""
        return normalised * self.scale + self.center

    def inverse(self, values: Tensor) -> Tensor:
        """In deviations from the mean."""
        return (values - self.center) / self.scale

    @torch.no_grad()
    def fit(self, targets: Tensor, rate: float) -> None:
        """Move towards the mean and the deviation of ``targets``, at the first time all the way."""
        rate = rate if bool(self.fitted) else 1.0
        self.center.lerp_(targets.mean(), rate)
        self.scale.lerp_(targets.std().clamp(min=1e-3), rate)
        self.fitted.fill_(True)


class ActorCritic(nn.Module):
    """Outputs of a policy [B, outputs] and values [B], float32, of raw observations.

    With ``shared`` both start from the same layers, else each has its own. Deviations of continuous actions are
    parameters that do not depend on the observation.
    """

    def __init__(self, input: InputNorm, actor: nn.Module, critic: nn.Module, trunk: nn.Module, log_std: int) -> None:
        super().__init__()
        self.input = input
        self.trunk = trunk
        self.actor = actor
        self.critic = critic
        self.value_norm = ValueNorm()
        self.log_std = nn.Parameter(torch.zeros(log_std)) if log_std else None

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's outputs, and values that are still normalised: see `value_norm`."""
        return self.of_rows(self.input.rows(obs))

    def of_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same of observations that are normalised already: what ``input.rows`` made of them."""
        features = self.trunk(self.input.arranged(rows))
        outputs = self.actor(features).float()
        if self.log_std is not None:
            outputs = torch.cat([outputs, self.log_std.expand_as(outputs)], dim=1)
        return outputs, self.critic(features).float().squeeze(1)

    def value(self, obs: Tensor) -> Tensor:
        """Values [B] in the units of returns."""
        return self.value_norm(self.critic(self.trunk(self.input(obs))).float().squeeze(1))  # type: ignore[no-any-return]


def make_actor_critic(
    spec: EnvSpec, config: NetworkConfig, actions: ActionDistribution, shared: bool, seed: int
) -> ActorCritic:
    """The network that ``config`` describes; its first weights depend on ``seed`` only.

    Weights begin orthogonal, with gain √2, 0.01 at the policy's output and 1 at the value's. A custom network is
    as `make_features` has it, and always shared.

    Raises:
        TypeError: the custom network is no ``torch.nn.Module``, or does not say its features.
        ValueError: the network does not fit the observations, or has a part that only Q-networks have.
    """
    config = config.resolved(spec)
    if config.dueling:
        raise ValueError("network: dueling is for Q-networks; leave it out")
    log_std = actions.outputs // 2 if isinstance(actions, Gaussian) else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        input = InputNorm(spec, config)
        if ":" in config.kind:
            trunk, features = make_features(spec, config)
            actor, critic = _head(features, (), config), _head(features, (), config)
        elif shared:
            trunk, features = make_trunk(config, input.shape)
            assert config.hidden is not None
            trunk = nn.Sequential(trunk, *_layers(features, config.hidden[-1:], config))
            features = config.hidden[-1]
            actor, critic = nn.Sequential(), nn.Sequential()
        else:
            trunk, features = nn.Flatten(), math.prod(input.shape)
            if len(input.shape) == 3:
                raise ValueError("separate networks for policy and value take vectors; for pictures use shared: true")
            assert config.hidden is not None
            actor, critic = (_head(features, config.hidden, config) for _ in range(2))
            features = config.hidden[-1]
        for module in (trunk, actor, critic):
            orthogonal(module, math.sqrt(2))
        policy, value = nn.Linear(features, log_std or actions.outputs), nn.Linear(features, 1)
        orthogonal(policy, 0.01)
        orthogonal(value, 1.0)
        network = ActorCritic(input, nn.Sequential(actor, policy), nn.Sequential(critic, value), trunk, log_std)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _head(features: int, hidden: tuple[int, ...], config: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(*_layers(features, hidden, config))


def _layers(features: int, hidden: tuple[int, ...], config: NetworkConfig) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(features, units), *activated(units, config)]
        features = units
    return layers

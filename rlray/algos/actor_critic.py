"""A policy and a value of the same observation, in one network."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlray.algos.distributions import ActionDistribution, Gaussian
from rlray.algos.network_config import NetworkConfig
from rlray.algos.networks import InputNorm, activated, make_features, make_trunk, orthogonal
from rlray.algos.recurrent import UNDISTURBED, Course, Recurrent
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


class Said(NamedTuple):
    """What an actor-critic says of ``T`` steps of ``B`` environments, float32."""

    outputs: Tensor
    """[T, B, outputs] of the policy."""
    value: Tensor
    """[T, B], still normalised: see `ActorCritic.value_norm`."""
    memory: Tensor | None
    """[B, M] after the last step, or [K, M] after those asked for; what was given, where nothing is remembered."""


class ActorCritic(nn.Module):
    """Outputs of a policy and values of raw observations, in the order of time.

    Both start from the same ``trunk``, go on by a head each (empty, where all layers but the last are shared), and end
    in a linear layer. Before that one there may be a memory, one for each or one for both. Deviations of continuous
    actions are parameters that do not depend on the observation.
    """

    def __init__(
        self,
        input: InputNorm,
        trunk: nn.Module,
        actor: nn.Sequential,
        critic: nn.Sequential,
        memories: list[Recurrent],
        log_std: int,
    ) -> None:
        """``actor`` and ``critic`` are a head and a linear layer each; see `make_actor_critic`."""
        super().__init__()
        self.input = input
        self.trunk = trunk
        self.actor = actor
        self.critic = critic
        self.memories = nn.ModuleList(memories)
        self._sizes = [memory.memory_size for memory in memories]
        self.value_norm = ValueNorm()
        self.log_std = nn.Parameter(torch.zeros(log_std)) if log_std else None

    @property
    def memory_size(self) -> int:
        """How many numbers it remembers of each environment, M; 0 where it is not recurrent."""
        return sum(self._sizes)

    def forward(self, obs: Tensor, memory: Tensor | None = None, course: Course = UNDISTURBED) -> Said:
        """Go on by ``T`` steps, ``obs`` [T, B, *observation_shape], from ``memory`` [B, M].

        Without a memory each observation is looked at by itself, and ``course`` plays no part.
        """
        rows = self.input.rows(obs.flatten(0, 1))
        return self.of_rows(rows.view(*obs.shape[:2], *rows.shape[1:]), memory, course)

    def of_rows(self, rows: Tensor, memory: Tensor | None = None, course: Course = UNDISTURBED) -> Said:
        """The same of observations that are normalised already: ``rows`` [T, B, ...] are what ``input.rows`` made."""
        steps, envs = rows.shape[:2]
        features = self.trunk(self.input.arranged(rows.flatten(0, 1)))
        (actor, policy_layer), (critic, value_layer) = self.actor, self.critic
        found = [actor(features), critic(features)]
        if self._sizes:
            assert memory is not None
            before = torch.split(memory, self._sizes, dim=1)
            # Where one memory is for both, both heads are empty.
            along = [x.unflatten(0, (steps, envs)) for x in found[: len(before)]]
            runs = [one(x, past, course) for one, x, past in zip(self.memories, along, before, strict=True)]
            found, memory = [run[0].flatten(0, 1) for run in runs], torch.cat([run[1] for run in runs], dim=1)
        outputs = policy_layer(found[0]).float()
        if self.log_std is not None:
            outputs = torch.cat([outputs, self.log_std.expand_as(outputs)], dim=1)
        value = value_layer(found[-1]).float()
        return Said(outputs.view(steps, envs, -1), value.view(steps, envs), memory)

    def value(self, obs: Tensor, memory: Tensor | None = None) -> Tensor:
        """Values [B] in the units of returns, of observations that come next after what ``memory`` [B, M] is of."""
        return self.value_norm(self(obs[None], memory).value[0])  # type: ignore[no-any-return]


def make_actor_critic(
    spec: EnvSpec, config: NetworkConfig, actions: ActionDistribution, shared: bool, seed: int
) -> ActorCritic:
    """The network that ``config`` describes; its first weights depend on ``seed`` only.

    Weights begin orthogonal, with gain √2, 0.01 at the policy's output and 1 at the value's. A custom network is
    as `make_features` has it, and always shared. ``config.recurrent`` puts a memory behind all that, also behind a
    custom network, which itself must not remember anything.

    Raises:
        TypeError: the custom network is no ``torch.nn.Module``, or does not say its features.
        ValueError: the network does not fit the observations, or has a part that only Q-networks have.
    """
    config = config.resolved(spec, recurrent=True)
    if config.dueling:
        raise ValueError("network: dueling is for Q-networks; leave it out")
    log_std = actions.outputs // 2 if isinstance(actions, Gaussian) else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        input = InputNorm(spec, config)
        if ":" in config.kind:
            trunk, features = make_features(spec, config)
            actor, critic, shared = nn.Sequential(), nn.Sequential(), True
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
        memories: list[Recurrent] = []
        if config.recurrent is not None:
            assert config.recurrent_size is not None
            memories = [Recurrent(features, config.recurrent, config.recurrent_size) for _ in range(2 - shared)]
            features = config.recurrent_size
        policy, value = nn.Linear(features, log_std or actions.outputs), nn.Linear(features, 1)
        orthogonal(policy, 0.01)
        orthogonal(value, 1.0)
        last = (nn.Sequential(actor, policy), nn.Sequential(critic, value))
        network = ActorCritic(input, trunk, *last, memories, log_std)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _head(features: int, hidden: tuple[int, ...], config: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(*_layers(features, hidden, config))


def _layers(features: int, hidden: tuple[int, ...], config: NetworkConfig) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(features, units), *activated(units, config)]
        features = units
    return layers

"""Networks from observations to what is known of each action's return."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlray.algos.network_config import NetworkConfig
from rlray.algos.networks import InputNorm, activated, make_custom, make_trunk, orthogonal
from rlray.algos.noise import SIGMA, NoisyLinear
from rlray.envs.types import EnvSpec


class QHead(nn.Module):
    """N numbers for each of A actions [B, A * N] from features [B, F], through one hidden layer.

    Dueling: the layer is twice as wide, one half leads to V, the other to A, and (arXiv 1511.06581, eq. 9)

        Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')

    for each of the N numbers by itself, as in Rainbow (arXiv 1710.02298). Noisy: all its layers are `NoisyLinear`.
    """

    def __init__(self, features: int, hidden: int, actions: int, size: int, config: NetworkConfig) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Linear:
            if config.noisy:
                return NoisyLinear(inputs, outputs, SIGMA if config.noise_sigma is None else config.noise_sigma)
            return nn.Linear(inputs, outputs)

        self._shape = (actions, size)
        self.hidden = linear(features, hidden * (2 if config.dueling else 1))
        self.activation = nn.Sequential(*activated(hidden, config, 2 if config.dueling else 1))
        self.output = linear(hidden, actions * size)
        self.value = linear(hidden, size) if config.dueling else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.hidden(x))
        if self.value is None:
            return self.output(x)  # type: ignore[no-any-return]
        for_value, for_advantage = x.chunk(2, dim=1)
        advantage = self.output(for_advantage).view(-1, *self._shape)
        return (self.value(for_value)[:, None] + advantage - advantage.mean(dim=1, keepdim=True)).flatten(1)  # type: ignore[no-any-return]

    def shrink(self, gain: float) -> None:
        """Begin with outputs near 0: orthogonal weights of that gain."""
        for layer in filter(None, (self.output, self.value)):
            nn.init.orthogonal_(layer.weight, gain)


class QNetwork(nn.Module):
    """N numbers for each action [B, A, N] float32 of raw observations: ``input`` normalises, ``body`` does the rest.

    Two networks that share their input need to normalise once only: ``shaped(body(input(obs)))``.
    """

    def __init__(self, input: InputNorm, body: nn.Module, actions: int, size: int) -> None:
        super().__init__()
        self.input = input
        self.body = body
        self._shape = (actions, size)

    def forward(self, obs: Tensor) -> Tensor:
        return self.shaped(self.body(self.input(obs)))

    def shaped(self, outputs: Tensor) -> Tensor:
        """Outputs [B, A * N] of a body as [B, A, N] float32."""
        return outputs.float().view(-1, *self._shape)


def make_q_network(spec: EnvSpec, config: NetworkConfig, actions: int, seed: int, size: int = 1) -> QNetwork:
    """The network that ``config`` describes, with ``size`` numbers for each action.

    Its first weights depend on ``seed`` only. A custom network ``package.module:MyNet`` is called as ``MyNet(spec,
    actions * size)``, gets normalised float32 observations [B, *observation_shape] (pictures [B, C, H, W]) and returns
    [B, actions * size]; any `NoisyLinear` in it gets its noise.

    Raises:
        TypeError: the custom network is no ``torch.nn.Module``.
        ValueError: the network does not fit the observations.
    """
    config = config.resolved(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        input = InputNorm(spec, config)
        network = QNetwork(input, _make_body(spec, config, input.shape, actions, size), actions, size)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _make_body(spec: EnvSpec, config: NetworkConfig, shape: tuple[int, ...], actions: int, size: int) -> nn.Module:
    if ":" in config.kind:
        return make_custom(spec, config, actions * size)
    trunk, features = make_trunk(config, shape)
    assert config.hidden is not None
    head = QHead(features, config.hidden[-1], actions, size, config)
    body = nn.Sequential(trunk, head)
    if config.init == "orthogonal":
        orthogonal(body, math.sqrt(2))
        head.shrink(0.01)
    return body

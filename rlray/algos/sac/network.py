"""The networks of SAC: an actor, and two critics in one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlray.algos.network_config import NetworkConfig
from rlray.algos.networks import ACTIVATIONS, InputNorm, make_features, make_trunk, orthogonal
from rlray.envs.types import EnvSpec

CRITICS = 2


class Actor(nn.Module):
    """Outputs [B, 2 A] float32 of raw observations: see `rlray.algos.squashed.squash`."""

    def __init__(self, input: InputNorm, body: nn.Module) -> None:
        super().__init__()
        self.input = input
        self.body = body

    def forward(self, obs: Tensor) -> Tensor:
        return self.body(self.input(obs))  # type: ignore[no-any-return]


class Stacked(nn.Module):
    """Linear layers of equal size, side by side: [N, B, inputs] to [N, B, outputs], each with its own weights.

    One pass instead of N: small matrices on a CPU cost more in calls than in sums. First weights are as torch's.
    """

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)

    @torch.no_grad()
    def orthogonal(self, gain: float) -> None:
        """As `rlray.algos.networks.orthogonal`."""
        for weight in self.weight:
            nn.init.orthogonal_(weight, gain)
        self.bias.zero_()


class Critics(nn.Module):
    """Action values [2, B] of normalised observations and actions [B, A] in -1 ... 1, by two networks.

    Pictures become features first, in layers that the two share.
    """

    def __init__(self, trunk: nn.Module, layers: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.layers = layers

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        return self.of_features(self.trunk(x), actions)

    def of_features(self, features: Tensor, actions: Tensor) -> Tensor:
        """The same, of what ``trunk`` has made of the observations."""
        both = torch.cat([features, actions], dim=1)
        return self.layers(both.expand(CRITICS, -1, -1)).squeeze(2)  # type: ignore[no-any-return]


class Networks(NamedTuple):
    """Actor and critics; the latter take what the former's ``input`` gives."""

    actor: Actor
    critics: Critics


def make_networks(spec: EnvSpec, config: NetworkConfig, action_size: int, seed: int) -> Networks:
    """The networks that ``config`` describes, for actions of ``action_size`` numbers.

    Actor and critics have layers of the same sizes, and none in common. Their first weights depend on ``seed`` only. A
    custom network is as `make_features` has it; one hidden layer of 256 units follows it.

    Raises:
        TypeError: the custom network is no ``torch.nn.Module``, or does not say its features.
        ValueError: the network does not fit the observations.
    """
    config = config.resolved(spec)
    hidden = config.hidden or (256,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        input = InputNorm(spec, config)
        activation = ACTIVATIONS[config.activation]
        trunks = []
        for _ in range(2):
            if ":" in config.kind:
                trunks.append(make_features(spec, config))
            else:  # without its hidden layers
                trunks.append(make_trunk(config.model_copy(update={"hidden": hidden[:1]}), input.shape))
        (trunk, features), (critics_trunk, _) = trunks
        layers: list[nn.Module] = [trunk]
        stacked: list[nn.Module] = []
        sizes = (features, *hidden)
        for inputs, outputs in zip(sizes, hidden, strict=False):
            layers += [nn.Linear(inputs, outputs), activation()]
            stacked += [Stacked(CRITICS, inputs + (0 if stacked else action_size), outputs), activation()]
        head, values = nn.Linear(hidden[-1], 2 * action_size), Stacked(CRITICS, hidden[-1], 1)
        actor, critics = nn.Sequential(*layers, head), Critics(critics_trunk, nn.Sequential(*stacked, values))
        if config.init == "orthogonal":
            for module in (actor, critics):
                orthogonal(module, math.sqrt(2))
            for layer in stacked:
                if isinstance(layer, Stacked):
                    layer.orthogonal(math.sqrt(2))
            orthogonal(head, 0.01)
            values.orthogonal(1.0)
    channels_last = {"memory_format": torch.channels_last}
    return Networks(Actor(input, actor).to(**channels_last), critics.to(**channels_last))  # type: ignore[call-overload]

"""A network of your own, named in custom_network.yaml: layers that add to what goes into them; DQN balances a pole.

python examples/custom_network.py          or          rlray train --config examples/custom_network.yaml
"""

import math
from pathlib import Path

from torch import Tensor, nn

import rlray
from rlray.envs import EnvSpec


class MyNet(nn.Module):
    """Observations, normalised float32 [B, *shape], to outputs [B, outputs].

    DQN calls ``MyNet(spec, outputs)`` and takes what it returns for action values. PPO and SAC call ``MyNet(spec)`` and
    put layers of their own behind it; the attribute ``features`` says how many numbers these get.
    """

    def __init__(self, spec: EnvSpec, outputs: int = 64) -> None:
        super().__init__()
        self.features = outputs
        size = math.prod(spec.observation_space.shape or ())
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(size, 64), nn.ReLU())
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(2))
        self.last = nn.Linear(64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)  # type: ignore[no-any-return]


if __name__ == "__main__":
    result = rlray.train(Path(__file__).with_suffix(".yaml"))
    print(f"{result.steps} steps, {result.updates} updates, {result.seconds:.1f} s")
    print(f"evaluation: {result.evaluation}")

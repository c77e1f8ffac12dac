"""An algorithm of your own in one file, named in custom_algorithm.yaml: an actor-critic balances a pole in seconds.

python examples/custom_algorithm.py          or          rlray train --config examples/custom_algorithm.yaml
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor, nn

import rlray
from rlray.algos import Algorithm, Fragment, LearnerContext, Metrics, Settings, Weights
from rlray.algos.networks import export_weights, import_weights
from rlray.envs import EnvSpec


class MySettings(Settings):
    """What may stand under ``hyperparameters:``; unknown keys and wrong types are errors with file and line."""

    hidden: int = 64
    learning_rate: float = 3e-3
    discount: float = 0.99
    entropy: float = 0.01


class Network(nn.Module):
    """Logits of the actions [B, A], and values [B]."""

    def __init__(self, spec: EnvSpec, settings: MySettings) -> None:
        super().__init__()
        if not isinstance(spec.action_space, Discrete):
            raise ValueError(f"this example takes Discrete actions, but {spec.id} has {spec.action_space}")
        size = int(np.prod(spec.observation_space.shape or ()))
        sizes = {"logits": int(spec.action_space.n), "value": 1}
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Flatten(), nn.Linear(size, settings.hidden), nn.Tanh(), nn.Linear(settings.hidden, outputs)
                )
                for name, outputs in sizes.items()
            }
        )

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads["logits"](obs.float()), self.heads["value"](obs.float()).squeeze(1)


class MyPolicy:
    """Runs in every simulator and in the evaluator, on the CPU."""

    def __init__(self, spec: EnvSpec, settings: MySettings) -> None:
        self.network = Network(spec, settings).requires_grad_(False)

    def load(self, weights: Weights) -> None:
        import_weights(self.network, weights)

    def act(self, obs: np.ndarray, step: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        logits = self._logits(obs)
        actions = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn by their softmax
        return actions, {}  # what stands in the dict, [B, ...] each, comes to the learner as fragment.extras

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        return self._logits(obs).argmax(axis=1)

    def _logits(self, obs: np.ndarray) -> np.ndarray:
        return self.network(as_tensor(obs))[0].numpy()


class MyLearner:
    """Turns fragments of T steps of B environments into better weights, on a GPU where it was given one."""

    def __init__(self, spec: EnvSpec, settings: MySettings, context: LearnerContext) -> None:
        torch.manual_seed(context.seed)
        self.settings, self.device = settings, context.device
        self.network = Network(spec, settings).to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)

    def learn(self, fragment: Fragment) -> Metrics:
        valid = as_tensor(fragment.valid).flatten().to(self.device)  # dummy reset steps are not learned from
        obs = as_tensor(fragment.obs).flatten(0, 1).to(self.device)[valid]
        actions = as_tensor(fragment.action).flatten().to(self.device)[valid]
        returns = self.returns(fragment).flatten()[valid]
        logits, values = self.network(obs)
        log_probs = logits.log_softmax(dim=1)
        advantage = (returns - values).detach()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain = (advantage * log_probs.gather(1, actions[:, None]).squeeze(1)).mean()
        entropy = -(log_probs.exp() * log_probs).sum(dim=1).mean()
        loss = 0.5 * (returns - values).square().mean() - gain - self.settings.entropy * entropy
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"updates": 1.0, "loss": loss.item(), "entropy": entropy.item()}

    @torch.no_grad()
    def returns(self, fragment: Fragment) -> Tensor:
        """[T, B] what rewards and the value of what follows add up to.

        Nothing follows a termination. A truncated episode was only cut off: its true last observation has a value.
        """

        def value(obs: np.ndarray) -> Tensor:
            return self.network(as_tensor(obs).to(self.device))[1]

        reward, terminated, truncated = (
            as_tensor(part).to(self.device) for part in (fragment.reward, fragment.terminated, fragment.truncated)
        )
        after_end = torch.zeros_like(reward)
        if len(fragment.final_index):
            t, b = as_tensor(fragment.final_index).T
            after_end[t, b] = value(fragment.final_obs)
        after_end[terminated] = 0
        following, result = value(fragment.last_obs), torch.empty_like(reward)
        for t in reversed(range(len(reward))):
            following = torch.where(terminated[t] | truncated[t], after_end[t], following)
            following = result[t] = reward[t] + self.settings.discount * following
        return result

    def weights(self) -> Weights:
        return export_weights(self.network)

    def state(self) -> dict[str, Any]:
        """All that a run goes on from: with it ``--resume`` is exact."""
        return {"network": dict(self.network.state_dict()), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def as_tensor(array: np.ndarray) -> Tensor:
    """A copy: what comes from other processes lies in shared memory that nobody may write to."""
    return torch.from_numpy(array.copy())


MyAlgo = Algorithm(name="my_algo", config=MySettings, make_policy=MyPolicy, make_learner=MyLearner)

if __name__ == "__main__":
    result = rlray.train(Path(__file__).with_suffix(".yaml"))
    print(f"{result.steps} steps, {result.updates} updates, {result.seconds:.1f} s")
    print(f"evaluation: {result.evaluation}")

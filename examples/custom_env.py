"""Train on an environment of your own, defined right here: walk to the marked end of a corridor, in seconds.

python examples/custom_env.py
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import rlray


class Corridor(gymnasium.Env[np.ndarray[Any, Any], np.int64]):
    """A corridor of ``length`` cells; the agent begins in the middle and is told which end holds the prize.

    Actions: 0 goes left, 1 goes right. Reward: 1 for the right end, -1 for the wrong one, -0.01 a step.
    """

    def __init__(self, length: int = 7) -> None:
        self.length = length
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)  # place and side of the prize
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.length // 2
        self.prize = int(self.np_random.integers(2)) * (self.length - 1)
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += 1 if action == 1 else -1
        ended = self.place in (0, self.length - 1)
        reward = -0.01 + (1.0 if self.place == self.prize else -1.0) * ended
        return self._observe(), reward, ended, False, {}

    def _observe(self) -> np.ndarray[Any, Any]:
        scale = (self.length - 1) / 2
        return np.array([self.place / scale - 1, self.prize / scale - 1], np.float32)


CONFIG = {
    "name": "corridor",
    "algo": "dqn",
    "env": "corridor",  # the class given to train() takes its place
    "env_settings": {"length": 9},
    "hyperparameters": {
        "network": {"kind": "mlp", "hidden": [32]},
        "batch_size": 32,
        "samples_per_step": 16,
        "replay_capacity": 5_000,
        "warmup_steps": 500,
        "learning_rate": 2e-3,
        "target_update_every": 50,
        "epsilon": [[0, 1], [500, 1], [2_000, 0.05]],
    },
    "simulators": {"envs": 4},
    "stop": {"steps": 4_000},
    "eval": {"every": None, "final_episodes": 20},
    "checkpoint": {"every": None},
}

if __name__ == "__main__":
    result = rlray.train(CONFIG, env=Corridor)
    print(f"{result.steps} steps, {result.updates} updates, {result.seconds:.1f} s")
    print(f"evaluation: {result.evaluation}")

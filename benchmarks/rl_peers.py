"""What `rl.py` measures of others: the cases of `rl_cases.py`, by ``NAME · PEER``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from case import Cases, Run

cases = Cases()
ENVS, THREADS = 64, 2


def peer(case: str, name: str) -> Callable[[Any], Any]:
    """Decorate what ``name`` does in ``case``."""
    return cases.add(f"{case} · {name}", "steps/s", init=None)


@peer("ALE Pong, simulators only", "ale-py")
def ale_py(run: Run) -> list[float]:
    """Its C++ vector environment in a plain loop."""
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv("pong", ENVS, num_threads=THREADS)
    env.reset(seed=0)
    return _stepped(run, env, np.int64)


@peer("ALE Pong, simulators only", "EnvPool")
def envpool(run: Run) -> list[float]:
    """Synchronous, as the others; with its own preprocessing to the same pictures."""
    env = run.ray.make_gymnasium("Pong-v5", num_envs=ENVS, num_threads=THREADS, seed=0)
    env.reset()
    return _stepped(run, env, np.int32)


def _stepped(run: Run, env: Any, dtype: Any) -> list[float]:
    rng = np.random.default_rng(0)
    run.windows = run.size(3, 1)  # as long as rlray plays
    run.window = run.size(3, 1)
    return run.rate(lambda: env.step(rng.integers(0, 6, ENVS).astype(dtype)), ENVS)


@peer("DQN on ALE Pong, SB3's hyperparameters", "SB3")
def sb3_dqn(run: Run) -> list[float]:
    """Its defaults but for a smaller replay and an earlier beginning, which change nothing in its speed."""
    import ale_py
    import gymnasium
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    plain = {"frameskip": 1, "repeat_action_probability": 0.0}
    env = VecFrameStack(make_atari_env("ALE/Pong-v5", n_envs=1, seed=0, env_kwargs=plain), n_stack=4)
    model = DQN(
        "CnnPolicy", env, buffer_size=20_000, learning_starts=run.size(1_000, 50), batch_size=32, train_freq=4,
        gradient_steps=1, target_update_interval=1_000, learning_rate=1e-4,
    )  # fmt: skip
    return [_learned(model, run.size(3_500, 150), run.size(1_500, 60))]


@peer("PPO on Lunar Lander, the zoo's hyperparameters", "SB3")
def sb3_ppo(run: Run) -> list[float]:
    """All environments in one process, which is its fastest here."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("LunarLander-v3", n_envs=16, seed=0)
    length = run.size(1024, 64)
    model = PPO("MlpPolicy", env, n_steps=length, batch_size=64, n_epochs=4, gamma=0.999, gae_lambda=0.98,
                ent_coef=0.01, device="cpu")  # fmt: skip
    return [_learned(model, 5 * 16 * length, 16 * length)]


def _learned(model: Any, steps: int, after: int) -> float:
    """Steps per second from ``after`` on."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Watch(BaseCallback):
        begun = (0, 0.0)

        def _on_step(self) -> bool:
            if not self.begun[0] and self.num_timesteps >= after:
                self.begun = self.num_timesteps, time.perf_counter()
            return True

    watch = Watch()
    model.learn(steps, callback=watch)
    return float((model.num_timesteps - watch.begun[0]) / (time.perf_counter() - watch.begun[1]))


@peer("PPO on Lunar Lander, the zoo's hyperparameters", "RLlib")
def rllib_ppo(run: Run) -> list[float]:
    """Two env runners of 8 environments, and minibatches of 1024 instead of 64, with which it would be far slower."""
    from ray.rllib.algorithms.ppo import PPOConfig

    config = (
        PPOConfig()
        .environment("LunarLander-v3")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=8, rollout_fragment_length="auto")
        .training(train_batch_size_per_learner=run.size(16_384, 512), minibatch_size=run.size(1_024, 128), num_epochs=4,
                  gamma=0.999, lambda_=0.98, entropy_coeff=0.01)
    )  # fmt: skip
    algorithm = config.build_algo()
    algorithm.train()
    samples = []
    for _ in range(run.size(4, 1)):
        begin = time.perf_counter()
        algorithm.train()
        samples.append(run.size(16_384, 512) / (time.perf_counter() - begin))
    algorithm.stop()
    return samples

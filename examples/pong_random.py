"""Simulations as tasks: thousands of games of the bundled Pong simulator with random actions, on every CPU.

python examples/pong_random.py [games] [steps]
"""

import sys
import time

import numpy as np

import rlray as ray


@ray.remote
def play(games: int, steps: int, seed: int) -> tuple[int, float]:
    """Play ``games`` games together for ``steps`` steps; returns (agent steps, sum of rewards)."""
    from rlray.envs import make_vec

    rng = np.random.default_rng(seed)
    env = make_vec("rlray/Pong-v0", games, seed=seed)
    env.reset(seed=seed)
    actions, total, played = int(env.spec.action_space.n), 0.0, 0
    for _ in range(steps):
        moved = env.step(rng.integers(actions, size=games))
        total += float(moved.reward.sum())
        played += int(moved.valid.sum())
    env.close()
    return played, total


if __name__ == "__main__":
    games, steps = (int(text) for text in (*sys.argv[1:], "1000", "500")[:2])
    ray.init()
    cpus = int(ray.cluster_resources()["CPU"])
    start = time.perf_counter()
    results = ray.get([play.remote(games, steps, seed) for seed in range(cpus)])
    seconds = time.perf_counter() - start
    played = sum(count for count, _ in results)
    print(f"{cpus} tasks, {played:,} steps in {seconds:.2f} s: {played / seconds:,.0f} steps/s")
    print(f"mean reward per step: {sum(total for _, total in results) / played:+.4f}")

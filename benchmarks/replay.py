"""Replays beside those of Stable-Baselines3, TorchRL and cpprb: putting in, drawing 256, new priorities, and memory.

python benchmarks/replay.py [--peer-python PATH]: writes docs/results/replay.md and replay.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from memory import rollup

HERE = Path(__file__).resolve().parent
BATCH, ENVS, STEPS = 256, 8, 16
SHAPES: dict[str, tuple[tuple[int, ...], str, int]] = {  # observation, dtype, transitions held
    "vector": ((8,), "float32", 100_000),
    "pixels": ((4, 84, 84), "uint8", 20_000),
}
SIDES = {"rlray": "rlray", "sb3": "stable_baselines3", "torchrl": "torchrl", "cpprb": "cpprb"}
NAMES = {"rlray": "rlray", "sb3": "Stable-Baselines3", "torchrl": "TorchRL", "cpprb": "cpprb"}
COLUMNS = {
    "insert": "put in, µs a transition",
    "uniform": "draw 256 uniformly, ms",
    "prioritized": "draw 256 by priority, ms",
    "update": "256 new priorities, ms",
    "bytes": "memory, bytes a transition",
}


LEGEND = """\
* rlray rebuilds stacks and n-step windows from frames stored once, and tells truncations from terminations.
* Stable-Baselines3's buffer, with `optimize_memory_usage=True`, keeps stacks whole, knows one step and no priorities,
  and cannot tell them apart in this form.
* TorchRL's keeps both observations of each transition; cpprb's (C++), with `next_of`, one, stacks whole.
"""


def best(call: Callable[[], Any], seconds: float = 4.0, most: int = 400) -> float:
    """The least of many durations, in seconds: what it takes while nobody else has the CPU."""
    found, until = float("inf"), time.perf_counter() + seconds
    for _ in range(most):
        begin = time.perf_counter()
        call()
        found = min(found, time.perf_counter() - begin)
        if time.perf_counter() > until:
            break
    return found


def frames(shape: tuple[int, ...], dtype: str, count: int) -> np.ndarray:
    """Observations, the same for all sides; those of a stack are equal, which no replay looks at."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 255, (count, *shape)) if dtype == "uint8" else rng.normal(size=(count, *shape))
    return drawn.astype(dtype)


def _box(shape: tuple[int, ...], dtype: str) -> Any:
    from gymnasium import spaces

    low, high = (0, 255) if dtype == "uint8" else (-np.inf, np.inf)
    return spaces.Box(low, high, shape, np.dtype(dtype).type)


def rlray(shape: tuple[int, ...], dtype: str, capacity: int) -> dict[str, float]:
    """Fragments of 16 steps of 8 environments, as simulators send them."""
    from gymnasium import spaces

    from rlray.algos.replay import NStepReplay, Priorities
    from rlray.algos.types import Fragment
    from rlray.envs.types import EnvSpec

    stacked = len(shape) == 3
    spec = EnvSpec("B", _box(shape, dtype), spaces.Discrete(6), shape[0] if stacked else 1)
    by_time = (STEPS, ENVS)
    nothing = np.zeros(by_time, np.bool_)
    obs = frames(spec.frame_shape, dtype, STEPS * ENVS).reshape(*by_time, *spec.frame_shape)

    def fragment(sequence: int) -> Fragment:
        return Fragment(
            stream=0, sequence=sequence, obs=obs, first=nothing if sequence else ~nothing,
            action=np.ones(by_time, np.int64), reward=np.ones(by_time, np.float32), terminated=nothing,
            truncated=nothing, valid=~nothing, final_index=np.zeros((0, 2), np.int64),
            final_obs=np.zeros((0, *spec.frame_shape), dtype), last_obs=np.zeros((ENVS, *shape), dtype),
        )  # fmt: skip

    result = {}
    for name, priorities in (("uniform", None), ("prioritized", Priorities())):
        before = rollup(os.getpid())["Pss"]
        replay = NStepReplay(spec, capacity, discount=0.99, priorities=priorities)
        for sequence in range(capacity // (STEPS * ENVS) + 2):
            replay.add(fragment(sequence))
        if priorities is None:
            result["bytes"] = (rollup(os.getpid())["Pss"] - before) / capacity
        following = map(fragment, itertools.count(sequence + 1))
        rng, batch = np.random.default_rng(0), replay.make_batch(BATCH)
        result[name] = best(partial(replay.sample, BATCH, rng, batch))
        result["insert"] = best(partial(lambda to, parts: to.add(next(parts)), replay, following)) / (STEPS * ENVS)
        replay.sample(BATCH, rng, batch)
        if priorities is not None:
            result["update"] = best(partial(replay.update, batch.index, rng.random(BATCH)))
    return result


def sb3(shape: tuple[int, ...], dtype: str, capacity: int) -> dict[str, float]:
    """``optimize_memory_usage``, its smallest form: observations once, stacks whole, truncations unknown."""
    import torch
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    torch.set_num_threads(1)
    obs = frames(shape, dtype, ENVS)
    before = rollup(os.getpid())["Pss"]
    replay = ReplayBuffer(
        capacity, _box(shape, dtype), spaces.Discrete(6), device="cpu", n_envs=ENVS, optimize_memory_usage=True,
        handle_timeout_termination=False,
    )  # fmt: skip
    ones, nothing = np.ones(ENVS), np.zeros(ENVS, np.bool_)
    infos: list[dict[str, Any]] = [{} for _ in range(ENVS)]

    def add() -> None:
        replay.add(obs, obs, ones, ones, nothing, infos)

    for _ in range(capacity // ENVS):
        add()
    used = (rollup(os.getpid())["Pss"] - before) / capacity
    return {"bytes": used, "insert": best(add) / ENVS, "uniform": best(lambda: replay.sample(BATCH))}


def torchrl(shape: tuple[int, ...], dtype: str, capacity: int) -> dict[str, float]:
    """Transitions with their next observations, 128 at a time, in lazily made tensors."""
    import torch
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer, TensorDictReplayBuffer

    torch.set_num_threads(1)
    count = STEPS * ENVS
    obs = torch.from_numpy(frames(shape, dtype, count))

    def several() -> TensorDict:
        rest = {"action": torch.ones(count, dtype=torch.int64)}
        following = {"observation": obs, "reward": torch.ones(count), "done": torch.zeros(count, dtype=torch.bool)}
        return TensorDict({"observation": obs, **rest, "next": TensorDict(following, [count])}, [count])

    result = {}
    for name in ("uniform", "prioritized"):
        before = rollup(os.getpid())["Pss"]
        options: dict[str, Any] = {"storage": LazyTensorStorage(capacity), "batch_size": BATCH}
        try:
            made: Any = (
                TensorDictReplayBuffer(**options)
                if name == "uniform"
                else TensorDictPrioritizedReplayBuffer(alpha=0.6, beta=0.4, **options)
            )
        except RuntimeError as why:  # its compiled tree does not load with every version of torch
            result["note"] = f"by priority: {why}"
            break
        add = partial(lambda replay: replay.extend(several()), made)
        for _ in range(capacity // count + 1):
            add()
        if name == "uniform":
            result["bytes"] = (rollup(os.getpid())["Pss"] - before) / capacity
        result[name] = best(made.sample)
        result["insert"] = best(add) / count
        if name == "prioritized":
            drawn = made.sample()
            drawn["td_error"] = torch.rand(BATCH)
            result["update"] = best(partial(made.update_tensordict_priority, drawn))
        del made, options, add
    return result


def cpprb(shape: tuple[int, ...], dtype: str, capacity: int) -> dict[str, Any]:
    """A replay in C++, 128 at a time; ``next_of`` keeps each observation once, stacks whole."""
    from cpprb import PrioritizedReplayBuffer, ReplayBuffer

    count = STEPS * ENVS
    obs = frames(shape, dtype, count)
    fields = {"obs": {"shape": shape, "dtype": obs.dtype}, "act": {"dtype": np.int64}, "rew": {}, "done": {}}
    steps = {"obs": obs, "act": np.ones(count), "rew": np.ones(count), "next_obs": obs, "done": np.zeros(count)}
    result = {}
    for name, kind in (("uniform", ReplayBuffer), ("prioritized", partial(PrioritizedReplayBuffer, alpha=0.6))):
        before = rollup(os.getpid())["Pss"]
        made = kind(capacity, fields, next_of="obs")
        for _ in range(capacity // count + 1):
            made.add(**steps)
        if name == "uniform":
            result["bytes"] = (rollup(os.getpid())["Pss"] - before) / capacity
        sample = partial(made.sample, BATCH, **({"beta": 0.4} if name == "prioritized" else {}))
        result[name] = best(sample)
        result["insert"] = best(partial(made.add, **steps)) / count
        if name == "prioritized":
            index = sample()["indexes"]
            result["update"] = best(partial(made.update_priorities, index, np.random.default_rng(0).random(BATCH)))
    return result


def in_a_process_of_its_own(python: str, side: str, kind: str) -> dict[str, Any]:
    """Its figures, or why there are none."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    answer = subprocess.run(
        [python, str(HERE / "replay.py"), "--child", side, kind],
        capture_output=True, text=True, check=False, env=environment, timeout=900,
    )  # fmt: skip
    if answer.returncode:
        return {"error": (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def page(data: dict[str, Any]) -> str:
    """The report."""
    from report import figure, short, table

    about = data["about"]
    text = (
        f"# Replays\n`{about['command']}`\n\n{about['date']} · {about['machine']} · load {about['load']} · "
        f"rlray {about['commit']}.\n\nThe best of up to 400 repetitions in one thread, each side in a process of its "
        f"own, the best of {about['rounds']} rounds. **The machine was shared**: where other work runs, figures that "
        f"hang on memory are upper bounds.\n\n"
    )
    notes = ""
    for kind, (shape, dtype, capacity) in SHAPES.items():
        text += f"## {kind}: {dtype} {list(shape)}, {capacity:,} transitions held\n"
        rows = []
        for side, found in data[kind].items():
            label = f"{NAMES[side]} {found.get('version', '')}".strip()
            if "error" in found:
                rows.append([label, short(found["error"]), *[""] * (len(COLUMNS) - 1)])
                continue
            notes += f"* {label}, {kind}: {found['note']}\n" if "note" in found else ""
            scale = {"insert": 1e6, "bytes": 1}
            rows.append([label, *(figure(found[n] * scale.get(n, 1e3)) if n in found else "–" for n in COLUMNS)])
        text += table(["", *COLUMNS.values()], rows) + "\n"
    return text + notes + LEGEND


def main() -> None:
    """Measure all sides, write the report; with --child one side, to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has the others")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, kind = options.child
        found = {"rlray": rlray, "sb3": sb3, "torchrl": torchrl, "cpprb": cpprb}[side](*SHAPES[kind])
        version = "" if side == "rlray" else importlib.metadata.version(SIDES[side])
        print(json.dumps({**found, "version": version}))
        return
    import report

    about = {"command": report.command(), "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    about |= {"machine": report.machine(), "commit": report.commit(), "load": report.load(), "rounds": options.rounds}
    data: dict[str, Any] = {"about": about}
    for kind in SHAPES:
        data[kind] = {}
        for _ in range(options.rounds):
            for side in SIDES:
                python = sys.executable if side == "rlray" else options.peer_python
                found, so_far = in_a_process_of_its_own(python, side, kind), data[kind].get(side, {})
                keep = {n: min(found[n], so_far.get(n, found[n])) for n in COLUMNS if n in found}
                data[kind][side] = {**found, **keep}
    report.save(options.out, "replay", data, page(data))


if __name__ == "__main__":
    main()

"""The memory of a run: what it will take, what is free, and what is refused before the start."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray import cli
from rlray.algos.replay import NStepReplay
from rlray.config import ConfigError, RunConfig
from rlray.train.fragments import FragmentBuilder
from rlray.train.memory import Free, check, fragment_bytes, free_memory, parts_of
from rlray.train.run import plan_for, resolve
from rlray.train.sources import EnvSource
from tests.support import needs_proc

GB = 10**9
MEMINFO = (
    "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:   12000000 kB\nHugePages_Total:       0\n"
)


def tree(root: Path, **files: str) -> Path:
    """Files below ``root``; ``__`` stands for a slash and ``_dot_`` for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_limits(tmp_path: Path) -> None:
    assert free_memory(tree(tmp_path, proc__meminfo=MEMINFO)) == Free(12_288_000_000, 16_384_000_000, "on this machine")
    assert free_memory(tmp_path / "nowhere") is None


def test_version_2_of_cgroups_with_a_limit_above_the_process(tmp_path: Path) -> None:
    """The group's own limit is none, the one above it counts; files in its cache can be given up."""
    own, above = "sys__fs__cgroup__pod__job__memory_dot_", "sys__fs__cgroup__pod__memory_dot_"
    files = {
        f"{own}max": "max\n",
        f"{own}current": "5\n",
        f"{above}max": f"{8 * GB}\n",
        f"{above}current": f"{3 * GB}\n",
    }
    files[f"{above}stat"] = f"anon {2 * GB}\ninactive_file {GB}\nactive_file 17\n"
    root = tree(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/pod/job\n", **files)
    assert free_memory(root) == Free(6 * GB, 8 * GB, "in the cgroup of this process")


def test_version_1_of_cgroups(tmp_path: Path) -> None:
    own = "sys__fs__cgroup__memory__docker__memory_dot_"
    files = {f"{own}limit_in_bytes": f"{4 * GB}", f"{own}usage_in_bytes": f"{GB}"}
    files[f"{own}stat"] = f"inactive_file 1\ntotal_inactive_file {GB // 2}\n"
    files["sys__fs__cgroup__memory__memory_dot_limit_in_bytes"] = "9223372036854771712"
    files["sys__fs__cgroup__memory__memory_dot_usage_in_bytes"] = "5"
    lines = "9:name=systemd:/\n4:cpu,memory:/docker\n0::/\n"
    root = tree(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup=lines, **files)
    assert free_memory(root) == Free(GB * 7 // 2, 4 * GB, "in the cgroup of this process")


@needs_proc
def test_this_machine() -> None:
    free = free_memory()
    assert free is not None
    assert 10**7 < free.bytes <= free.total


def config(**changes: Any) -> RunConfig:
    values = {
        "env": "rlray/Pong-v0",
        "env_settings": {"obs": "pixels"},
        "algo": "dqn",
        "hyperparameters": {"replay_capacity": 200_000},
        "stop": {"steps": 10},
        "simulators": {"envs": 3, "fragment_length": 5, "num_cpus": 0.1},
        "learner": {"num_cpus": 0.1},
    }
    return RunConfig.from_dict({**values, **changes})


def test_the_parts_are_what_is_really_made() -> None:
    checked, source = resolve(config())
    spec, plan = source.spec(), plan_for(checked)
    replay, *others = parts_of(checked, spec, plan)
    assert (replay.what, replay.key, replay.value) == ("replay", "hyperparameters.replay_capacity", 200_000)
    assert replay.bytes == NStepReplay(spec, 200_000).memory_bytes() > 200_000 * 84 * 84
    assert [part.what for part in others] == ["processes", "fragments"]
    env = EnvSource.of("rlray/Pong-v0", {"obs": "pixels"}).make(3)
    builder, obs = FragmentBuilder(spec, 5, 3), env.reset(0)
    for _ in range(5):
        builder.before(obs, np.zeros(3, np.bool_), np.zeros(3, np.int64), {})
        answer = env.step(np.zeros(3, np.int64))
        builder.after(answer)
        obs = answer.obs
    fragment = builder.finish(0, 0, obs)
    real = sum(part.nbytes for part in vars(fragment).values() if isinstance(part, np.ndarray))
    assert fragment_bytes(spec, 5, 3) == real
    assert others[1].bytes == 2 * real


def test_a_rollout_counts_too() -> None:
    checked, source = resolve(config(algo="ppo", hyperparameters={"rollout_steps": 100_000}))
    (rollout, *_) = parts_of(checked, source.spec(), plan_for(checked))
    assert (rollout.what, rollout.key) == ("rollout", "hyperparameters.rollout_steps")
    assert rollout.bytes == pytest.approx((2 + 4) * 100_000 * 4 * 84 * 84, rel=0.01)  # bytes twice, and float32


def test_what_fits_is_told_and_what_does_not_is_refused_with_what_would() -> None:
    checked, source = resolve(config())
    spec, plan = source.spec(), plan_for(checked)
    free = Free(2 * GB, 3 * GB, "on this machine")
    line = check(checked, parts_of(checked, spec, plan), free)
    assert line.startswith("memory: 1.4 GB replay + 480 MB processes + 0.")
    assert line.endswith("; 2.0 GB of 3.0 GB are free")
    assert check(checked, parts_of(checked, spec, plan), None).endswith("without environments and networks")

    def parts(capacity: int) -> Any:
        return parts_of(config(hyperparameters={"replay_capacity": capacity}), spec, plan)

    with pytest.raises(ConfigError, match=r"replay_capacity 1_000_000 means 7\.1 GB of replay") as caught:
        check(checked, parts(1_000_000), free)
    assert "the run would take 7.6 GB, but 2.0 GB of 3.0 GB are free on this machine" in str(caught.value)
    fits = int(re.search(r"lower it to ([\d_]+) or less", str(caught.value))[1])  # type: ignore[index]
    assert check(checked, parts(fits), free)
    with pytest.raises(ConfigError):
        check(checked, parts(int(fits * 1.1)), free)
    with pytest.raises(ConfigError, match="lower it, and what else takes memory"):
        check(checked, parts(10_000), Free(GB // 10, GB, "on this machine"))


ABSURD = """\
env: CartPole-v1
algo: dqn
hyperparameters:
  replay_capacity: 2_000_000_000
stop: {steps: 100}
"""


@needs_proc
def test_an_absurd_replay_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "absurd.yaml").write_text(ABSURD)
    assert cli.main(["train", "--config", "absurd.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("absurd.yaml:4: replay_capacity 2_000_000_000 means ")
    assert re.search(r"are free .*: lower it to [\d_]+ or less\n$", said)
    assert os.listdir(tmp_path) == ["absurd.yaml"]

"""How much memory a run will take, told and checked before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlray.algos.registry import get_algorithm
from rlray.config import ConfigError, RunConfig
from rlray.envs.types import EnvSpec
from rlray.train.groups import spare
from rlray.train.plan import Plan

BASE_BYTES = 300_000_000
"""Driver, zygote, node and a learner with a small network: measured as proportional set size, Linux, torch 2.13."""
ACTOR_BYTES = 90_000_000
"""A simulator or evaluator without its environments, the same way."""

_MOST = 1 << 60  # what version 1 of cgroups says where there is no limit is more


@dataclass(frozen=True)
class Part:
    """Something that takes memory, and the key that says how much; None where no key does."""

    what: str
    bytes: int
    key: str | None = None
    value: int = 0


@dataclass(frozen=True)
class Free:
    """Memory that may still be taken, and all there is, here or in the group of processes that this one belongs to."""

    bytes: int
    total: int
    where: str


def parts_of(config: RunConfig, spec: EnvSpec, plan: Plan) -> list[Part]:
    """What the run will hold once everything is full, the largest first. Environments and networks are not in it."""
    memory = get_algorithm(config.algo).memory
    held = memory(spec, config.hyperparameters) if memory else ()
    parts = [Part(one.what, one.bytes, f"hyperparameters.{one.setting}", one.value) for one in held]
    players = plan.tasks_at_once or sum(share.simulators for share in plan.groups)
    if not plan.tasks_at_once:
        for index, group in enumerate(config.groups):
            fragments = (group.count + spare(group)) * fragment_bytes(spec, group.fragment_length, group.envs)
            key = f"{config.group_key(index)}.fragment_length"
            parts.append(Part("fragments", fragments, key, group.fragment_length))
    parts.append(Part("processes", BASE_BYTES + ACTOR_BYTES * (players + 1)))
    return sorted(parts, key=lambda part: -part.bytes)


def fragment_bytes(spec: EnvSpec, length: int, envs: int) -> int:
    """What a fragment of ``length`` steps of ``envs`` environments takes, without what the policy adds."""
    frame = _bytes(spec.observation_space.dtype, spec.frame_shape)
    action = _bytes(spec.action_space.dtype, spec.action_space.shape or ())
    last = _bytes(spec.observation_space.dtype, spec.observation_space.shape or ())
    return envs * (length * (frame + action + 4 + 4) + last)  # a float32 reward, four flags


def check(config: RunConfig, parts: list[Part], free: Free | None) -> str:
    """A line about ``parts`` and ``free``.

    Raises: ConfigError where it does not fit, with the key that is to be lowered, and how far.
    """
    needed = sum(part.bytes for part in parts)
    told = " + ".join(f"{size(part.bytes)} {part.what}" for part in parts)
    if free is None:
        return f"memory: {told}, without environments and networks"
    if needed > free.bytes:
        raise _too_much(config, parts, needed, free)
    return f"memory: {told}, without environments and networks; {size(free.bytes)} of {size(free.total)} are free"


def free_memory(root: Path = Path("/")) -> Free | None:
    """What this machine and the cgroups of this process (versions 1 and 2) leave; None where that cannot be told."""
    return min(_limits(root), key=lambda free: free.bytes, default=None)


def size(count: float) -> str:
    """Bytes, for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _too_much(config: RunConfig, parts: list[Part], needed: int, free: Free) -> ConfigError:
    largest = next((part for part in parts if part.key is not None), None)
    if largest is None or largest.key is None:
        told = f"its processes would take {size(needed)}, but {size(free.bytes)} of {size(free.total)} are free"
        return config.error("algo", f"{told} {free.where}: end what else takes memory, or run fewer tasks at once")
    others = needed - largest.bytes
    fits = int(largest.value * (free.bytes - others) / largest.bytes)
    digits = max(0, len(str(fits)) - 2)
    fits = fits // 10**digits * 10**digits
    remedy = f"lower it to {fits:_} or less" if fits > 0 else "lower it, and what else takes memory"
    name = largest.key.rpartition(".")[2]
    rest = " + ".join(f"{size(part.bytes)} {part.what}" for part in parts if part is not largest)
    return config.error(
        largest.key,
        f"{name} {largest.value:_} means {size(largest.bytes)} of {largest.what}, and with {rest} the run would take "
        f"{size(needed)}, but {size(free.bytes)} of {size(free.total)} are free {free.where}: {remedy}",
    )


def _bytes(dtype: object, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize  # type: ignore[call-overload, no-any-return]


def _limits(root: Path) -> Iterator[Free]:
    """Of the machine, and of every group above this process that has a limit."""
    machine = _numbers(root / "proc/meminfo")
    if "MemAvailable:" not in machine:
        return
    total = machine["MemTotal:"] * 1024
    yield Free(machine["MemAvailable:"] * 1024, total, "on this machine")
    for group, files in _groups(root):
        limit, used, reclaimable = _group(group, *files)
        if limit is not None and used is not None and limit < min(total, _MOST):
            yield Free(max(0, limit - used + reclaimable), limit, "in the cgroup of this process")


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folder of each cgroup of this process and of those above it, and the names of three files in it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = Path(path.lstrip("/"))
        for folder in (inner, *inner.parents):
            yield top / folder, files


def _group(folder: Path, limit: str, used: str, inactive: str) -> tuple[int | None, int | None, int]:
    """A group's limit, what it uses, and how much of that are files that the kernel gives up when it must."""
    return _number(folder / limit), _number(folder / used), _numbers(folder / "memory.stat").get(inactive, 0)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return None


def _numbers(file: Path) -> dict[str, int]:
    """The first number of every line, by its first word."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}

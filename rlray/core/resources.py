"""Resources of a node: what it has, what a request asks. Fractions are exact to 1/10,000, as in Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

Shape = tuple[tuple[str, int], ...]
"""A request or a total: (name, amount in 1/10,000) pairs sorted by name, zeros left out. Hashable and exact."""

UNIT = 10_000
MEMORY = "memory"
"""The resource that counts bytes of memory. It is booked, never enforced, as in Ray."""


class Wish(NamedTuple):
    """What the options of a task or an actor ask for, before the process that asks adds what it passes on."""

    resources: Shape = ()
    environment: str = ""  # its own `runtime_env`, see `rlray.core.runtime_env`
    group: bytes | None = None  # None: nothing was said, b"": none
    bundle: int = -1  # any
    bundles: tuple[Shape, ...] = ()  # of the group
    capture: bool | None = None  # None: nothing was said
    node: str = ""  # the only node that will do, if one was named
    rather: str = ""  # "SPREAD", or the node that will do best; means nothing on one machine


class Request(NamedTuple):
    """What a task or an actor asks of the scheduler. Those with equal requests form a scheduling class."""

    resources: Shape = ()
    environment: str = ""  # what its worker must be set up with, see `rlray.core.runtime_env`
    group: bytes = b""  # the placement group whose bundles the resources come from
    bundle: int = -1  # which of them; -1: any
    capture: tuple[Shape, ...] = ()  # the group's bundles, if what it starts itself goes there too


PLAIN = Request()


def shape(amounts: Mapping[str, float | None]) -> Shape:
    """Turn amounts by name into a `Shape`.

    Raises: TypeError for an amount that is no number; ValueError for a negative one, one finer than 1/10,000,
    or a fraction of GPUs above one (a task gets whole GPUs or a part of one).
    """
    items = []
    for name, amount in sorted(amounts.items()):
        if amount is None:
            continue
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise TypeError(f"resource {name!r} must be a number, got {amount!r}")
        if name == MEMORY:
            amount = int(amount)  # whole bytes
        parts = round(amount * UNIT)
        if amount < 0:
            raise ValueError(f"resource {name!r} must not be negative, got {amount!r}")
        if abs(parts - amount * UNIT) > 1e-6:
            raise ValueError(f"resource {name!r} is kept to 1/{UNIT}, got {amount!r}; round it")
        if name == "GPU" and parts > UNIT and parts % UNIT:
            raise ValueError(f"num_gpus above 1 must be a whole number, got {amount!r}")
        if parts:
            items.append((name, parts))
    return tuple(items)


def amounts(of: Shape) -> dict[str, float]:
    """The amounts by name that a shape stands for."""
    return {name: parts / UNIT for name, parts in of}


def describe(of: Shape) -> str:
    """A shape for people: ``{CPU: 2, GPU: 0.5}``."""
    return "{" + ", ".join(f"{name}: {_number(parts)}" for name, parts in of) + "}"


def _number(parts: int) -> str:
    return f"{parts / UNIT:g}" if parts % UNIT else str(parts // UNIT)


def fits(request: Shape, within: Mapping[str, int]) -> bool:
    """Whether ``within`` (amounts in 1/10,000 by name) covers the request."""
    return all(within.get(name, 0) >= parts for name, parts in request)


def count_gpus() -> int:
    """NVIDIA GPUs this process may use, found without touching CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[len("nvidia") :].isdigit()])


def gpu_names() -> list[str]:
    """The ids CUDA knows the usable GPUs by, in order."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one.strip() for one in visible.split(",") if one.strip() not in ("", "-1")]
    return [str(i) for i in range(count_gpus())]


def count_cpus() -> int:
    """CPUs this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def machine_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def node_resources(
    num_cpus: float | None,
    num_gpus: float | None,
    memory: float | None,
    resources: Mapping[str, float] | None,
    other_memory: int = 0,
) -> tuple[Shape, tuple[str, ...]]:
    """What a node has that was started with these arguments of ``init``, and the ids of its GPUs.

    By default the memory is what the machine has less ``other_memory``.

    Raises: TypeError or ValueError for a wrong argument, naming it.
    """
    for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus), ("memory", memory)):
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise TypeError(f"{name} of init() must be a number, got {type(value).__name__} {value!r}")
        if value is not None and value < 0:
            raise ValueError(f"{name} of init() must be at least 0, got {value!r}")
    if num_gpus is not None and num_gpus != int(num_gpus):
        raise ValueError(f"num_gpus of init() must be a whole number, got {num_gpus!r}")
    for name in {"CPU", "GPU"} & set(resources or {}):
        raise ValueError(f"resources of init() has {name!r}; give it as num_{name.lower()}s instead")
    for name in {MEMORY, "object_store_memory"} & set(resources or {}):
        raise ValueError(f"resources of init() has {name!r}; give it as {name} instead")
    gpus = gpu_names()
    count = len(gpus) if num_gpus is None else int(num_gpus)
    gpus = (gpus + [str(i) for i in range(len(gpus), count)])[:count]
    cpus = count_cpus() if num_cpus is None else num_cpus
    if memory is None:
        memory = max(0, machine_memory() - other_memory)
    return shape({"CPU": cpus, "GPU": count, MEMORY: memory, **(resources or {})}), tuple(gpus)

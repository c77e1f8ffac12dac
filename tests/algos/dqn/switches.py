"""The switches of the DQN family, and every subset of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

CATEGORICAL = {"distribution": "categorical", "atoms": 21, "v_min": -1.0, "v_max": 3.0}
QUANTILE = {"distribution": "quantile", "atoms": 8}
RAINBOW: dict[str, Any] = {
    "double": True, "n_step": 3, "prioritized": True, **CATEGORICAL, "network": {"dueling": True, "noisy": True},
}  # fmt: skip


def with_switches(settings: dict[str, Any], switches: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with ``switches`` set; those of the network are merged into its other keys."""
    network = {**settings["network"], **switches.get("network", {})}
    return {**settings, **switches, "network": network}


def subsets() -> Iterator[tuple[str, dict[str, Any]]]:
    """All 96, each with a name that lists what is on."""
    kinds: tuple[dict[str, Any], ...] = ({}, CATEGORICAL, QUANTILE)
    flags = (False, True)
    for double, dueling, n_step, prioritized, kind, noisy in itertools.product(
        flags, flags, (1, 3), flags, kinds, flags
    ):
        on = [
            name
            for name, set_ in (
                ("double", double), ("dueling", dueling), ("3-step", n_step == 3), ("prioritized", prioritized),
                (kind.get("distribution", ""), bool(kind)), ("noisy", noisy),
            )
            if set_
        ]  # fmt: skip
        switches = {"double": double, "n_step": n_step, "prioritized": prioritized, **kind}
        yield "+".join(on) or "plain", {**switches, "network": {"dueling": dueling, "noisy": noisy}}

"""What a task or actor asks for, in Ray's options."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from rlray.core.exceptions import RayError
from rlray.core.resources import MEMORY, Wish, amounts, describe, fits, shape
from rlray.core.runtime_env import parsed

_NAMES = {"CPU": "num_cpus", "GPU": "num_gpus", MEMORY: "memory"}


def as_options(wish: Wish) -> dict[str, Any]:
    """Ray's options for a wish. Whatever was not asked for is 0, so that Ray's own defaults do not apply."""
    asked = amounts(wish.resources)
    options: dict[str, Any] = {"num_cpus": 0}
    options |= {_NAMES[name]: amount for name, amount in asked.items() if name in _NAMES}
    custom = {name: amount for name, amount in asked.items() if name not in _NAMES}
    if custom:
        options["resources"] = custom
    if wish.environment:
        options["runtime_env"] = parsed(wish.environment)
    strategy = _strategy(wish)
    if strategy is not None:
        options["scheduling_strategy"] = strategy
    return options


def _strategy(wish: Wish) -> Any:
    if wish.group:
        group = PlacementGroup(ray.PlacementGroupID(wish.group), [amounts(bundle) for bundle in wish.bundles])
        return PlacementGroupSchedulingStrategy(group, wish.bundle, wish.capture)
    if wish.node:
        return NodeAffinitySchedulingStrategy(wish.node, soft=False)
    if wish.rather == "SPREAD":
        return "SPREAD"
    if wish.rather:
        return NodeAffinitySchedulingStrategy(wish.rather, soft=True)
    return None if wish.group is None else "DEFAULT"


def check_possible(wish: Wish, error: type[RayError], what: str) -> None:
    """Raise ``error`` if no node of the cluster, as it is now, has in all what is asked for."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if wish.node:
        nodes = [node for node in nodes if node["NodeID"] == wish.node]
        if not nodes:
            known = ", ".join(node["NodeID"] for node in ray.nodes() if node["Alive"])
            raise error(
                f"{what} wants to run on node {wish.node}, but there are only {known}; pass soft=True to run "
                "elsewhere then"
            )
    if not any(fits(wish.resources, dict(total_of(node))) for node in nodes):
        raise error(
            f"{what} asks for {describe(wish.resources)}, but the cluster has "
            f"{'; '.join(describe(total_of(node)) for node in nodes) or 'no node'} in all; "
            "ask for less, or give init() more"
        )


def total_of(node: dict[str, Any]) -> Any:
    """What a node has; what Ray keeps there for itself is left out."""
    own = {name: amount for name, amount in node["Resources"].items() if not name.startswith(("node:", "object_store"))}
    return shape({name: round(amount, 4) for name, amount in own.items()})

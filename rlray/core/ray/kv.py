"""Small facts about actors that every process of the cluster may ask for: kept where Ray keeps its own."""

from __future__ import annotations

from typing import Any

from ray.experimental import internal_kv

_NAMESPACE = b"rlray"
FAILED, NAMED = "failed", "named"
"""What the constructor of an actor has raised, by its id; what a handle must know, by an actor's namespace and name."""


def put(kind: str, key: str, data: bytes) -> None:
    """Keep it, in place of what was there."""
    internal_kv._internal_kv_put(f"{kind}:{key}".encode(), data, namespace=_NAMESPACE)


def get(kind: str, key: str) -> bytes | None:
    """What is kept there."""
    found: Any = internal_kv._internal_kv_get(f"{kind}:{key}".encode(), namespace=_NAMESPACE)
    return found  # type: ignore[no-any-return]

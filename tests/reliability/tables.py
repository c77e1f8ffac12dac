"""What a process of the runtime keeps: how long its lists, sets and tables are, by where they hang."""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

from rlray.core import engine

_TABLES = (dict, set, frozenset, list, tuple, deque)


def sizes(root: Any) -> Counter[str]:
    """The lengths of all tables that ``root`` leads to, summed by the attributes that lead there."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    queue: deque[tuple[str, Any]] = deque([(type(root).__name__, root)])
    while queue:
        path, one = queue.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, _TABLES):
            found[path] += len(one)
            queue += [(f"{path}[]", item) for item in list(_items(one)) if _looked_into(item)]
        else:
            queue += [
                (f"{type(one).__name__}.{name}", value) for name, value in _attributes(one) if _looked_into(value)
            ]
    return found


def _items(table: Any) -> Iterable[Any]:
    return [*table.keys(), *table.values()] if isinstance(table, dict) else table


def _attributes(one: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(one, "__dict__", {}).items()
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if hasattr(one, name):
                yield name, getattr(one, name)


def _looked_into(one: Any) -> bool:
    return isinstance(one, _TABLES) or type(one).__module__.startswith("rlray.core")


def here() -> dict[str, int]:
    """The tables of the calling process. In a worker those of its executor too."""
    gc.collect()
    client: Any = engine.current()
    with client.loop.lock:
        found = sizes(client)
    return dict(found)


def grown(before: dict[str, int], after: dict[str, int], by: int) -> dict[str, tuple[int, int]]:
    """Tables that have grown by more than ``by``."""
    return {path: (before.get(path, 0), length) for path, length in after.items() if length - before.get(path, 0) > by}

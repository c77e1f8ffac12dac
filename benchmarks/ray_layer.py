"""What the Ray engine adds to each of Ray's calls in the calling process, to a fraction of a microsecond.

python benchmarks/ray_layer.py, in a Python that has Ray and rlray: no cluster is started. Ray's calls are replaced by
ones that do nothing, and the best of many short windows is taken, with and without rlray around them: other work on
the machine makes that no longer. What Ray itself takes for a call is in docs/results/ray_perf.md.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import ray

import rlray
from rlray.core import engine as engines
from rlray.core.engine import CallSpec
from rlray.core.ray.engine import RayEngine
from rlray.core.ray.refs import Ref

MANY = 1_000


def best(call: Callable[[], Any], number: int = 200, windows: int = 400) -> float:
    """Microseconds of a call, in the quickest window."""
    return min(timeit.repeat(call, number=number, repeat=windows)) / number * 1e6


def main() -> None:
    """A line for each kind of call."""
    engine, theirs = RayEngine(driver=True), object()
    engines.set_current(engine)
    task = rlray.remote(lambda *args: None)

    def remote(*args: Any, **kwargs: Any) -> object:
        return theirs

    task._spec = CallSpec("task", None, home=(engine, remote))
    refs = [Ref(object()) for _ in range(MANY)]
    inner = [ref.ray for ref in refs]
    ray.get = lambda wanted, timeout=None: wanted
    ray.put = lambda value: theirs
    ray.wait = lambda waitables, **given: (waitables[:1], waitables[1:])
    one = Ref(theirs)
    rows = {
        "f.remote()": best(task.remote) - best(remote),
        "f.remote(1)": best(lambda: task.remote(1)) - best(lambda: remote(1)),
        "f.remote(ref)": best(lambda: task.remote(one)) - best(lambda: remote(theirs)),
        "get(ref)": best(lambda: rlray.get(one)) - best(lambda: ray.get(theirs)),
        f"get of {MANY}, each": (best(lambda: rlray.get(refs), 1) - best(lambda: ray.get(inner), 1)) / MANY,
        "put(0)": best(lambda: rlray.put(0)) - best(lambda: ray.put(0)),
        f"wait for the first of {MANY}": best(lambda: rlray.wait(refs), 1) - best(lambda: ray.wait(inner), 1),
        "a reference inside a value, read": best(lambda: Ref(theirs)),
    }
    engines.set_current(None)
    for name, added in rows.items():
        print(f"{name:40} + {added:6.2f} µs")


if __name__ == "__main__":
    main()

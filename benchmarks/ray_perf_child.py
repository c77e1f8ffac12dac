"""Runs Ray's own microbenchmark, unchanged, in this process: on Ray, or on rlray with a shim in Ray's place.

python benchmarks/ray_perf_child.py rlray|rlray-on-ray|ray RAY_PACKAGE OPTIONS: the folder of the package ``ray``, and a
JSON object that `ray_perf.py` writes. Ray's files print the rows; "starting NAME" and "failed NAME: ERROR" are printed
here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELPERS = "ray._private.ray_microbenchmark_helpers"
CLIENT = "ray._private.ray_client_microbenchmark"


def serve_rlray(package: Path) -> None:
    """Put rlray in the place of the modules that Ray's benchmark imports.

    The module that stands for ``ray`` is named "rlray": that name is what travels inside tasks, so that workers import
    rlray itself and need no shim.
    """
    import rlray

    ray = types.ModuleType("rlray")
    ray.__getattr__ = lambda name: getattr(rlray, name)
    ray._raylet = types.SimpleNamespace(OPTIMIZED=True)
    ray.util = types.SimpleNamespace(
        placement_group=_later("rlray.util.placement_group", "placement_group"),
        remove_placement_group=_later("rlray.util.placement_group", "remove_placement_group"),
    )
    actor_class = type(rlray.remote(type("Probe", (), {})))
    actor_class._remote = lambda cls: cls.remote()  # Ray's older name for it
    sys.modules["ray"] = ray
    sys.modules["ray._private"] = types.ModuleType("ray._private")
    spec = importlib.util.spec_from_file_location(HELPERS, package / "_private" / "ray_microbenchmark_helpers.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[HELPERS] = helpers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helpers)
    sys.modules[CLIENT] = types.ModuleType(CLIENT)


def run_on_ray(package: Path) -> None:
    """Run Ray's benchmark with rlray in the place of Ray, on Ray: there its own modules stay what they are.

    The name ``ray`` of the program is the shim; the one import that gives it is the only line that is not Ray's.
    """
    import rlray
    import rlray.core.ray.starting  # its modules import Ray itself

    ray = types.ModuleType("rlray")
    ray.__getattr__ = lambda name: getattr(rlray, name)
    ray._raylet = types.SimpleNamespace(OPTIMIZED=True)
    ray.init = lambda **given: rlray.init(engine="ray", **given)
    ray.util = types.SimpleNamespace(
        placement_group=_later("rlray.util.placement_group", "placement_group"),
        remove_placement_group=_later("rlray.util.placement_group", "remove_placement_group"),
    )
    actor_class = type(rlray.remote(type("Probe", (), {})))
    actor_class._remote = lambda cls: cls.remote()
    source = (package / "_private" / "ray_perf.py").read_text(encoding="utf-8")
    changed = source.replace("\nimport ray\n", "\nray = _rlray\n")
    assert changed != source, "Ray's benchmark no longer says `import ray`"
    main = sys.modules["__main__"].__dict__
    main["_rlray"] = ray
    exec(compile(changed, "ray_perf.py", "exec"), main)


def _later(module: str, name: str) -> Callable[..., Any]:
    """The function of that name, looked up at the call: what it lacks fails one row and not all."""
    return lambda *args, **kwargs: getattr(importlib.import_module(module), name)(*args, **kwargs)


def guard(options: dict[str, Any]) -> None:
    """The same for both sides: short pauses before rows, a failing row stops nothing, no rows of the remote client."""
    helpers = importlib.import_module(HELPERS)
    timeit = quick_timeit if options["quick"] else helpers.timeit
    if not options["quick"]:
        timeit.__defaults__ = (*timeit.__defaults__[:-1], options["pause"])  # warmup_time_sec, Ray's 10 s

    def guarded(name: str, function: Callable[[], Any], *rest: Any, **named: Any) -> Any:
        if name in options["done"] or (options["only"] and not any(word in name for word in options["only"])):
            return [None]
        print(f"starting {name}", flush=True)
        try:
            return timeit(name, function, *rest, **named)
        except Exception as why:
            words = str(why).strip().splitlines() or [""]
            print(f"failed {name}: {type(why).__name__}: {words[-1]}", flush=True)
            return [None]

    helpers.timeit = guarded
    importlib.import_module(CLIENT).main = lambda results=None: results


def quick_timeit(name: str, function: Callable[[], Any], multiplier: float = 1) -> list[Any]:
    """One call per row, in Ray's form of printing."""
    from case import seconds

    rate = multiplier / seconds(function)
    print(name, "per second", round(rate, 2), "+-", 0.0)
    return [(name, rate, 0.0)]


def main() -> None:
    """As ``python ray_perf.py`` would."""
    side, package, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    if side == "rlray":
        serve_rlray(package)
    guard(options)
    if side == "rlray-on-ray":
        run_on_ray(package)
    else:
        runpy.run_path(str(package / "_private" / "ray_perf.py"), run_name="__main__")
    print("ended", flush=True)


if __name__ == "__main__":
    main()

"""The process of one case on one side: imports rlray or its peer, runs the case, leaves the result in a file.

python benchmarks/child.py REQUEST: a JSON object that `sides.run_case` writes.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Samples and notes of the case, or why there are none."""
    start = time.perf_counter()
    ray = importlib.import_module(request["side"])
    import_seconds = time.perf_counter() - start
    from case import Run

    case = importlib.import_module(request["module"]).cases[request["case"]]
    run = Run(ray, request["quick"], import_seconds)
    if case.init is not None:
        ray.init(**case.init)
    samples = case.function(run, **request["arguments"])
    if hasattr(ray, "shutdown"):  # other peers than Ray have no runtime to end
        ray.shutdown()
    return {"samples": samples, "notes": run.notes}


def in_a_line(why: Exception) -> str:
    """The error without the remote traceback that may stand in the middle of it."""
    words = str(why).strip().splitlines() or [""]
    return f"{type(why).__name__}: {words[0]}" + (f" … {words[-1]}" if len(words) > 1 else "")


def main() -> None:
    """Errors are results too: one line, the traceback goes to stderr."""
    request = json.loads(sys.argv[1])
    try:
        result = measure(request)
    except Exception as why:
        missing = isinstance(why, ImportError) and request["side"] != "rlray"
        Path(request["result"]).write_text(json.dumps({"left_out" if missing else "error": in_a_line(why)}))
        raise
    Path(request["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

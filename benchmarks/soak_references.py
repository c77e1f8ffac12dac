"""The case of soak.py in which random programs on real processes are compared with an oracle of reference counting."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from sides import HERE

import rlray

PROGRAMS = 200
LENGTH = 60  # steps
STORE = 400 << 20  # bytes


def references(scale: float) -> dict[str, Any]:
    """Random programs that pass, nest, return and drop references, every other one with kills; against an oracle."""
    sys.path.insert(0, str(HERE.parent))  # the oracle lies with the tests
    from tests.reliability.reference_programs import Failure, run
    from tests.reliability.reference_seeds import program

    counts: Counter[str] = Counter({"programs": 0, "wrong": 0})
    failed = []
    for seed in range(max(1, round(PROGRAMS * scale))):
        rlray.init(num_cpus=2, object_store_memory=STORE, log_to_driver=False)
        try:
            counts.update(run(program(seed, LENGTH, deaths=seed % 2 == 1)))
        except Failure as failure:
            counts["wrong"] += 1
            failed.append(f"seed {seed}: {str(failure)[:300]}")
        finally:
            rlray.shutdown()
        counts["programs"] += 1
    return {**counts, **({"which": "; ".join(failed)} if failed else {})}


CASES: dict[str, Callable[[float], dict[str, Any]]] = {"references": references}

"""Reference counting on real processes against a slow oracle: nothing is freed early, nothing is kept.

Each seed is a random program: values are put, returned, nested, passed on, read, dropped and captured by the driver and
actors of several kinds; with deaths, actors and workers are killed at random moments. reference_model.py says what must
be there after each step. ``benchmarks/soak.py references`` runs more.
"""

from __future__ import annotations

import pytest

import rlray
from tests.reliability.reference_programs import Failure, Step, run
from tests.reliability.reference_seeds import program, shrink

_STORE = 400 << 20  # bytes: nothing has to go to disk


def attempt(steps: list[Step]) -> Failure | None:
    """Run a program in a runtime of its own."""
    rlray.init(num_cpus=2, object_store_memory=_STORE, log_to_driver=False)
    try:
        run(steps)
    except Failure as failure:
        return failure
    finally:
        rlray.shutdown()
    return None


@pytest.mark.parametrize("seed", range(6))
def test_the_oracle_agrees(seed: int) -> None:
    check(program(seed, 40, deaths=False))


@pytest.mark.parametrize("seed", range(100, 106))
def test_the_oracle_agrees_whoever_is_killed(seed: int) -> None:
    check(program(seed, 40, deaths=True))


def check(steps: list[Step]) -> None:
    failure = attempt(steps)
    if failure is not None:
        small = shrink(steps, lambda fewer: attempt(list(fewer)) is not None, seconds=20)
        pytest.fail(f"{failure}\nA small program that fails:\n{small}")

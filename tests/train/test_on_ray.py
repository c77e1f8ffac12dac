"""A run on the Ray engine is the run that it is on rlray's own: the same records and the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rlray
from rlray.train.checkpoint_folder import latest_checkpoint
from tests.conftest import NO_RAY, STORE
from tests.train.conftest import Played
from tests.train.test_resume import assert_equal, config_of, leave_at

pytestmark = NO_RAY

CASES = ("apex on CartPole", "ppo on CartPole", "es on CartPole")
"""A replay in an actor of its own, fragments, and tasks with shared values."""


@pytest.fixture
def runtime() -> Iterator[None]:
    """In place of the one that other tests of training share: here each test starts its own."""
    yield
    rlray.shutdown()


def start(engine: str) -> None:
    rlray.init(num_cpus=4, engine=engine, object_store_memory=STORE.get(engine))


@pytest.mark.timeout(300)
def test_runs_are_equal_on_both_engines(run: Callable[..., Played]) -> None:
    played: dict[str, list[Played]] = {}
    for engine in ("local", "ray"):
        start(engine)
        played[engine] = [run(**config_of(case)) for case in CASES]
        rlray.shutdown()
    for case, one, two in zip(CASES, played["local"], played["ray"], strict=True):
        try:
            assert_equal(one, two)
        except AssertionError as error:
            raise AssertionError(f"{case} differs: {error}") from error


@pytest.mark.timeout(300)
def test_a_run_goes_on_on_the_other_engine(run: Callable[..., Played]) -> None:
    config: dict[str, Any] = config_of("ppo on CartPole")
    start("local")
    whole, part = run(**config), run(leave_at(400), **config)
    assert latest_checkpoint(part.folder) is not None
    rlray.shutdown()
    start("ray")
    assert_equal(whole, run(resume=part, **config))

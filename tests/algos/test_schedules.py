from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from rlray.algos.schedules import Schedule


@pytest.mark.parametrize("given", [0.25, {"points": [[0, 0.25]]}, [[0, 0.25]], [[10, 0.25]]])
def test_one_point_is_a_constant(given: object) -> None:
    schedule = Schedule.model_validate(given)
    assert [schedule.at(step) for step in (0, 10, 10**9)] == [0.25] * 3


def test_between_points_it_is_linear_and_beyond_them_constant() -> None:
    schedule = Schedule.model_validate([[100, 1.0], [300, 0.2], [400, 0.6]])
    steps = np.arange(0, 600, 7)
    expected = np.interp(steps, [100, 300, 400], [1.0, 0.2, 0.6])
    assert [schedule.at(int(step)) for step in steps] == pytest.approx(list(expected))
    assert schedule.bounds() == (0.2, 1.0)


def test_two_points_at_one_place_are_a_jump() -> None:
    schedule = Schedule.model_validate([[0, 1.0], [50, 1.0], [50, 0.1]])
    assert (schedule.at(49), schedule.at(50), schedule.at(51)) == (1.0, 0.1, 0.1)


def test_by_the_part_of_the_run_that_is_done() -> None:
    schedule = Schedule.model_validate({"points": [[0.5, 1.0], [1, 0.0]], "of": "run"})
    assert [schedule.at(step, 1000) for step in (0, 500, 750, 1000, 5000)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="needs total_steps"):
        schedule.at(3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "at least 1 item"),
        ([[10, 1.0], [5, 0.0]], r"must ascend, got them at \[10.0, 5.0\]"),
        ([[-1, 1.0]], "greater than or equal to 0"),
        ([[0, float("nan")]], "finite"),
        ({"points": [[0, 1.0], [2, 0.0]], "of": "run"}, "within 0 and 1"),
        ({"points": [[0, 1.0]], "until": 3}, "Extra inputs"),
        ("fast", "valid dictionary"),
        (True, "valid dictionary"),
    ],
)
def test_nonsense_is_refused(given: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule.model_validate(given)


def test_what_is_written_out_reads_back_the_same() -> None:
    schedule = Schedule.model_validate([[0, 1], [100, 0.5]])
    assert Schedule.model_validate(schedule.model_dump(mode="json")) == schedule

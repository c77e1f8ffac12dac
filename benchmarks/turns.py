"""Sides of a comparison by turns, so that all of them see the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

Answer = dict[str, Any]


def by_turns(sides: Mapping[str, Callable[[], Answer]], repeat: int) -> dict[str, Answer]:
    """Call every side ``repeat`` times, in an order that changes from round to round; what failed once is not retried.

    A side answers as `sides.run_case` does; the result is the `summary` of its answers, by its name.
    """
    answers: dict[str, list[Answer]] = {name: [] for name in sides}
    for turn in range(repeat):
        for name in sides if turn % 2 == 0 else reversed(list(sides)):
            if not answers[name] or "samples" in answers[name][-1]:
                answers[name].append(sides[name]())
    return {name: summary(found) for name, found in answers.items()}


def summary(answers: list[Answer]) -> Answer:
    """Median, samples and notes of all repetitions; an error in any of them is the result."""
    if "samples" not in answers[-1]:
        return answers[-1]
    samples = [value for answer in answers for value in answer["samples"]]
    notes = {name: statistics.median(answer["notes"][name] for answer in answers) for name in answers[0]["notes"]}
    return {"median": statistics.median(samples), "samples": samples, "notes": notes}

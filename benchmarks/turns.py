"""Which cases run, and the sides of each by turns, so that all of them see the same machine."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from case import Case
from sides import end_on_sigterm

Answer = dict[str, Any]


def begin(
    options: argparse.ArgumentParser, cases: Mapping[str, Case], repeat: str
) -> tuple[argparse.Namespace, list[Case]]:
    """What the command line says, and the cases that it asks for; from here on SIGTERM ends what was started, too.

    Args:
        options: what `sides.parser` has made, and a benchmark's own.
        repeat: what of, for the help text.
    """
    options.add_argument("--repeat", type=int, default=3, help=f"rounds of {repeat} per case (default 3; quick: 1)")
    options.add_argument("--timeout", type=float, default=600, help="seconds that a case may take on one side")
    given = options.parse_args()
    chosen = [case for case in cases.values() if not given.only or any(word in case.name for word in given.only)]
    if not chosen:
        options.error(f"--only {' '.join(given.only)}: no such case; there are: {', '.join(cases)}")
    end_on_sigterm()
    return given, chosen


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

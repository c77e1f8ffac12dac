"""What is folded of the output of several workers: against an oracle that remembers everything, and by example."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict

import pytest

from rlray.core.local.folding import Blocks, Folder

WINDOW = 5.0
REPEATED = re.compile(r"(?P<prefix>\([^)]*\) )(?P<text>.*) \[repeated by (?P<count>\d+) other workers?\]")


def prefix(worker: int) -> str:
    return f"(f pid={worker}) "


class Oracle:
    """Says of each print whether it is shown, by looking back over all that was printed before."""

    def __init__(self) -> None:
        self.history: list[tuple[float, int, str, bool]] = []

    def shows(self, now: float, worker: int, text: str) -> bool:
        same = [(when, who, shown) for when, who, what, shown in self.history if what == text]
        last = max((index for index, one in enumerate(same) if one[2]), default=None)
        if last is None:
            shown = True
        else:
            began, _, _ = same[last]
            shown = now >= began + WINDOW or worker in [who for _, who, _ in same[last:]]
        self.history.append((now, worker, text, shown))
        return shown


@pytest.mark.parametrize("seed", range(30))
def test_random_workers_against_the_oracle(seed: int) -> None:
    """Shown and counted add up to what was printed, no worker is counted twice in a window, and order is kept."""
    rng = random.Random(seed)
    folder, oracle = Folder(WINDOW), Oracle()
    printed, shown, counted = Counter[str](), Counter[str](), Counter[str]()
    expected, seen = defaultdict[int, list[str]](list), defaultdict[int, list[str]](list)
    now = 0.0

    def take(lines: list[str]) -> None:
        for line in lines:
            said = REPEATED.fullmatch(line)
            if said:
                counted[said["text"]] += int(said["count"])
            else:
                pid, text = re.fullmatch(r"\(f pid=(\d+)\) (.*)", line).groups()  # type: ignore[union-attr]
                shown[text] += 1
                seen[int(pid)].append(text)

    for _ in range(rng.choice((50, 400))):
        now += rng.choice((0.0, 0.0, 0.1, 1.0, 6.0))
        worker, text = rng.randrange(1, 6), f"text {rng.randrange(4)}"
        take(folder.expire(now))
        take(folder.take(worker, "f", prefix(worker), [text], now))
        printed[text] += 1
        if oracle.shows(now, worker, text):
            expected[worker].append(text)
        due = folder.due()
        assert due is None or now < due <= now + WINDOW
    take(folder.expire(float("inf")))
    assert folder.due() is None
    assert shown + counted == printed
    assert seen == expected


def test_the_first_is_shown_the_others_are_counted_until_the_window_ends() -> None:
    folder = Folder(WINDOW)
    assert folder.take(1, "f", prefix(1), ["loading"], 0.0) == ["(f pid=1) loading"]
    for worker in (2, 3, 4):
        assert folder.take(worker, "f", prefix(worker), ["loading"], 4.9) == []
    assert folder.due() == WINDOW
    assert folder.expire(4.99) == []
    assert folder.expire(5.0) == ["(f pid=1) loading [repeated by 3 other workers]"]
    assert folder.take(5, "f", prefix(5), ["loading"], 5.0) == ["(f pid=5) loading"]
    assert folder.take(6, "f", prefix(6), ["loading"], 5.1) == []
    assert folder.expire(10.0) == ["(f pid=5) loading [repeated by 1 other worker]"]


def test_one_worker_is_never_folded_with_itself() -> None:
    folder = Folder(WINDOW)
    assert folder.take(1, "f", prefix(1), ["tick"] * 3, 0.0) == ["(f pid=1) tick"] * 3
    assert folder.take(2, "f", prefix(2), ["tick"], 0.1) == []
    # A second tick of worker 2 is shown, after word of the first; worker 1 counts for that one.
    assert folder.take(2, "f", prefix(2), ["tick"], 0.2) == [
        "(f pid=1) tick [repeated by 1 other worker]",
        "(f pid=2) tick",
    ]
    assert folder.take(1, "f", prefix(1), ["tick"], 0.3) == []
    assert folder.expire(99.0) == ["(f pid=2) tick [repeated by 1 other worker]"]


@pytest.mark.parametrize("other", ["step 2", "step 1 ", "Step 1", "step 1\n"])
def test_what_differs_in_anything_is_shown(other: str) -> None:
    folder = Folder(WINDOW)
    folder.take(1, "f", prefix(1), ["step 1"], 0.0)
    assert folder.take(2, "f", prefix(2), [other], 0.0) == [prefix(2) + line for line in other.split("\n")]


def test_other_functions_and_empty_lines_are_not_folded() -> None:
    folder = Folder(WINDOW)
    assert folder.take(1, "f", "(f pid=1) ", ["done", "", "  "], 0.0) == [
        "(f pid=1) done",
        "(f pid=1) ",
        "(f pid=1)   ",
    ]
    assert folder.take(2, "g", "(g pid=2) ", ["done"], 0.0) == ["(g pid=2) done"]
    assert folder.take(3, "f", "(f pid=3) ", ["", "  "], 0.0) == ["(f pid=3) ", "(f pid=3)   "]


def test_long_texts_are_compared_whole_and_repeated_in_short() -> None:
    folder, long = Folder(WINDOW), "x" * 100_000
    folder.take(1, "f", prefix(1), [long + "1"], 0.0)
    assert folder.take(2, "f", prefix(2), [long + "2"], 0.0) == [prefix(2) + long + "2"]
    assert folder.take(3, "f", prefix(3), [long + "1"], 0.0) == []
    [said] = folder.expire(9.0)
    assert said.startswith("(f pid=1) xxx")
    assert said.endswith("… [repeated by 1 other worker]")
    assert len(said) < 500


def test_any_number_of_different_lines_is_shown_in_bounded_memory() -> None:
    folder = Folder(WINDOW)
    folder.take(1, "f", prefix(1), ["first"], 0.0)
    folder.take(2, "f", prefix(2), ["first"], 0.0)
    said: list[str] = []
    for start in range(0, 100_000, 1000):
        lines = [f"line {number}" for number in range(start, start + 1000)]
        shown = folder.take(1, "f", prefix(1), lines, 0.0)
        assert [line for line in shown if "repeated" not in line] == [prefix(1) + line for line in lines]
        said += [line for line in shown if "repeated" in line]
        assert sum(len(part) for part in vars(folder).values() if isinstance(part, dict)) <= 10_100
    assert said == ["(f pid=1) first [repeated by 1 other worker]"]  # before its time, but not lost


TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in f
    1 / 0
ZeroDivisionError: division by zero

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
    raise KeyError(1)
KeyError: 1"""


def blocks_of(text: str, every: int = 1) -> list[str]:
    """Lines arriving ``every`` at a time."""
    cutter, lines, found = Blocks(), text.split("\n"), []
    for start in range(0, len(lines), every):
        found += cutter.add(lines[start : start + every])
    return found + cutter.rest() + cutter.rest()


@pytest.mark.parametrize("every", [1, 2, 5, 100])
def test_a_traceback_is_one_block_with_the_message_above_it(every: int) -> None:
    text = f"before\nERROR:root:failed\n{TRACEBACK}\nafter\n  indented\nlast"
    assert blocks_of(text, every) == ["before", f"ERROR:root:failed\n{TRACEBACK}", "after\n  indented", "last"]


def test_groups_of_exceptions_and_empty_lines() -> None:
    group = "  + Exception Group Traceback (most recent call last):\n  |   File\n  | ExceptionGroup: x\n  +-------"
    assert blocks_of(f"{group}\nafter") == [group, "after"]
    assert blocks_of("\n\nwords\n\nmore") == ["\n\nwords\n", "more"]
    assert blocks_of("") == [""]


def test_blocks_end_somewhere() -> None:
    blocks = blocks_of("\n".join(["  indented"] * 1000 + ["  " + "x" * 100_000] * 3))
    assert "\n".join(blocks).count("\n") == 1002
    assert max(len(block) for block in blocks) < 110_000
    assert max(block.count("\n") for block in blocks) < 200


def test_half_a_traceback_is_not_folded() -> None:
    folder = Folder(WINDOW)
    other = TRACEBACK.replace("KeyError: 1", "KeyError: 2")
    folder.take(1, "f", prefix(1), [TRACEBACK], 0.0)
    assert folder.take(2, "f", prefix(2), [other], 0.0) == [prefix(2) + line for line in other.split("\n")]
    assert folder.take(3, "f", prefix(3), [TRACEBACK], 0.0) == []
    assert folder.expire(9.0) == [
        "(f pid=1) Traceback (most recent call last): … KeyError: 1 [repeated by 1 other worker]"
    ]

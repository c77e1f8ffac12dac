"""Folding of what real workers print: nothing is lost, and only what is the same from different workers is folded."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

import pytest

from tests.support import Driver, run_driver

LINE = re.compile(
    r"\((?P<name>\w+(:\w+)?) pid=(?P<pid>\d+)\) (?P<text>.*?)( \[repeated by (?P<count>\d+) other workers?\])?"
)

PROGRAM = """
import random, sys, time
import rlray as ray

@ray.remote
class Speaker:
    def meet(self):
        pass

    def say(self, *lines):
        for line in lines:
            print(line)

    def warn(self, line):
        print(line, file=sys.stderr)

    def babble(self, seed):
        rng = random.Random(seed)
        said = []
        for _ in range(100):
            said.append(f"word {rng.randrange(5)}")
            print(said[-1])
            time.sleep(rng.choice((0, 0, 0.001)))
        return said

    def fail(self, number):
        import traceback
        try:
            int(f"no number {number}")
        except ValueError:
            traceback.print_exc()

ray.init(num_cpus=4, fold_logs=sys.argv[1] == "fold")
speakers = [Speaker.remote() for _ in range(4)]
ray.get([speaker.meet.remote() for speaker in speakers])

def tell(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")

"""


def shown(output: str) -> list[dict[str, Any]]:
    """The workers' lines; ``count`` is that of others, or None."""
    return [found.groupdict() for found in map(LINE.fullmatch, output.splitlines()) if found]


def counts(output: str) -> Counter[str]:
    """How often each text was printed, as far as the output tells."""
    found = Counter[str]()
    for line in shown(output):
        found[line["text"]] += int(line["count"] or 1)
    return found


def test_a_line_of_all_workers_is_printed_once_and_counted() -> None:
    code = 'ray.get([speaker.say.remote("loading", f"mine {i}") for i, speaker in enumerate(speakers)])'
    lines = shown(run_driver(PROGRAM + code, "fold"))
    loading = [line for line in lines if line["text"] == "loading"]
    assert [line["count"] for line in loading] == [None, "3"]
    assert loading[0]["pid"] == loading[1]["pid"]
    mine = [line for line in lines if line["text"].startswith("mine")]
    assert len(mine) == len({line["pid"] for line in mine}) == 4
    assert len(lines) == 6


def test_fold_logs_false_prints_every_line_of_every_worker() -> None:
    code = 'ray.get([speaker.say.remote("loading", "loading") for speaker in speakers])'
    lines = shown(run_driver(PROGRAM + code, "no"))
    assert Counter(line["pid"] for line in lines if line["text"] == "loading").most_common()[-1][1] == 2
    assert len(lines) == 8


def test_word_of_the_others_comes_when_the_window_ends_and_not_before() -> None:
    """The program runs on; the window is about five seconds."""
    code = """
ray.get([speaker.say.remote("loading") for speaker in speakers])
time.sleep(3)
tell("EARLY")
time.sleep(4)
tell("LATE")
"""
    with Driver(PROGRAM + code, "fold") as driver:
        driver.expect("EARLY")
        assert [line["count"] for line in shown(driver.output)] == [None]
        driver.expect("LATE")
        assert [line["count"] for line in shown(driver.output)] == [None, "3"]


def test_what_one_worker_repeats_is_not_folded() -> None:
    code = 'ray.get([speakers[0].say.remote("tick") for _ in range(5)])'
    assert [(line["text"], line["count"]) for line in shown(run_driver(PROGRAM + code, "fold"))] == [("tick", None)] * 5


def test_the_two_streams_are_folded_apart() -> None:
    code = 'ray.get([speakers[0].say.remote("word"), speakers[1].warn.remote("word"), speakers[2].warn.remote("word")])'
    assert sorted(str(line["count"]) for line in shown(run_driver(PROGRAM + code, "fold"))) == ["1", "None", "None"]


def test_tracebacks_are_folded_whole_or_not_at_all() -> None:
    code = "ray.get([speaker.fail.remote(i // 3) for i, speaker in enumerate(speakers)])"  # 0, 0, 0, 1
    lines = shown(run_driver(PROGRAM + code, "fold"))
    repeated = [line for line in lines if line["count"]]
    assert [line["count"] for line in repeated] == ["2"]
    assert re.fullmatch(r"Traceback \(most recent call last\): … ValueError: .*'no number 0'", repeated[0]["text"])
    by_pid = defaultdict[str, list[str]](list)
    for line in lines:
        if not line["count"]:
            by_pid[line["pid"]].append(line["text"])
    assert len(by_pid) == 2
    for traceback in by_pid.values():
        assert traceback[0] == "Traceback (most recent call last):"
        assert traceback[-1].startswith("ValueError")
        assert len(traceback) >= 3


@pytest.mark.parametrize("fold", ["fold", "no"])
def test_shown_and_counted_add_up_to_what_was_printed(fold: str) -> None:
    code = """
said = ray.get([speaker.babble.remote(seed) for seed, speaker in enumerate(speakers)])
for words in said:
    tell("SAID", *words)
"""
    output = run_driver(PROGRAM + code, fold)
    said = Counter[str]()
    for line in output.splitlines():
        if line.startswith("SAID"):
            said.update(re.findall(r"word \d", line))
    assert said.total() == 400
    assert counts(output) == said
    if fold == "fold":
        assert any(line["count"] for line in shown(output))

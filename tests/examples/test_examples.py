"""The examples run as they are and print what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY, Driver

EXAMPLES = REPOSITORY / "examples"
SENTENCE = "learning Ray for distributed data processing"


def run(name: str, folder: Path, *arguments: str) -> str:
    """The output of an example, run in ``folder``."""
    code = (
        "import os, runpy, sys; os.chdir(sys.argv.pop(1)); sys.argv.pop(0);"
        "runpy.run_path(sys.argv[0], None, '__main__')"
    )
    with Driver(code, str(folder), str(EXAMPLES / name), *arguments) as driver:
        output = driver.finish(100)
        assert driver.process.returncode == 0, output
        return output


def seconds(output: str) -> float:
    found = re.search(r"^time: (\d+\.\d\d) s$", output, re.MULTILINE)
    assert found, output
    return float(found[1])


def test_lecture_serial(tmp_path: Path) -> None:
    output = run("lecture_1_serial.py", tmp_path)
    assert f"serial: {SENTENCE}\n" in output
    assert 1.5 <= seconds(output) < 3.0


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("lecture_2_tasks.py", f"tasks: {SENTENCE}\n"),
        ("lecture_3_put.py", f"shared: {SENTENCE}\n"),
        ("lecture_4_actor.py", f"tracked: {SENTENCE}\ncount: 6\n"),
    ],
)
def test_lecture_parallel(script: str, line: str, tmp_path: Path) -> None:
    """About half a second; a busy machine gets more, but the sum of the waits alone would be 1.5 s."""
    output = run(script, tmp_path)
    assert line in output
    assert 0.5 <= seconds(output) < 1.5


def test_items_are_shown_as_they_become_ready(tmp_path: Path) -> None:
    shown = re.findall(r"^ready: (.*)$", run("lecture_3_put.py", tmp_path), re.MULTILINE)
    assert sorted(" ".join(shown).split()) == sorted(SENTENCE.split())
    assert shown[-1].endswith("processing")


def test_custom_environment_is_learned(tmp_path: Path) -> None:
    output = run("custom_env.py", tmp_path)
    assert re.search(r"^4\d\d\d steps, \d+ updates", output, re.MULTILINE), output
    assert evaluation(output) > 0.5, "a random walk earns about 0, the best policy 0.96"
    assert list(tmp_path.glob("runs/corridor-*/checkpoints/*")), "the run folder is made where the user is"


def evaluation(output: str) -> float:
    found = re.search(r"^evaluation: (-?\d+\.\d+) ", output, re.MULTILINE)
    assert found, output
    return float(found[1])


def test_custom_algorithm_learns(tmp_path: Path) -> None:
    """It stops once an evaluation has a mean of 400; where it never does, the last one tells."""
    assert evaluation(run("custom_algorithm.py", tmp_path)) > 200, "a random policy holds the pole for about 20 steps"


def test_custom_network_learns(tmp_path: Path) -> None:
    assert evaluation(run("custom_network.py", tmp_path)) > 60, "a random policy holds the pole for about 20 steps"


def test_random_pong(tmp_path: Path) -> None:
    output = run("pong_random.py", tmp_path, "50", "400")
    found = re.search(r"^(\d+) tasks, ([\d,]+) steps in .* steps/s$", output, re.MULTILINE)
    assert found, output
    assert 0 < int(found[2].replace(",", "")) <= int(found[1]) * 50 * 400
    rate = re.search(r"^mean reward per step: ([+-]\d\.\d+)$", output, re.MULTILINE)
    assert rate, output
    assert -0.1 < float(rate[1]) < 0, "random play loses points"


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    for script in EXAMPLES.glob("*.py"):
        assert f'"{script.name}"' in text, f"{script.name} has no test"

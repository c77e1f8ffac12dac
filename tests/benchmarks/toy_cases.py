"""Cases that go well, badly, or not at all, for the tests of the benchmarks' machinery."""

from __future__ import annotations

import os
import subprocess
import time

from case import Cases, Run  # of benchmarks/, which is where the program that runs cases lies

cases = Cases()


@cases.add("good", "/s")
def good(run: Run, value: float = 1.0) -> list[float]:
    run.notes["initialized"] = float(run.ray.is_initialized())
    return [value, value]


@cases.add("raises", "/s")
def raises(run: Run) -> list[float]:
    @run.ray.remote
    def task() -> None:
        raise KeyError("lost")

    run.ray.get(task.remote())
    return []


@cases.add("needs", "/s", init=None)
def needs(run: Run) -> list[float]:
    import nowhere_to_be_found  # noqa: F401

    return []


@cases.add("dies", "/s", init=None)
def dies(run: Run) -> list[float]:
    os.write(1, b"last words\n")
    os._exit(3)


@cases.add("hangs", "/s", init=None)
def hangs(run: Run) -> list[float]:
    stray = subprocess.Popen(["sleep", "100"], start_new_session=True)
    with open(os.environ["PID_FILE"], "w") as file:
        file.write(str(stray.pid))
    time.sleep(1000)
    return []

"""The case of soak.py in which a run learns while its processes are killed."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import rlray
from rlray.util.state import list_actors

CONFIG = "apex_pong.yaml"
EVERY = 10.0
"""Seconds between two kills of a simulator."""


class Killer(threading.Thread):
    """SIGKILLs a simulator at random every `EVERY` seconds, and once, half-way, the learner."""

    def __init__(self, half_way: float) -> None:
        super().__init__(name="killer", daemon=True)
        self.kills: Counter[str] = Counter(Simulator=0, LearnerActor=0)
        self._half_way = half_way
        self._rng = random.Random(0)
        self._ended = threading.Event()

    def run(self) -> None:
        waited = 0.0
        while not self._ended.wait(EVERY):
            waited += EVERY
            self._kill("Simulator")
            if waited >= self._half_way and not self.kills["LearnerActor"]:
                self._kill("LearnerActor")

    def end(self) -> None:
        """Kill no more."""
        self._ended.set()
        self.join()

    def _kill(self, kind: str) -> None:
        with suppress(RuntimeError):  # the runtime is not there yet, or any more
            pids = [actor["pid"] for actor in list_actors() if (actor["class_name"], actor["state"]) == (kind, "ALIVE")]
            if pids:
                os.kill(self._rng.choice(pids), signal.SIGKILL)
                self.kills[kind] += 1


class Told(logging.Handler):
    """Counts what the run says of deaths."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.fragments = self.learners = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.fragments += "its fragment is lost" in text
        self.learners += "a fresh one goes on from" in text


def learning_kills(scale: float) -> dict[str, Any]:
    """A simulator is killed every 10 s while Ape-X learns Pong, and half-way the learner: it learns all the same."""
    folder = tempfile.mkdtemp()
    told, killer = Told(), Killer(half_way=300 * scale)
    logging.getLogger("rlray.train").addHandler(told)
    killer.start()
    try:
        result = rlray.train(CONFIG, overrides=[f"stop.steps={round(300_000 * scale)}", f"run_dir={folder}"])
    finally:
        killer.end()
        logging.getLogger("rlray.train").removeHandler(told)
        shutil.rmtree(folder, ignore_errors=True)
    assert result.evaluation is not None
    return {
        "simulators killed": killer.kills["Simulator"],
        "fragments lost": told.fragments,
        "learners killed": killer.kills["LearnerActor"],
        "times a fresh learner went on from a checkpoint": told.learners,
        "steps": result.steps,
        "lost steps": round(300_000 * scale) - result.steps if result.steps < round(300_000 * scale) else 0,
        "seconds of training": round(result.seconds),
        "return, greedy, mean of 20 episodes": round(result.evaluation.mean, 2),
        "its standard deviation": round(result.evaluation.std, 2),
    }


CASES = {"learning_kills": learning_kills}

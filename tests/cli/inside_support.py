"""What the tests of the command line's look into a run share: a busy driver, and the command run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.support import PACKAGE_PARENT, Driver

PATIENCE = 30  # seconds that stand for "does not hang"

PROGRAM = """
import os, re, sys, time
import numpy as np
import rlray

rlray.init(num_cpus=2, resources={"special": 1}, object_store_memory=200_000_000)

@rlray.remote
def nap(seconds, *more):
    time.sleep(seconds)

@rlray.remote
def numbers():
    return np.ones(1_000_000)

@rlray.remote(max_retries=0)
def dies():
    os._exit(3)

@rlray.remote
class Keeper:
    def keep(self, refs):
        self.kept = rlray.get(refs[0])
        return os.getpid()

    def loop(self):
        while True:
            time.sleep(0.01)

    def hang(self):
        re.match("(a+)+$", "a" * 60 + "b")  # in C, without letting go of the interpreter, for ever

@rlray.remote
class Async:
    async def nap(self, seconds):
        import asyncio
        await asyncio.sleep(seconds)

keeper = Keeper.options(name="the keeper").remote()
ref = rlray.put(np.zeros(2_000_000))
print("KEEPER", rlray.get(keeper.keep.remote([ref])))
made = numbers.remote()
rlray.wait([made])
try:
    rlray.get(dies.remote())
except rlray.exceptions.WorkerCrashedError:
    pass
rlray.get([nap.remote(0.01) for _ in range(20)])
"""
BUSY = """
running = keeper.loop.remote()
asynchronous = Async.remote()
coroutines = [asynchronous.nap.remote(1000) for _ in range(3)]
naps = [nap.options(name="long nap").remote(1000) for _ in range(2)]
queued = [nap.options(name="queued").remote(0.1) for _ in range(5)]
late = nap.options(name="late").remote(0.1, naps[0])
other = Keeper.options(resources={"special": 1}).remote()
waits = Keeper.options(name="has no place", resources={"special": 1}).remote()
time.sleep(1)
print("READY")
rlray.get(naps)
"""
STUCK = """
running = keeper.hang.remote()
time.sleep(1)
print("READY")
re.match("(a+)+$", "a" * 60 + "b")
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str, **environment: str) -> Answer:
    """Run ``rlray`` as a program of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "rlray.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), **environment},
    )
    return Answer(done.returncode, done.stdout, done.stderr)


class Inside:
    """A driver, and the commands that look into it."""

    def __init__(self, driver: Driver, keeper: int) -> None:
        self.driver, self.keeper = driver, keeper

    def run(self, command: str, *arguments: str) -> str:
        """The output of a command that must succeed."""
        answer = run(command, *arguments, "--temp", str(self.driver.folder))
        assert answer.code == 0, answer
        assert not answer.err, answer
        return answer.out


@contextmanager
def driver(program: str) -> Iterator[Inside]:
    """A driver that has come so far that it is worth a look."""
    with Driver(PROGRAM + program) as process:
        keeper = int(process.expect("KEEPER"))
        process.expect("READY")
        yield Inside(process, keeper)

"""Simulating without learning: any environment, on all cores, for hundreds of millions of steps."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rlray
from rlray.algos.types import Weights
from rlray.config import ConfigError, Problem
from rlray.core.resources import count_cpus
from rlray.exceptions import RayTaskError, WorkerCrashedError
from rlray.train import simulation_report as reports
from rlray.train.checkpoint import load_checkpoint
from rlray.train.evaluation import find_checkpoint
from rlray.train.failures import SimulatorFailed, translated
from rlray.train.fleet import MAX_DEATHS
from rlray.train.groups import env_spec
from rlray.train.interrupts import leave_cleanly
from rlray.train.run import resolve
from rlray.train.run_folder import RunFolder
from rlray.train.simulation_console import SimulationConsole
from rlray.train.simulation_report import SimulationReport
from rlray.train.simulation_worker import Played, Share, play
from rlray.train.sources import AlgorithmSource, EnvSource

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
RANDOM = "random"


class SimulationInterrupted(KeyboardInterrupt):
    """The simulation was interrupted; ``report`` says what was played until then."""

    def __init__(self, report: SimulationReport) -> None:
        super().__init__(f"interrupted after {report.steps:,} of {report.asked:,} steps")
        self.report = report


def simulate(
    env: str | Callable[..., Any] | None,
    steps: int,
    *,
    policy: str | os.PathLike[str] = RANDOM,
    env_settings: Mapping[str, Any] | None = None,
    envs: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    report: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> SimulationReport:
    """Play ``steps`` agent steps of ``env`` on all cores, and say what came of it.

    Guarantees: at least ``steps`` are played, at most one more of each environment. Every process has its own fixed
    share and its own random numbers, so that equal arguments give equal episodes, unless a process dies: then a fresh
    one, with new random numbers, plays the rest of its share. The runtime is used as by `rlray.train`.

    Args:
        env: as in `rlray.envs.make_vec`. None: the environment of the run that ``policy`` names.
        policy: ``"random"``, or a run folder, whose newest checkpoint then plays greedily.
        env_settings: keyword arguments of the environment; those of the run, if it is its environment, stand behind.
        envs: environments that each process steps together. By default 16, or as many as suit the bundled Pong.
        workers: processes, by default one for each CPU.
        report: a file for the report, Markdown if it ends in ``.md``, else JSON. It is also written when the
            simulation is interrupted or fails, with what was played until then.
        progress: show how far it is: on a terminal in place, elsewhere a line now and then.

    Raises:
        ConfigError (ValueError): an argument is out of range, or the environment or a setting of it is unknown.
        ImportError: an extra is missing; the message has the pip line.
        RunFolderError, CheckpointError: where ``policy`` is no run folder, or has no checkpoint.
        EnvironmentFailed: the environment raised.
        SimulatorFailed: processes die again and again, or the policy raised.
        SimulationInterrupted: after the first Ctrl-C; the second leaves at once.
    """
    begun = time.monotonic()
    for name, value, least in (("steps", steps, 1), ("envs", envs, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError([Problem(f"{name} must be a whole number of at least {least}, got {value!r}")])
    if report is not None and not os.access(folder := Path(report).absolute().parent, os.W_OK):
        raise ConfigError([Problem(f"report {str(report)!r}: the folder {folder} is not there, or not to be written")])
    source, algorithm, weights, called = _players(env, policy, env_settings or {})
    env_spec(None, source)  # an unknown environment is an error here, not in another process
    workers = workers or _cpus()
    each = -(-steps // workers)
    envs = envs or min(source.envs_at_once, max(1, each // 1000))
    with SimulationConsole(source.id, steps, progress) as console, _runtime(workers, algorithm is not None):
        cpus = min(1.0, int(1000 * rlray.cluster_resources()["CPU"] / workers) / 1000)

        def share(number: int, life: int, left: int) -> Share:
            return Share(source, algorithm, number, life, seed, envs, left, cpus)

        quotas = [steps // workers + (number < steps % workers) for number in range(workers)]
        crew = _Crew(share, quotas, None if weights is None else rlray.put(weights), begun)
        about: dict[str, Any] = {
            "env": source.id,
            "env_settings": dict(source.settings),
            "policy": called,
            "seed": seed,
            "envs": envs,
            "asked": steps,
            "began": reports.now(),
            "machine": reports.machine(),
            "command": reports.command(),
        }
        ended_by = "interrupted"
        try:
            with leave_cleanly(crew.stop, "stopping; once more to leave at once"):
                for lives in crew:
                    console.update(lives)
            ended_by = crew.stopped_by or "steps"
        except BaseException as error:
            ended_by = f"{type(error).__name__}: {error}"
            raise
        finally:
            result = crew.report(ended_by, about)
            if report is not None:
                result.write(report)
    if ended_by != "steps":
        raise SimulationInterrupted(result)
    return result


@dataclass
class _Slot:
    """One of the processes through all its lives."""

    quota: int
    stream: Any = None
    lives: list[Played] = field(default_factory=list)  # what each has played
    deaths_in_row: int = 0
    done: bool = False

    @property
    def left(self) -> int:
        return self.quota - sum(one.steps for one in self.lives)


class _Crew:
    """The processes of a simulation, seen from the driver. Iterate over it for what they have played so far."""

    def __init__(self, share: Callable[[int, int, int], Share], quotas: list[int], weights: Any, begun: float) -> None:
        self._share, self._weights = share, weights
        self._slots = [_Slot(quota) for quota in quotas]
        self.stopped_by: str | None = None
        self._begun = begun
        self._first: float | None = None  # when the first process began to step
        self._last = time.monotonic()

    def stop(self, reason: str) -> None:
        """End soon. Safe in a signal handler."""
        self.stopped_by = reason

    def __iter__(self) -> Iterator[list[list[Played]]]:
        try:
            for number in range(len(self._slots)):
                self._start(number)
            while self.stopped_by is None and not all(slot.done for slot in self._slots):
                streams = [slot.stream for slot in self._slots if not slot.done]
                ready = set(rlray.wait(streams, num_returns=1, timeout=POLL_SECONDS)[0])
                ready |= set(rlray.wait(streams, num_returns=len(streams), timeout=0)[0])
                for number, slot in enumerate(self._slots):
                    if slot.stream in ready:
                        self._take(number)
                yield [slot.lives for slot in self._slots]
        finally:
            for slot in self._slots:
                if slot.stream is not None and not slot.done:
                    rlray.cancel(slot.stream, force=True)

    def report(self, ended_by: str, about: Mapping[str, Any]) -> SimulationReport:
        """What was played."""
        first = self._last if self._first is None else self._first
        lives = [slot.lives for slot in self._slots]
        returns, lengths = reports.together(lives)
        return SimulationReport(
            **about,
            steps=sum(one.steps for lives_of in lives for one in lives_of),
            seconds=self._last - first,
            start_seconds=first - self._begun,
            ended_by=ended_by,
            workers=[reports.worker_report(lives_of) for lives_of in lives],
            returns=returns,
            lengths=lengths,
        )

    def _start(self, number: int) -> None:
        slot = self._slots[number]
        share = self._share(number, len(slot.lives), slot.left)
        slot.lives.append(Played.nothing())
        options = {"num_cpus": share.num_cpus, "num_returns": "streaming", "max_retries": 0}
        slot.stream = rlray.remote(play).options(**options).remote(share, self._weights)

    def _take(self, number: int) -> None:
        """The next that process ``number`` has told, or its end."""
        slot = self._slots[number]
        ref = next(slot.stream, None)
        if ref is None:
            slot.done = True
            return
        try:
            played: Played = rlray.get(ref)
        except WorkerCrashedError as error:
            self._replace(number, error)
        except RayTaskError as error:
            raise translated(error, SimulatorFailed, f"process {number}") from error
        else:
            if played.steps:
                slot.deaths_in_row = 0
            slot.lives[-1] = played
            self._last = time.monotonic()
            self._first = self._first or self._last

    def _replace(self, number: int, error: WorkerCrashedError) -> None:
        slot = self._slots[number]
        slot.deaths_in_row += 1
        if slot.deaths_in_row >= MAX_DEATHS:
            raise SimulatorFailed(
                f"process {number} died {slot.deaths_in_row} times in a row without playing anything; the last time: "
                f"{error}"
            ) from error
        if slot.left <= 0:
            slot.done = True
            return
        log.warning("process %d died (%s); a fresh one plays the %s steps that it lacks", number, error, slot.left)
        self._start(number)


def _players(
    env: str | Callable[..., Any] | None, policy: str | os.PathLike[str], settings: Mapping[str, Any]
) -> tuple[EnvSource, AlgorithmSource | None, Weights | None, str]:
    """The environment, the algorithm and the weights that choose actions, and what to call them."""
    if policy == RANDOM:
        if env is None:
            text = "env must be given with policy 'random'; only a run folder brings its own environment"
            raise ConfigError([Problem(text)])
        return EnvSource.of(env, settings), None, None, RANDOM
    folder = RunFolder.open(policy)
    config, source = resolve(folder.load_config())
    if env is None or env == source.id:
        source = replace(source, settings={**source.settings, **settings})
    else:
        source = EnvSource.of(env, settings, config.code)
    checkpoint: Path = find_checkpoint(folder)
    weights = load_checkpoint(checkpoint, ["weights"])["weights"]
    return source, AlgorithmSource.of(config), weights, str(checkpoint)


def _cpus() -> int:
    """Those of the runtime that is there, or of the one that would be started."""
    return max(1, int(rlray.cluster_resources()["CPU"])) if rlray.is_initialized() else count_cpus()


@contextmanager
def _runtime(workers: int, torch: bool) -> Iterator[None]:
    if rlray.is_initialized():
        yield
        return
    rlray.init(num_cpus=workers, preload=("torch", "gymnasium") if torch else ("gymnasium",))
    try:
        yield
    finally:
        rlray.shutdown()

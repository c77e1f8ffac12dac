"""What a simulation came to, as a person and as a program read it."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rlray
from rlray.core.resources import count_cpus, machine_memory
from rlray.train.simulation_worker import Played
from rlray.train.tally import Summary, merged

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class WorkerReport:
    """One process of a simulation, through all its lives."""

    steps: int
    seconds: float  # in which it stepped, without its start
    cpu_seconds: float  # of them, those on a CPU
    episodes: int
    replaced: int  # how often it died and another took its place

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def cpu_rate(self) -> float:
        """Steps per second on a CPU: what it would be on one that it need not share."""
        return self.steps / self.cpu_seconds if self.cpu_seconds else 0.0


@dataclass(frozen=True)
class SimulationReport:
    """Raw returns, lengths in agent steps; statistics of episodes are None where none ended."""

    env: str
    env_settings: Mapping[str, Any]
    policy: str  # "random", or the checkpoint
    seed: int
    envs: int  # that each process steps together
    asked: int  # steps asked for
    steps: int  # agent steps played
    seconds: float  # from the first step of the first process to the last of the last
    start_seconds: float  # before that
    ended_by: str  # "steps", "interrupted", or what went wrong
    workers: Sequence[WorkerReport]
    returns: Summary
    lengths: Summary
    began: str
    machine: Mapping[str, Any]
    command: Sequence[str]

    @property
    def rate(self) -> float:
        """Steps per second of all processes together."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def episodes(self) -> int:
        """Those that ended."""
        return self.returns.count

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain values, for JSON."""
        found = {name: value for name, value in vars(self).items() if name not in ("workers", "returns", "lengths")}
        workers = [{**asdict(one), "rate": one.rate, "cpu_rate": one.cpu_rate} for one in self.workers]
        return {
            **found,
            "rate": self.rate,
            "workers": workers,
            "replaced": sum(one.replaced for one in self.workers),
            "episodes": self.episodes,
            "returns": statistics(self.returns),
            "lengths": statistics(self.lengths),
        }

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write it to ``path`` in one piece: Markdown where that ends in ``.md``, else JSON."""
        path = Path(path)
        text = self.markdown() if path.suffix == ".md" else json.dumps(_finite(self.as_dict()), indent=1) + "\n"
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
        return path

    def markdown(self) -> str:
        """All of it, as a page."""
        told = self.as_dict()
        lines = [f"# {self.env}, {self.steps:,} steps", "", *(f"* {line}" for line in str(self).splitlines()), ""]
        lines += ["| | mean | std | min | max | " + " | ".join(f"{part:.0%}" for part in QUANTILES) + " |"]
        lines += ["|" + "---|" * (5 + len(QUANTILES))]
        for name in ("returns", "lengths"):
            row = told[name]
            numbers = [row[key] for key in ("mean", "std", "min", "max")] + list(row["quantiles"].values())
            lines.append(f"| {name} | " + " | ".join("–" if x is None else f"{x:.6g}" for x in numbers) + " |")
        lines += ["", "| process | steps | steps/s | steps per CPU second | episodes | replaced |", "|" + "---|" * 6]
        for number, one in enumerate(self.workers):
            cells = (number, one.steps, one.rate, one.cpu_rate, one.episodes, one.replaced)
            lines.append("| " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")
        for name in ("began", "seed", "env_settings", "machine", "command"):
            value = told[name]
            lines += ["", f"{name}: `{' '.join(value) if name == 'command' else value}`"]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        each = sum(one.cpu_rate for one in self.workers) / len(self.workers)
        lines = [
            f"{self.steps:,} steps of {self.env} in {self.seconds:.1f} s: {self.rate:,.0f} steps/s by "
            f"{len(self.workers)} process(es) of {self.envs:,} environments; {each:,.0f} steps per CPU second",
        ]
        if self.episodes:
            of = self.returns
            low, middle, high = (of.quantile(part) for part in (0.05, 0.5, 0.95))
            lines.append(
                f"{self.episodes:,} episodes: return {of.mean:.4g} ± {of.std:.4g} (mean ± std; from {of.low:.4g} to "
                f"{of.high:.4g}, median {middle:.4g}, 5 % and 95 % at {low:.4g} and {high:.4g}), "
                f"{self.lengths.mean:,.1f} steps long"
            )
        else:
            lines.append("no episode ended")
        lines.append(f"policy: {self.policy}; started in {self.start_seconds:.1f} s")
        if replaced := sum(one.replaced for one in self.workers):
            lines.append(f"{replaced} process(es) died and were replaced")
        if self.ended_by != "steps":
            lines.append(f"ended by: {self.ended_by}, of {self.asked:,} steps asked for")
        return "\n".join(lines)


def worker_report(lives: Sequence[Played]) -> WorkerReport:
    """One process, from what its lives have played."""
    return WorkerReport(
        steps=sum(one.steps for one in lives),
        seconds=sum(one.seconds for one in lives),
        cpu_seconds=sum(one.cpu_seconds for one in lives),
        episodes=sum(one.returns.count for one in lives),
        replaced=len(lives) - 1,
    )


def together(workers: Sequence[Sequence[Played]]) -> tuple[Summary, Summary]:
    """Returns and lengths of all episodes, process by process and life by life."""
    lives = [one for lives in workers for one in lives]
    return merged([one.returns for one in lives]), merged([one.lengths for one in lives])


def statistics(of: Summary) -> dict[str, Any]:
    """Mean, deviation, extremes and quantiles; None where there are no numbers. ``every``: of the quantiles' sample."""
    numbers = {"mean": of.mean, "std": of.std, "min": of.low, "max": of.high}
    quantiles = {f"{part:g}": of.quantile(part) for part in QUANTILES}
    if not of.count:
        return {**dict.fromkeys(numbers), "quantiles": dict.fromkeys(quantiles), "every": of.stride}
    return {**numbers, "quantiles": quantiles, "every": of.stride}


def machine() -> dict[str, Any]:
    """The machine as it is now."""
    return {
        "cpu": _cpu(),
        "cpus": count_cpus(),
        "memory": machine_memory(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "rlray": rlray.__version__,
    }


def now() -> str:
    """The time with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def command() -> list[str]:
    """What this program was called with."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _finite(value: Any) -> Any:
    """``value`` with None for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value

"""What the benchmarks' reports have in common: where and when they ran, figures as people read them, tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sides import HERE, Side


def surroundings(peer: Side | None, why_not: str, ours: Side) -> dict[str, Any]:
    """Machine, versions, date and command of this run."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": command(),
        "machine": machine(),
        "versions": {
            "rlray": ours.version, "commit": commit(), "python": platform.python_version(),
            "Ray": peer.version if peer else f"left out: {why_not}",
        },
    }  # fmt: skip


def command() -> str:
    """The command line of this program, without where things lie on this machine."""
    words = [word if "/" not in word else f".../{Path(word).name}" for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine() -> str:
    """CPU, cores, memory, system, in a line."""
    model, memory = platform.machine(), ""
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
        memory = f", {int(Path('/proc/meminfo').read_text().split()[1]) / 2**20:.0f} GB"
    return f"{os.cpu_count()} cores of {model}{memory}, {platform.system()} {platform.release()}"


def commit(checkout: Path = HERE.parent) -> str:
    """The commit that was measured, and whether the files differ from it."""

    def git(*words: str) -> str:
        answer = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, check=False)
        return answer.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "rlray", "benchmarks")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def head(title: str, about: dict[str, Any], *lines: str) -> str:
    """The beginning of a page of results."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    facts = [f"`{about['command']}`", f"{about['date']} · {about['machine']} · {versions}.", *lines]
    return f"# {title}\n" + "\n\n".join(facts) + "\n\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what is in the cells cannot break it."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |\n"

    return line(columns) + "|---" * len(columns) + "|\n" + "".join(line(row) for row in rows)


def figure(value: float | None, unit: str = "") -> str:
    """Three significant digits, thousands apart; a rate's slash stands by itself."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def short(text: str, most: int = 160) -> str:
    """At most ``most`` characters of an error."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def load() -> list[float]:
    """The machine's load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def save(folder: Path, name: str, data: dict[str, Any], page: str) -> None:
    """Write ``name.json`` and ``name.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(page, encoding="utf-8")

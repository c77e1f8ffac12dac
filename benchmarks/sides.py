"""The two sides of a comparison, each in processes of its own, of which none is left behind."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARK = "RLRAY_BENCHMARK"


@dataclass(frozen=True)
class Side:
    """rlray or Ray: the name in tables, the module to import, and the Python that has it."""

    name: str
    module: str
    python: str
    version: str


class Child:
    """A program in a session of its own. When the ``with`` block ends, it and all that it started are killed.

    What it prints is in `output`; its temporary files lie in a folder that is removed.
    """

    def __init__(self, python: str, *arguments: str) -> None:
        self._mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="rb-"))
        self._output = self.folder / "output"
        search = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(self.folder), "TMPDIR": str(self.folder)}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [python, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": search,
                    "PYTHONUNBUFFERED": "1",
                    MARK: self._mark,
                    **quiet,
                },
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + 5
        while (left := self.left()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.02)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def output(self) -> str:
        """All that it has printed so far, stderr included."""
        return self._output.read_text(errors="replace")

    def wait(self, timeout: float) -> bool:
        """Whether it ended within ``timeout`` seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def left(self) -> set[int]:
        """The process, while it runs, and all that inherited its mark, wherever they hang in the tree."""
        found = {self.process.pid} if self.process.poll() is None else set()
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                marked = f"{MARK}={self._mark}".encode() in entry.read_bytes()
            except OSError:  # gone, or not ours
                continue
            if marked:
                found.add(int(entry.parent.name))
        return found


def run_case(
    side: Side,
    module: str,
    case: str,
    *,
    quick: bool,
    timeout: float,
    **arguments: Any,
) -> dict[str, Any]:
    """Run one case in a fresh process: {"samples", "notes"}, or {"error"} or {"left_out"} with the reason."""
    with tempfile.TemporaryDirectory(prefix="rb-") as folder:
        result = Path(folder) / "result.json"
        request = {
            "side": side.module, "module": module, "case": case, "quick": quick,
            "arguments": arguments, "result": str(result),
        }  # fmt: skip
        with Child(side.python, str(HERE / "child.py"), json.dumps(request)) as child:
            if not child.wait(timeout):
                return {"error": f"did not end within {timeout:g} s"}
            if result.exists():
                return dict(json.loads(result.read_text()))
            words = child.output.strip().splitlines() or ["it printed nothing"]
            return {"error": f"died with exit code {child.process.returncode}: {words[-1]}"}


def ours() -> Side:
    """rlray, of this checkout, in this Python."""
    text = (HERE.parent / "rlray" / "__init__.py").read_text()
    return Side("rlray", "rlray", sys.executable, text.partition('__version__ = "')[2].partition('"')[0])


def peer(python: str | None) -> tuple[Side | None, str]:
    """Ray as ``python`` has it (this one by default), or None and why not."""
    if python == "none":
        return None, "not asked for (--peer-python none)"
    if python is None and importlib.util.find_spec("ray") is None:
        return None, "Ray is not installed in this Python; name one that has it: --peer-python PATH"
    python = python or sys.executable
    try:
        command = [python, "-c", "import ray; print(ray.__version__)"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as why:
        return None, f"--peer-python does not run: {why}"
    if answer.returncode:
        return None, f"--peer-python has no Ray: {answer.stderr.strip().splitlines()[-1]}"
    return Side("Ray", "ray", python, answer.stdout.split()[-1]), ""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that all comparisons have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--peer-python", metavar="PATH", help="a Python that has Ray, or 'none' (default: this one)")
    made.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results", help="folder of the results")
    made.add_argument(
        "--quick", action="store_true", help="tiny amounts of work: tries the benchmark, measures nothing"
    )
    made.add_argument("--only", nargs="+", metavar="NAME", default=[], help="only what has one of these in its name")
    return made


def end_on_sigterm() -> None:
    """SIGTERM ends this program like Ctrl-C: what it started is killed first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

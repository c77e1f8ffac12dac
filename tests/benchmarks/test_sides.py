"""Cases in processes of their own: what they return, how they fail, and that they leave nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY, Process, needs_proc, wait_until


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs one of the toy cases."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    import sides

    def run(name: str, timeout: float = 60, module: str = "rlray", **arguments: Any) -> dict[str, Any]:
        side = sides.Side(module, module, sys.executable, "0")
        return dict(sides.run_case(side, "toy_cases", name, quick=True, timeout=timeout, **arguments))

    return run


def test_a_case_gets_the_runtime_and_its_arguments(run: Any) -> None:
    assert run("good", value=7.0) == {"samples": [7.0, 7.0], "notes": {"initialized": 1.0}}


def test_an_error_is_the_result(run: Any) -> None:
    error = run("raises")["error"]
    assert error.startswith("RayTaskError(KeyError): ")
    assert error.endswith("KeyError: 'lost'")
    assert "Traceback" not in error


def test_a_case_that_dies_says_its_last_words(run: Any) -> None:
    assert run("dies") == {"error": "died with exit code 3: last words"}


def test_what_is_missing_fails_on_rlray_and_is_left_out_on_its_peer(run: Any, tmp_path: Path) -> None:
    """The peer here is a module that is empty: the case stops before it needs more of it."""
    (tmp_path / "ray.py").touch()
    reason = "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert run("needs") == {"error": reason}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{tmp_path}")
        assert run("needs", module="ray") == {"left_out": reason}


@needs_proc
def test_a_case_that_hangs_is_ended_with_all_it_started(run: Any, tmp_path: Path) -> None:
    for timeout in (1, 4, 16):  # on a busy machine it may be ended before it has started anything
        assert run("hangs", timeout=timeout) == {"error": f"did not end within {timeout} s"}
        if (tmp_path / "pid").exists():
            break
    stray = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not Process(stray, started(stray)).running), "its child outlives it"


def started(pid: int) -> int:
    """When that process started, so that another one with the same number is not taken for it."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0

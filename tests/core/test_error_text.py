"""Whoever looks into a run reads what errors say, and runs nothing that they are made of."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from rlray.core.error_text import error_text
from rlray.core.exceptions import ActorDiedError, RayTaskError, task_error
from rlray.core.serialization import dumps_error


class Bomb(Exception):
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, file: Path) -> None:
        super().__init__(f"boom {file}")
        self.file = file

    def __reduce__(self) -> Any:
        return _explode, (str(self.file),)


def _explode(file: str) -> Bomb:
    Path(file).touch()
    return Bomb(Path(file))


def raised(error: BaseException) -> RayTaskError:
    try:
        raise error
    except BaseException as caught:
        return task_error("f", caught, "pid=1")


@pytest.mark.parametrize(
    "error",
    [ValueError("plain"), ActorDiedError("the actor is dead"), OSError(2, "No such file", "x"), KeyError("k")],
)
def test_errors_of_python_and_of_rlray_say_what_they_say(error: BaseException) -> None:
    assert error_text(dumps_error(error)) == str(error)


def test_the_error_of_a_task_has_its_traceback() -> None:
    class Local(ValueError):
        """Pickled by value."""

        def __init__(self, one: int, two: dict[str, int]) -> None:
            super().__init__(f"odd {one}")
            self.two = two

    for error in (raised(Local(1, {"a": 2})), raised(Local(1, {})).as_instanceof_cause()):
        text = error_text(dumps_error(error))
        assert "f raised in another process (pid=1)" in text
        assert "Local: odd 1" in text


def test_nothing_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    as_it_is, as_a_cause = pickle.dumps(Bomb(marker)), pickle.dumps(raised(Bomb(marker)))
    marker.unlink(missing_ok=True)
    assert isinstance(error_text(as_it_is), str)
    assert f"boom {marker}" in error_text(as_a_cause)
    assert not marker.exists()
    pickle.loads(as_it_is)
    assert marker.exists(), "the bomb is one"
    marker.unlink()
    assert isinstance(pickle.loads(as_a_cause).cause, Bomb)
    assert marker.exists(), "and as a cause, too"


def test_what_is_no_error() -> None:
    for data in (b"", b"garbage", pickle.dumps(os.system), pickle.dumps(ValueError)[:-3]):
        assert isinstance(error_text(data), str)

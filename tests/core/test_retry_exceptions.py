"""``retry_exceptions``: tasks and methods that run again when their code raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rlray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


class OwnError(ValueError):
    """A class of the user's own, which the worker must know to compare with."""


def attempt(log: Path, raises: type[Exception], times: int) -> int:
    """Raise as often as asked, then return the number of this run, from 1; every run leaves a byte in ``log``."""
    with log.open("a") as file:
        file.write("x")
    run = len(log.read_text())
    if run <= times:
        raise raises(f"run {run}")
    return run


def runs(log: Path) -> int:
    return len(log.read_text())


def submit(log: Path, times: int, raises: type[Exception] = ValueError, **options: Any) -> rlray.ObjectRef:
    return rlray.remote(attempt).options(**options).remote(log, raises, times)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_by_default_errors_of_the_code_are_not_retried(log: Path) -> None:
    with pytest.raises(ValueError, match="run 1"):
        rlray.get(submit(log, 1))
    assert runs(log) == 1


def test_true_retries_every_error_until_it_works(log: Path) -> None:
    assert rlray.get(submit(log, 2, retry_exceptions=True)) == 3


def test_as_often_as_max_retries_says(log: Path) -> None:
    with pytest.raises(ValueError, match="run 3"):
        rlray.get(submit(log, 99, retry_exceptions=True, max_retries=2))
    assert runs(log) == 3


def test_three_retries_by_default(log: Path) -> None:
    with pytest.raises(ValueError, match="run 4"):
        rlray.get(submit(log, 99, retry_exceptions=True))


def test_no_retries_at_all(log: Path) -> None:
    with pytest.raises(ValueError, match="run 1"):
        rlray.get(submit(log, 99, retry_exceptions=True, max_retries=0))
    assert runs(log) == 1


def test_minus_one_retries_without_end(log: Path) -> None:
    assert rlray.get(submit(log, 25, retry_exceptions=True, max_retries=-1)) == 26


@pytest.mark.parametrize("listed", [[OwnError], [KeyError, ValueError], (Exception,)], ids=["own", "base", "tuple"])
def test_a_list_retries_what_it_names_and_subclasses(log: Path, listed: Any) -> None:
    assert rlray.get(submit(log, 2, OwnError, retry_exceptions=listed)) == 3


@pytest.mark.parametrize("listed", [[], [KeyError], [OwnError]], ids=["empty", "other", "subclass"])
def test_what_a_list_does_not_name_is_not_retried(log: Path, listed: Any) -> None:
    with pytest.raises(ValueError, match="run 1"):
        rlray.get(submit(log, 99, ValueError, retry_exceptions=listed))
    assert runs(log) == 1


def test_many_at_once_each_keep_their_own_count(tmp_path: Path) -> None:
    task = rlray.remote(retry_exceptions=True, max_retries=5)(attempt)
    refs = [task.remote(tmp_path / str(i), ValueError, i % 5) for i in range(50)]
    assert rlray.get(refs, timeout=60) == [i % 5 + 1 for i in range(50)]


def test_with_several_results(log: Path) -> None:
    @rlray.remote(num_returns=2, retry_exceptions=True)
    def two() -> tuple[int, int]:
        return attempt(log, ValueError, 1), 0

    assert rlray.get(two.remote()) == [2, 0]


def test_arguments_in_the_store_are_still_there(log: Path) -> None:
    @rlray.remote(retry_exceptions=True)
    def size(data: bytes) -> int:
        attempt(log, ValueError, 2)
        return len(data)

    assert rlray.get(size.remote(rlray.put(bytes(1_000_000)))) == 1_000_000


@pytest.mark.parametrize(
    ("wrong", "error"), [(5, TypeError), (None, TypeError), (["ValueError"], ValueError), ([ValueError()], ValueError)]
)
def test_wrong_values(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="retry_exceptions"):
        rlray.remote(retry_exceptions=wrong)(attempt)


@rlray.remote
class Moody:
    def __init__(self) -> None:
        self.calls = 0

    @rlray.method(retry_exceptions=True, max_task_retries=2)
    def retried(self, times: int) -> int:
        return self.plain(times)

    @rlray.method(retry_exceptions=[KeyError], max_task_retries=2)
    def listed(self, times: int) -> int:
        return self.plain(times)

    @rlray.method(max_task_retries=2)
    def only_crashes(self, times: int) -> int:
        return self.plain(times)

    def plain(self, times: int) -> int:
        self.calls += 1
        if self.calls <= times:
            raise ValueError(f"call {self.calls}")
        return self.calls

    async def asynchronous(self, times: int) -> int:
        return self.plain(times)

    def count(self) -> int:
        return self.calls


class SyncMoody(Moody._class):  # the same without coroutines
    asynchronous = None


@pytest.mark.parametrize(
    "make",
    [Moody.remote, rlray.remote(SyncMoody).remote, rlray.remote(SyncMoody).options(max_concurrency=2).remote],
    ids=["async", "sync", "threads"],
)
def test_methods(make: Any) -> None:
    assert rlray.get(make().retried.remote(2), timeout=20) == 3
    for name, error, count in (("retried", "call 3", 3), ("listed", "call 1", 1), ("only_crashes", "call 1", 1)):
        actor = make()
        with pytest.raises(ValueError, match=error):
            rlray.get(getattr(actor, name).remote(99), timeout=20)
        assert rlray.get(actor.count.remote(), timeout=20) == count


@pytest.mark.differs("ray", "Ray waits a second before each attempt of a method")
def test_methods_with_options_of_one_call() -> None:
    actor = Moody.remote()
    assert rlray.get(actor.plain.options(retry_exceptions=True, max_task_retries=-1).remote(20), timeout=20) == 21
    coroutine = Moody.remote().asynchronous.options(retry_exceptions=[ValueError], max_task_retries=3)
    assert rlray.get(coroutine.remote(3), timeout=20) == 4


def test_methods_take_the_number_from_the_class() -> None:
    actor = Moody.options(max_task_retries=4).remote()
    assert rlray.get(actor.plain.options(retry_exceptions=True).remote(4), timeout=20) == 5

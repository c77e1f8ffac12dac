"""Calling functions as tasks: arguments, results, options, and what happens when they are used wrongly."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

import rlray

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@rlray.remote
def defaults(a: int, b: int = 2, *rest: int, c: int = 3, **more: int) -> Any:
    return a, b, rest, c, more


@rlray.remote
def split(count: int) -> Any:
    return tuple(range(count))


@pytest.mark.processes
def test_runs_in_another_process() -> None:
    pid = rlray.get(rlray.remote(lambda: os.getpid()).remote())
    assert pid != os.getpid()
    assert os.path.isdir("/proc") is False or os.path.isdir(f"/proc/{pid}")


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, "two", None), {}),
        ((), {"key": [1, 2], "other": {"a": ()}}),
        ((b"\0" * 300_000,), {"big": "x" * 300_000}),
        (tuple(range(1000)), {f"k{i}": i for i in range(300)}),
    ],
    ids=["none", "positional", "keywords", "big", "many"],
)
def test_arguments_arrive_as_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert rlray.get(echo.remote(*args, **kwargs)) == (args, kwargs)


def test_defaults_and_keyword_only_arguments() -> None:
    assert rlray.get(defaults.remote(1)) == (1, 2, (), 3, {})
    assert rlray.get(defaults.remote(1, 5, 6, 7, c=8, d=9)) == (1, 5, (6, 7), 8, {"d": 9})
    assert rlray.get(defaults.remote(b=4, a=0)) == (0, 4, (), 3, {})


def test_big_array_argument_arrives_whole() -> None:
    array = np.arange(6_000_000, dtype=np.int64)  # 48 MB
    [(seen,), _] = rlray.get(echo.remote(array))
    assert seen.dtype == array.dtype
    assert np.array_equal(seen, array)


def test_argument_is_taken_as_it_was_at_the_call() -> None:
    argument = [1, 2, 3]
    ref = echo.remote(argument)
    argument.clear()
    assert rlray.get(ref) == (([1, 2, 3],), {})


@pytest.mark.differs("ray", "Ray starts workers when they are needed, which takes a while")
@pytest.mark.processes
def test_calls_do_not_block() -> None:
    nap = rlray.remote(lambda seconds: time.sleep(seconds))
    start = time.monotonic()
    refs = [nap.remote(1.0) for _ in range(4)]
    assert time.monotonic() - start < 0.5
    rlray.get(refs)
    assert time.monotonic() - start < 3.0, "four tasks on four CPUs did not run side by side"


def test_thousands_of_tasks_give_their_results_in_order() -> None:
    square = rlray.remote(lambda x: x * x)
    assert rlray.get([square.remote(i) for i in range(3000)]) == [i * i for i in range(3000)]


def test_multiple_returns_are_references_of_their_own() -> None:
    first, second, third = split.options(num_returns=3).remote(3)
    assert rlray.get([third, first, second]) == [2, 0, 1]
    assert len({first, second, third}) == 3


def test_num_returns_of_the_decorator_and_zero() -> None:
    @rlray.remote(num_returns=2)
    def pair() -> Any:
        return ["left", "right"]

    assert rlray.get(list(pair.remote())) == ["left", "right"]
    assert rlray.remote(num_returns=0)(lambda: None).remote() is None


@pytest.mark.parametrize("count", [2, 4])
def test_wrong_number_of_returns_is_an_error_in_every_reference(count: int) -> None:
    refs = split.options(num_returns=3).remote(count)
    for ref in refs:
        with pytest.raises(ValueError, match=f"(?s){count}.*3"):
            rlray.get(ref)


def test_returning_one_value_where_many_are_promised() -> None:
    left, _right = rlray.remote(num_returns=2)(lambda: 7).remote()
    with pytest.raises((TypeError, ValueError)):
        rlray.get(left)


def test_options_leave_the_original_alone() -> None:
    renamed = split.options(num_returns=2)
    assert len(renamed.remote(2)) == 2
    assert rlray.get(split.remote(2)) == (0, 1)


def test_signature_errors_are_raised_at_the_call() -> None:
    with pytest.raises(TypeError, match="'a'"):
        defaults.remote()
    with pytest.raises(TypeError, match="count"):
        split.remote(1, count=2)
    with pytest.raises(TypeError, match="nonsense"):
        split.remote(2, nonsense=2)


def test_direct_call_names_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"split\.remote\("):
        split(1)


def test_unknown_option_lists_the_valid_ones() -> None:
    for misuse in (lambda: split.options(num_cpu=1), lambda: rlray.remote(num_cpu=1)(lambda: 1)):
        with pytest.raises(ValueError, match=r"(?s)num_cpu\b.*num_cpus.*num_returns"):
            misuse()


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("num_cpus", "2", TypeError),
        ("num_cpus", -1, ValueError),
        ("num_gpus", -0.5, ValueError),
        ("num_returns", -1, ValueError),
        ("max_retries", -2, ValueError),
        ("resources", {"special": -1}, ValueError),
        ("resources", {"CPU": 1}, ValueError),
        ("resources", ["special"], TypeError),
    ],
)
def test_bad_option_values_name_the_option(option: str, value: Any, kind: type[Exception]) -> None:
    named = r"CPU|num_cpus" if value == {"CPU": 1} else rf"{option}|special|None"
    with pytest.raises(kind, match=named):
        split.options(**{option: value}).remote(1)


def test_decorator_misuse_shows_how_to_use_it() -> None:
    for misuse in (lambda: rlray.remote()(lambda: 1), lambda: rlray.remote(5)):
        with pytest.raises((TypeError, ValueError, AssertionError), match="remote"):
            misuse()


def test_unpicklable_argument_names_the_function_and_the_trouble() -> None:
    import threading

    with pytest.raises(TypeError, match=r"(?s)lock.*echo|echo.*lock"):
        echo.remote(threading.Lock())


def test_unpicklable_result_is_an_error_not_a_dead_worker() -> None:
    def make() -> Any:
        import threading

        return threading.Lock()

    with pytest.raises(TypeError, match="lock"):
        rlray.get(rlray.remote(make).remote())
    assert rlray.get(echo.remote(1)) == ((1,), {})

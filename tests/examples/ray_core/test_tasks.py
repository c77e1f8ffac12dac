"""Programs of tasks as Ray's walkthrough teaches them: results, graphs, limits, pipelines, generators, faults."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.ray_core.support import ray, runtime

__all__ = ["runtime"]


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote
def add(a: int, b: int) -> int:
    return a + b


def test_a_function_becomes_a_task() -> None:
    refs = [square.remote(i) for i in range(4)]
    assert ray.get(refs) == [0, 1, 4, 9]


def test_results_are_passed_on_by_reference() -> None:
    """The driver describes the graph; values flow between the tasks."""
    total = add.remote(square.remote(3), square.remote(4))
    assert ray.get(total) == 25


def test_several_results() -> None:
    @ray.remote(num_returns=3)
    def statistics(values: list[int]) -> tuple[int, int, float]:
        return min(values), max(values), sum(values) / len(values)

    low, high, mean = statistics.remote([3, 1, 8])
    assert ray.get(mean) == 4.0
    assert ray.get([low, high]) == [1, 8]


def test_other_options_for_one_call() -> None:
    halves = add.options(num_cpus=0.5, name="halves").remote(1, 2)
    assert ray.get(halves) == 3


def test_results_are_processed_as_they_finish(tmp_path: Path) -> None:
    """With ``wait`` a slow task does not hold up the results of the others."""

    @ray.remote
    def job(i: int) -> int:
        while i == 0 and len(list(tmp_path.iterdir())) < 3:  # the slow one: it ends after the others were processed
            time.sleep(0.01)
        return i

    pending = [job.remote(i) for i in range(4)]
    order = []
    while pending:
        done, pending = ray.wait(pending)
        order.append(ray.get(done[0]))
        (tmp_path / str(order[-1])).touch()
    assert sorted(order) == [0, 1, 2, 3]
    assert order[-1] == 0


def test_the_number_of_pending_tasks_is_limited() -> None:
    """Submitting waits while enough is under way, so that memory stays bounded however many items there are."""
    limit, most, results = 8, 0, []
    pending: list = []
    for i in range(100):
        if len(pending) >= limit:
            done, pending = ray.wait(pending, num_returns=1)
            results += ray.get(done)
        pending.append(square.remote(i))
        most = max(most, len(pending))
    results += ray.get(pending)
    assert sorted(results) == [i * i for i in range(100)]
    assert most == limit


def test_nested_tasks_sort_a_list() -> None:
    @ray.remote
    def quicksort(values: list[int]) -> list[int]:
        if len(values) < 50:
            return sorted(values)
        pivot = values[0]
        lower = quicksort.remote([value for value in values[1:] if value < pivot])
        upper = quicksort.remote([value for value in values[1:] if value >= pivot])
        return [*ray.get(lower), pivot, *ray.get(upper)]

    values = [random.randrange(1_000_000) for _ in range(1_500)]
    assert ray.get(quicksort.remote(values)) == sorted(values)


def test_a_tree_of_sums() -> None:
    """Aggregating in a tree: no task, and not the driver either, sees more than two values."""
    level = [square.remote(i) for i in range(64)]
    while len(level) > 1:
        level = [add.remote(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    assert ray.get(level[0]) == sum(i * i for i in range(64))


def test_words_are_counted_by_map_and_reduce() -> None:
    texts = ["a rose is a rose", "is a rose", "a tulip is not"]
    reducers = 2

    @ray.remote(num_returns=reducers)
    def split(text: str) -> list[list[str]]:
        parts: list[list[str]] = [[] for _ in range(reducers)]
        for word in text.split():
            parts[len(word) % reducers].append(word)
        return parts

    @ray.remote
    def count(*parts: list[str]) -> Counter:
        return Counter(word for part in parts for word in part)

    mapped = [split.remote(text) for text in texts]
    reduced = [count.remote(*(parts[i] for parts in mapped)) for i in range(reducers)]
    assert sum(ray.get(reduced), Counter()) == Counter(" ".join(texts).split())


def test_a_pipeline_overlaps_its_stages() -> None:
    """A stage works on an item while the one before works on the next: each has an actor of its own."""

    @ray.remote
    class Stage:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def work(self, x: int) -> int:
            return x * self.factor

    first, second = Stage.remote(2), Stage.remote(5)
    refs = [second.work.remote(first.work.remote(i)) for i in range(20)]
    assert ray.get(refs) == [10 * i for i in range(20)]


def test_a_generator_gives_its_values_one_by_one() -> None:
    @ray.remote
    def blocks(n: int) -> Iterator[list[int]]:
        for i in range(n):
            yield [i] * 3

    assert [ray.get(ref) for ref in blocks.remote(4)] == [[0] * 3, [1] * 3, [2] * 3, [3] * 3]


def test_values_of_a_generator_feed_tasks_while_it_runs() -> None:
    @ray.remote
    def numbers(n: int) -> Iterator[int]:
        for i in range(n):  # Ray's generators cannot `yield from` what is no generator
            yield i + 0

    assert ray.get([square.remote(ref) for ref in numbers.remote(10)]) == [i * i for i in range(10)]


def test_a_generator_is_held_back_by_its_reader() -> None:
    @ray.remote(_generator_backpressure_num_objects=2)
    def numbers(n: int) -> Iterator[int]:
        for i in range(n):
            yield i + 0

    assert [ray.get(ref) for ref in numbers.remote(20)] == list(range(20))


def test_errors_arrive_with_their_class_and_traceback() -> None:
    @ray.remote
    def divide(a: float, b: float) -> float:
        return a / b

    with pytest.raises(ZeroDivisionError, match="a / b") as caught:
        ray.get(divide.remote(1, 0))
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    with pytest.raises(ZeroDivisionError):
        ray.get(square.remote(divide.remote(1, 0)))


def test_a_task_whose_worker_dies_is_run_again(tmp_path: Path) -> None:
    @ray.remote(max_retries=2)
    def fragile() -> str:
        with (tmp_path / "log").open("a") as file:
            file.write("x")
        if len((tmp_path / "log").read_text()) < 3:
            os._exit(1)
        return "survived"

    assert ray.get(fragile.remote()) == "survived"

    @ray.remote(max_retries=0)
    def doomed() -> None:
        os._exit(1)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(doomed.remote())


def test_a_task_that_raises_is_run_again_if_asked(tmp_path: Path) -> None:
    @ray.remote(max_retries=5, retry_exceptions=[ConnectionError])
    def unreliable() -> int:
        with (tmp_path / "log").open("a") as file:
            file.write("x")
        tries = len((tmp_path / "log").read_text())
        if tries < 3:
            raise ConnectionError("try again")
        return tries

    assert ray.get(unreliable.remote()) == 3


def test_a_task_is_cancelled() -> None:
    @ray.remote
    def forever() -> None:
        while True:
            time.sleep(0.01)

    ref = forever.remote()
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(ref, timeout=0.5)
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref)


def test_pi_by_chance_with_an_actor_that_shows_progress() -> None:
    @ray.remote
    class Progress:
        def __init__(self, total: int) -> None:
            self.total, self.done = total, 0

        def report(self, samples: int) -> None:
            self.done += samples

        def fraction(self) -> float:
            return self.done / self.total

    @ray.remote
    def sample(n: int, seed: int, progress: object) -> int:
        numbers = random.Random(seed)
        inside = sum(numbers.random() ** 2 + numbers.random() ** 2 <= 1 for _ in range(n))
        ray.get(progress.report.remote(n))  # type: ignore[attr-defined]
        return inside

    tasks, each = 8, 5_000
    progress = Progress.remote(tasks * each)
    inside = sum(ray.get([sample.remote(each, seed, progress) for seed in range(tasks)]))
    assert ray.get(progress.fraction.remote()) == 1.0
    assert abs(4 * inside / (tasks * each) - 3.14159) < 0.1

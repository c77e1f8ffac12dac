"""Programs of actors as Ray's walkthrough teaches them: state, trees, pools, signals, servers, names, faults."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.examples.ray_core.support import ray, runtime, submodule

__all__ = ["runtime"]


@ray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def increment(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def pid(self) -> int:
        return os.getpid()


@ray.remote(num_cpus=0)
class Signal:
    """Tasks and actors wait here until somebody sends."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def send(self) -> None:
        self.event.set()

    async def wait(self) -> None:
        await self.event.wait()


def test_an_actor_keeps_state() -> None:
    counters = [Counter.remote(10 * i) for i in range(3)]
    for counter in counters:
        counter.increment.remote()
    assert ray.get([counter.increment.remote(5) for counter in counters]) == [6, 16, 26]


def test_tasks_share_an_actor_by_its_handle() -> None:
    @ray.remote
    def work(counter: Any, times: int) -> None:
        ray.get([counter.increment.remote() for _ in range(times)])

    counter = Counter.remote()
    ray.get([work.remote(counter, 10) for _ in range(4)])
    assert ray.get(counter.increment.remote(0)) == 40


def test_a_named_actor_is_found_again() -> None:
    counter = Counter.options(name="global counter").remote()
    ray.get(counter.increment.remote())

    @ray.remote
    def elsewhere() -> int:
        return ray.get(ray.get_actor("global counter").increment.remote())

    assert ray.get(elsewhere.remote()) == 2
    same = Counter.options(name="global counter", get_if_exists=True).remote()
    assert ray.get(same.increment.remote()) == 3
    ray.kill(counter)
    with pytest.raises(ValueError, match="no such actor"):
        ray.get_actor("no such actor")


def test_a_tree_of_actors() -> None:
    """The driver talks to supervisors, each of which has workers of its own."""

    @ray.remote(num_cpus=0)
    class Worker:
        def work(self, x: int) -> int:
            return x + 1

    @ray.remote(num_cpus=0)
    class Supervisor:
        def __init__(self, workers: int) -> None:
            self.workers = [Worker.remote() for _ in range(workers)]

        def work(self, start: int) -> int:
            return sum(ray.get([worker.work.remote(start + i) for i, worker in enumerate(self.workers)]))

    supervisors = [Supervisor.remote(2) for _ in range(2)]
    assert ray.get([supervisor.work.remote(10 * i) for i, supervisor in enumerate(supervisors)]) == [3, 23]


def test_a_signal_lets_tasks_go_at_once() -> None:
    signal = Signal.remote()

    @ray.remote(num_cpus=0.5)
    def wait_and_go(i: int) -> int:
        ray.get(signal.wait.remote())
        return i

    refs = [wait_and_go.remote(i) for i in range(5)]
    assert ray.wait(refs, timeout=0.3)[0] == []
    ray.get(signal.send.remote())
    assert ray.get(refs) == [0, 1, 2, 3, 4]


def test_an_async_actor_serves_many_at_a_time() -> None:
    @ray.remote
    class Barrier:
        """Nobody passes until all are there: it can only end if the calls run at the same time."""

        def __init__(self, parties: int) -> None:
            self.missing, self.open = parties, asyncio.Event()

        async def arrive(self) -> str:
            self.missing -= 1
            if not self.missing:
                self.open.set()
            await self.open.wait()
            return "through"

    barrier = Barrier.remote(30)
    assert ray.get([barrier.arrive.remote() for _ in range(30)]) == ["through"] * 30


def test_an_async_actor_awaits_tasks() -> None:
    @ray.remote
    def double(x: int) -> int:
        return 2 * x

    @ray.remote
    class Client:
        async def total(self, n: int) -> int:
            return sum(await asyncio.gather(*[double.remote(i) for i in range(n)]))

    assert ray.get(Client.remote().total.remote(5)) == 20


def test_the_driver_awaits_results() -> None:
    counter = Counter.remote()

    async def main() -> list[int]:
        return await asyncio.gather(*[counter.increment.remote() for _ in range(3)])

    assert asyncio.run(main()) == [1, 2, 3]


def test_a_threaded_actor() -> None:
    @ray.remote(max_concurrency=2)
    class Pair:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(2)

        def meet(self) -> bool:
            self.barrier.wait(30)
            return True

    pair = Pair.remote()
    assert ray.get([pair.meet.remote(), pair.meet.remote()]) == [True, True]


def test_concurrency_groups_keep_a_health_check_responsive() -> None:
    @ray.remote(concurrency_groups={"health": 1})
    class Service:
        def __init__(self) -> None:
            self.stop = threading.Event()

        def serve(self) -> str:
            self.stop.wait(30)
            return "served"

        @ray.method(concurrency_group="health")
        def healthy(self) -> bool:
            return True

        @ray.method(concurrency_group="health")
        def end(self) -> None:
            self.stop.set()

    service = Service.remote()
    serving = service.serve.remote()
    assert ray.get(service.healthy.remote()) is True
    assert ray.wait([serving], timeout=0)[0] == []
    ray.get(service.end.remote())
    assert ray.get(serving) == "served"


def test_methods_that_are_generators() -> None:
    @ray.remote
    class Chapters:
        def read(self, n: int) -> Iterator[str]:
            for i in range(n):
                yield f"chapter {i}"

    @ray.remote
    class News:
        async def follow(self, n: int) -> AsyncIterator[int]:
            for i in range(n):
                await asyncio.sleep(0)
                yield i

    assert [ray.get(ref) for ref in Chapters.remote().read.remote(2)] == ["chapter 0", "chapter 1"]
    assert [ray.get(ref) for ref in News.remote().follow.remote(3)] == [0, 1, 2]


def test_subscribers_wait_for_news_by_long_polling() -> None:
    @ray.remote
    class Board:
        def __init__(self) -> None:
            self.messages: list[str] = []
            self.news = asyncio.Condition()

        async def publish(self, message: str) -> None:
            async with self.news:
                self.messages.append(message)
                self.news.notify_all()

        async def after(self, seen: int) -> list[str]:
            async with self.news:
                await self.news.wait_for(lambda: len(self.messages) > seen)
                return self.messages[seen:]

    board = Board.remote()
    waiting = board.after.remote(0)
    assert ray.wait([waiting], timeout=0.2)[0] == []
    board.publish.remote("first")
    assert ray.get(waiting) == ["first"]
    board.publish.remote("second")
    assert ray.get(board.after.remote(1)) == ["second"]


def test_a_pool_shares_out_work() -> None:
    pool = submodule("util").ActorPool([Counter.remote(100) for _ in range(2)])
    results = list(pool.map_unordered(lambda actor, by: actor.increment.remote(by), [0] * 10))
    assert results == [100] * 10
    assert list(pool.map(lambda actor, by: actor.increment.remote(by), [0, 0])) == [100, 100]


def test_a_queue_between_producers_and_consumers() -> None:
    queue = submodule("util.queue").Queue(maxsize=4)

    @ray.remote
    def produce(n: int) -> None:
        for i in range(n):
            queue.put(i)

    @ray.remote
    def consume(n: int) -> list[int]:
        return [queue.get(timeout=30) for _ in range(n)]

    produced, consumed = produce.remote(20), consume.remote(20)
    assert ray.get(consumed) == list(range(20))
    ray.get(produced)
    queue.shutdown()


class _Server:
    """Holds the weights of a linear model, y = x @ w."""

    def __init__(self, size: int) -> None:
        self.weights = np.zeros(size)

    def pull(self) -> np.ndarray:
        return self.weights

    def push(self, *gradients: np.ndarray) -> np.ndarray:
        self.weights = self.weights - 0.2 * np.mean(gradients, axis=0)
        return self.weights


class _Trainer:
    """Computes gradients on data of its own."""

    def __init__(self, seed: int, truth: np.ndarray) -> None:
        self.numbers, self.truth = np.random.default_rng(seed), truth

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        x = self.numbers.normal(size=(64, len(self.truth)))
        return x.T @ (x @ (weights - self.truth)) / len(x)


TRUTH = np.array([1.0, -2.0, 0.5])


def test_a_synchronous_parameter_server() -> None:
    server = ray.remote(_Server).remote(3)
    trainers = [ray.remote(_Trainer).remote(seed, TRUTH) for seed in range(3)]
    weights = server.pull.remote()
    for _ in range(60):  # only references pass through the driver
        weights = server.push.remote(*[trainer.gradient.remote(weights) for trainer in trainers])
    np.testing.assert_allclose(ray.get(weights), TRUTH, atol=0.05)


def test_an_asynchronous_parameter_server() -> None:
    server = ray.remote(_Server).remote(3)
    trainers = [ray.remote(_Trainer).remote(seed, TRUTH) for seed in range(2)]
    under_way = {trainer.gradient.remote(server.pull.remote()): trainer for trainer in trainers}
    for _ in range(120):
        [gradient], _ = ray.wait(list(under_way))
        trainer = under_way.pop(gradient)
        under_way[trainer.gradient.remote(server.push.remote(gradient))] = trainer
    np.testing.assert_allclose(ray.get(server.pull.remote()), TRUTH, atol=0.05)


def test_a_restarted_actor_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    @ray.remote(max_restarts=-1, max_task_retries=-1)
    class Durable:
        def __init__(self, path: Path) -> None:
            self.path = path
            self.state = json.loads(path.read_text()) if path.exists() else {"steps": 0}

        def step(self) -> int:
            self.state["steps"] += 1
            self.path.write_text(json.dumps(self.state))
            if self.state["steps"] == 3 and not (self.path.parent / "crashed").exists():
                (self.path.parent / "crashed").touch()
                os._exit(1)
            return self.state["steps"]

    actor = Durable.remote(tmp_path / "state.json")
    assert [ray.get(actor.step.remote()) for _ in range(2)] == [1, 2]
    assert ray.get(actor.step.remote()) == 4, "step 3 was written, then lost with its answer, and is run again"


def test_a_dead_actor_is_an_error_and_is_replaced() -> None:
    @ray.remote
    class Fragile:
        def work(self, ok: bool) -> str:
            if not ok:
                os._exit(1)
            return "done"

    actor = Fragile.remote()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.work.remote(False))
    actor = Fragile.remote()
    assert ray.get(actor.work.remote(True)) == "done"


def test_an_actor_that_leaves() -> None:
    @ray.remote(max_restarts=3)
    class Guest:
        def leave(self) -> None:
            submodule("actor").exit_actor()

        def stay(self) -> str:
            return "here"

    guest = Guest.remote()
    assert ray.get(guest.stay.remote()) == "here"
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(guest.leave.remote())
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(guest.stay.remote())


def test_an_actor_is_ready_when_its_constructor_has_run() -> None:
    assert ray.get(Counter.remote().__ray_ready__.remote()) is True


def test_inheritance() -> None:
    class Base:
        def greet(self) -> str:
            return f"I am {self.name()}"

        def name(self) -> str:
            return "nobody"

    @ray.remote
    class Child(Base):
        def name(self) -> str:
            return "the child"

    assert ray.get(Child.remote().greet.remote()) == "I am the child"

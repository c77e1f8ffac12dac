"""The scheduler without processes: seeded random events, every invariant checked after each."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from rlray.core.local import scheduler as plan
from rlray.core.resources import UNIT, Shape, shape

DRIVER = 1


def make(cpus: float = 4, gpus: int = 0, **custom: float) -> plan.Scheduler:
    return plan.Scheduler(shape({"CPU": cpus, "GPU": gpus, **custom}), [str(i) for i in range(gpus)], 2, max_idle=4)


def actor(name: str, request: Shape = (), restarts: int = 0, creator: int = DRIVER) -> plan.Actor:
    named = ("space", name) if name.startswith("named") else None
    return plan.Actor(name.encode(), creator, request, {}, named, False, restarts)


def only(kind: type, instructions: Iterable[plan.Instruction]) -> list[plan.Instruction]:
    return [one for one in instructions if isinstance(one, kind)]


def lease(scheduler: plan.Scheduler, request: Shape, client: int = DRIVER) -> int:
    """Ask for one worker, start it if need be; its number."""
    for instruction in scheduler.demand(client, request, 1):
        if isinstance(instruction, plan.StartWorker):
            (granted,) = only(plan.Grant, scheduler.started(instruction.worker))
            return granted.worker
        if isinstance(instruction, plan.Grant):
            return instruction.worker
    raise AssertionError("nothing was granted")


def test_grants_as_many_as_fit_and_the_rest_when_they_come_back() -> None:
    scheduler = make(cpus=2)
    one = shape({"CPU": 1})
    starts = only(plan.StartWorker, scheduler.demand(DRIVER, one, 5))
    assert len(starts) == 2
    first = only(plan.Grant, scheduler.started(starts[0].worker))[0].worker
    again = scheduler.returned(DRIVER, first)
    assert [type(one) for one in again] == [plan.Grant], "the returned worker is used again, no new one is forked"
    scheduler.validate()


def test_a_worker_that_waits_lends_its_cpu() -> None:
    scheduler = make(cpus=1)
    one = shape({"CPU": 1})
    worker = lease(scheduler, one)
    assert not only(plan.StartWorker, scheduler.demand(worker, one, 1))
    assert len(only(plan.StartWorker, scheduler.blocked(worker, True))) == 1
    scheduler.blocked(worker, False)
    scheduler.validate()
    assert scheduler.available()["CPU"] == 0, "overcommitted for a while, but never shown below zero"
    assert not only(plan.StartWorker, scheduler.demand(DRIVER, one, 1))


def test_a_worker_that_retires_frees_what_it_held_and_is_not_used_again() -> None:
    scheduler = make(cpus=1, gpus=1)
    request = shape({"CPU": 1, "GPU": 1})
    worker = lease(scheduler, request)
    assert not only(plan.StartWorker, scheduler.demand(DRIVER, request, 1))
    assert [type(one) for one in scheduler.retired(DRIVER, worker)] == [plan.StartWorker]
    scheduler.validate()
    assert not scheduler.retired(DRIVER, worker), "a second time it holds nothing"
    assert not scheduler.died(worker, b"")
    scheduler.validate()


def test_gpus_are_given_whole_or_shared_but_never_both() -> None:
    scheduler = make(cpus=8, gpus=2)
    half, whole = shape({"GPU": 0.5}), shape({"GPU": 1})
    seen = [one.gpus for _ in range(2) for one in only(plan.StartWorker, scheduler.demand(DRIVER, half, 1))]
    assert seen == [("0",), ("0",)], "fractions fill one GPU before they open another"
    assert [one.gpus for one in only(plan.StartWorker, scheduler.demand(DRIVER, whole, 2))] == [("1",)]
    scheduler.validate()


def test_a_worker_that_has_seen_a_gpu_is_not_used_again() -> None:
    scheduler = make(cpus=1, gpus=1)
    worker = lease(scheduler, shape({"GPU": 1}))
    assert only(plan.KillWorker, scheduler.returned(DRIVER, worker)) == [plan.KillWorker(worker)]
    scheduler.validate()


def test_prestarted_workers_are_used_before_new_ones_are_forked() -> None:
    scheduler = make(cpus=4)
    ready, late = (start.worker for start in scheduler.prestart(2))
    scheduler.started(ready)
    one = shape({"CPU": 1})
    assert scheduler.demand(DRIVER, one, 1) == [plan.Grant(DRIVER, one, ready)]
    assert not only(plan.StartWorker, scheduler.create_actor(actor("first"))), "the one under way is promised to it"
    assert scheduler.started(late) == [plan.Become(late, b"first")]
    scheduler.returned(DRIVER, ready)
    assert scheduler.create_actor(actor("second")) == [plan.Become(ready, b"second")]
    assert len(only(plan.StartWorker, scheduler.create_actor(actor("third")))) == 1
    scheduler.validate()


def test_clients_take_turns() -> None:
    scheduler = make(cpus=4)
    one = shape({"CPU": 1})
    blocker = [lease(scheduler, one) for _ in range(4)]
    scheduler.demand(DRIVER, one, 100)
    scheduler.demand(77, one, 100)
    granted = [only(plan.Grant, scheduler.returned(DRIVER, worker)) for worker in blocker]
    assert {grant.client for grants in granted for grant in grants} >= {DRIVER}
    assert len([1 for grants in granted for _ in grants]) == 4


def test_an_actor_is_restarted_as_often_as_allowed_and_watchers_are_told() -> None:
    scheduler = make()
    made = actor("fragile", restarts=1)
    instructions = scheduler.create_actor(made)
    for expected in ("restarting", "dead"):
        (start,) = only(plan.StartWorker, instructions)
        assert only(plan.Become, scheduler.started(start.worker)) == [plan.Become(start.worker, made.id)]
        assert only(plan.ActorChanged, scheduler.actor_ready(made.id))[0].state == "alive"
        instructions = scheduler.died(start.worker, b"cause")
        assert only(plan.ActorChanged, instructions)[0].state == expected
        scheduler.validate()
    assert scheduler.actors[made.id].cause == b"cause"


def test_names_are_taken_and_freed() -> None:
    scheduler = make()
    scheduler.create_actor(actor("named"))
    with pytest.raises(ValueError, match="already lives"):
        scheduler.create_actor(plan.Actor(b"other", DRIVER, (), {}, ("space", "named"), False, 0))
    scheduler.kill_actor(b"named", b"killed", no_restart=True)
    assert not scheduler.names


def test_an_actor_waits_for_its_arguments_and_dies_of_a_failed_one() -> None:
    scheduler = make()
    first, second = actor("first"), actor("second")
    first.waits = second.waits = True
    assert scheduler.create_actor(first) == scheduler.create_actor(second) == []
    assert only(plan.StartWorker, scheduler.actor_arguments(first.id, None))
    assert scheduler.actor_arguments(second.id, b"error")[0].state == "dead"


def test_what_a_dead_client_held_is_freed() -> None:
    scheduler = make(cpus=2)
    one = shape({"CPU": 1})
    caller = lease(scheduler, one)
    child = lease(scheduler, one, client=caller)
    scheduler.create_actor(actor("of_caller", creator=caller))
    instructions = [*scheduler.died(caller, b"x"), *scheduler.client_gone(caller, b"x")]
    assert plan.KillWorker(child) in instructions
    assert scheduler.actors[b"of_caller"].state == "dead"
    scheduler.died(child, b"x")
    scheduler.validate()
    assert scheduler.available()["CPU"] == 2 * UNIT


def test_workers_that_never_start_are_given_up() -> None:
    scheduler = make(cpus=1)
    instructions = scheduler.demand(DRIVER, shape({"CPU": 1}), 1)
    for _ in range(20):
        starts = only(plan.StartWorker, instructions)
        if not starts:
            break
        instructions = scheduler.died(starts[0].worker, b"x")
    assert only(plan.Refuse, instructions)
    scheduler.validate()


@pytest.mark.parametrize("seed", range(8))
def test_random_events_keep_every_invariant(seed: int) -> None:
    rng = random.Random(seed)
    scheduler = make(cpus=4, gpus=2, special=3)
    requests = [
        shape({"CPU": 1}), shape({"CPU": 0.5}), shape({"CPU": 2}), shape({"GPU": 0.5}), shape({"GPU": 1, "CPU": 1}),
        shape({"special": 1.5}), (),
    ]  # fmt: skip
    scheduler.prestart(rng.randrange(4))
    clients, made = [DRIVER], 0
    for _ in range(1500):
        workers = list(scheduler.workers.values())
        event = rng.choice(["demand", "demand", "start", "start", "return", "block", "die", "actor", "ready", "kill"])
        worker = rng.choice(workers) if workers else None
        if event == "demand":
            scheduler.demand(rng.choice(clients), rng.choice(requests), rng.randrange(4))
        elif event == "actor":
            made += 1
            name = f"{'named' if rng.random() < 0.3 else 'plain'}{made}"
            scheduler.create_actor(actor(name, rng.choice(requests), rng.choice([0, 1, -1]), rng.choice(clients)))
        elif event == "ready" and scheduler.actors:
            one = rng.choice(list(scheduler.actors.values()))
            if one.worker is not None and scheduler.workers[one.worker].state == "actor":
                scheduler.actor_ready(one.id)
        elif event == "kill" and scheduler.actors:
            scheduler.kill_actor(rng.choice(list(scheduler.actors)), b"killed", rng.random() < 0.5)
        elif worker is not None and event == "start":
            scheduler.started(worker.id)
            clients.append(worker.id)
        elif worker is not None and event == "return" and worker.lessee is not None:
            scheduler.returned(worker.lessee, worker.id)
        elif worker is not None and event == "block":
            scheduler.blocked(worker.id, rng.random() < 0.5)
        elif worker is not None and event == "die":
            scheduler.died(worker.id, b"died")
            scheduler.client_gone(worker.id, b"died")
            clients = [client for client in clients if client != worker.id]
        scheduler.validate()
    for worker in list(scheduler.workers):
        scheduler.client_gone(worker, b"end")
    scheduler.client_gone(DRIVER, b"end")
    while scheduler.workers:
        scheduler.died(next(iter(scheduler.workers)), b"end")
        scheduler.validate()
    assert scheduler.free == scheduler.total, "everything came back"

"""The scheduler without processes: seeded random events, every invariant checked after each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import pytest

from rlray.core.exceptions import RuntimeEnvSetupError, TaskPlacementGroupRemoved
from rlray.core.local import scheduler as plan
from rlray.core.local.invariants import check
from rlray.core.local.waiting import Waiting
from rlray.core.resources import PLAIN, UNIT, Request, shape

DRIVER = 1


def ask(amounts: Mapping[str, float], environment: str = "", group: bytes = b"", bundle: int = -1) -> Request:
    return Request(shape(amounts), environment, group, bundle)


def group(name: str, *bundles: Mapping[str, float]) -> plan.Group:
    named = ("space", name) if name.startswith("named") else None
    return plan.Group(name.encode(), tuple(map(shape, bundles)), "PACK", named)


def make(cpus: float = 4, gpus: int = 0, **custom: float) -> plan.Scheduler:
    return plan.Scheduler(shape({"CPU": cpus, "GPU": gpus, **custom}), [str(i) for i in range(gpus)], 2, max_idle=4)


def actor(name: str, request: Request = PLAIN, restarts: int = 0, creator: int = DRIVER) -> plan.Actor:
    named = ("space", name) if name.startswith("named") else None
    return plan.Actor(name.encode(), creator, request, {}, named, False, restarts)


def only(kind: type, instructions: Iterable[plan.Instruction]) -> list[plan.Instruction]:
    return [one for one in instructions if isinstance(one, kind)]


def lease(scheduler: plan.Scheduler, request: Request, client: int = DRIVER) -> int:
    """Ask for one worker, start it and set it up if need be; its number."""
    todo = [*scheduler.demand(client, request, 1)]
    while todo:
        match todo.pop(0):
            case plan.StartWorker(worker):
                todo += scheduler.started(worker)
            case plan.SetUp(worker):
                todo += scheduler.set_up(worker, None)
            case plan.Grant(_, _, worker):
                return worker
    raise AssertionError("nothing was granted")


def test_grants_as_many_as_fit_and_the_rest_when_they_come_back() -> None:
    scheduler = make(cpus=2)
    one = ask({"CPU": 1})
    starts = only(plan.StartWorker, scheduler.demand(DRIVER, one, 5))
    assert len(starts) == 2
    first = only(plan.Grant, scheduler.started(starts[0].worker))[0].worker
    again = scheduler.returned(DRIVER, first)
    assert [type(one) for one in again] == [plan.Grant], "the returned worker is used again, no new one is forked"
    check(scheduler)


def test_a_worker_that_waits_lends_its_cpu() -> None:
    scheduler = make(cpus=1)
    one = ask({"CPU": 1})
    worker = lease(scheduler, one)
    assert not only(plan.StartWorker, scheduler.demand(worker, one, 1))
    assert len(only(plan.StartWorker, scheduler.blocked(worker, True))) == 1
    scheduler.blocked(worker, False)
    check(scheduler)
    assert scheduler.available()["CPU"] == 0, "overcommitted for a while, but never shown below zero"
    assert not only(plan.StartWorker, scheduler.demand(DRIVER, one, 1))


def test_a_worker_that_retires_frees_what_it_held_and_is_not_used_again() -> None:
    scheduler = make(cpus=1, gpus=1)
    request = ask({"CPU": 1, "GPU": 1})
    worker = lease(scheduler, request)
    assert not only(plan.StartWorker, scheduler.demand(DRIVER, request, 1))
    assert [type(one) for one in scheduler.retired(DRIVER, worker)] == [plan.StartWorker]
    check(scheduler)
    assert not scheduler.retired(DRIVER, worker), "a second time it holds nothing"
    assert not scheduler.died(worker, b"")
    check(scheduler)


def test_gpus_are_given_whole_or_shared_but_never_both() -> None:
    scheduler = make(cpus=8, gpus=2)
    half, whole = ask({"GPU": 0.5}), ask({"GPU": 1})
    seen = [one.gpus for _ in range(2) for one in only(plan.StartWorker, scheduler.demand(DRIVER, half, 1))]
    assert seen == [("0",), ("0",)], "fractions fill one GPU before they open another"
    assert [one.gpus for one in only(plan.StartWorker, scheduler.demand(DRIVER, whole, 2))] == [("1",)]
    check(scheduler)


def test_a_worker_that_has_seen_a_gpu_is_not_used_again() -> None:
    scheduler = make(cpus=1, gpus=1)
    worker = lease(scheduler, ask({"GPU": 1}))
    assert only(plan.Dismiss, scheduler.returned(DRIVER, worker)) == [plan.Dismiss(worker)]
    check(scheduler)


def test_prestarted_workers_are_used_before_new_ones_are_forked() -> None:
    scheduler = make(cpus=4)
    ready, late = (start.worker for start in scheduler.prestart(2))
    scheduler.started(ready)
    one = ask({"CPU": 1})
    assert scheduler.demand(DRIVER, one, 1) == [plan.Grant(DRIVER, one, ready)]
    assert not only(plan.StartWorker, scheduler.create_actor(actor("first"))), "the one under way is promised to it"
    assert scheduler.started(late) == [plan.Become(late, b"first")]
    scheduler.returned(DRIVER, ready)
    assert scheduler.create_actor(actor("second")) == [plan.Become(ready, b"second")]
    assert len(only(plan.StartWorker, scheduler.create_actor(actor("third")))) == 1
    check(scheduler)


def test_clients_take_turns() -> None:
    scheduler = make(cpus=4)
    one = ask({"CPU": 1})
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
        check(scheduler)
    assert scheduler.actors[made.id].cause == b"cause"


def test_names_are_taken_and_freed() -> None:
    scheduler = make()
    scheduler.create_actor(actor("named"))
    with pytest.raises(ValueError, match="already lives"):
        scheduler.create_actor(plan.Actor(b"other", DRIVER, PLAIN, {}, ("space", "named"), False, 0))
    scheduler.kill_actor(b"named", b"killed", no_restart=True)
    assert not scheduler.names


def test_an_actor_waits_for_its_arguments_and_dies_of_a_failed_one() -> None:
    scheduler = make()
    first, second = actor("first"), actor("second")
    first.waits = second.waits = True
    assert scheduler.create_actor(first) == scheduler.create_actor(second) == []
    assert only(plan.StartWorker, scheduler.actor_arguments(first.id, None))
    assert scheduler.actor_arguments(second.id, b"error")[0].state == "dead"


def test_a_worker_that_is_needed_for_what_it_owns_becomes_no_actor() -> None:
    scheduler = make(cpus=1)
    one = ask({"CPU": 1})
    worker = lease(scheduler, one)
    scheduler.returned(DRIVER, worker)
    assert scheduler.create_actor(actor("picky", one)) == [plan.Become(worker, b"picky")]
    [start] = scheduler.declined(worker)
    check(scheduler)
    assert scheduler.started(start.worker) == [plan.Become(start.worker, b"picky")]
    scheduler.died(worker, b"x")
    assert scheduler.actors[b"picky"].state == "pending"
    check(scheduler)


def test_what_a_dead_client_held_is_freed() -> None:
    scheduler = make(cpus=2)
    one = ask({"CPU": 1})
    caller = lease(scheduler, one)
    child = lease(scheduler, one, client=caller)
    scheduler.create_actor(actor("of_caller", creator=caller))
    instructions = [*scheduler.died(caller, b"x"), *scheduler.client_gone(caller, b"x")]
    assert plan.Orphan(child, caller) in instructions
    assert scheduler.actors[b"of_caller"].state == "dead"
    assert scheduler.available()["CPU"] == UNIT, "it still runs"
    scheduler.rested(child)
    check(scheduler)
    assert scheduler.available()["CPU"] == 2 * UNIT
    scheduler.died(child, b"x")
    check(scheduler)
    assert scheduler.available()["CPU"] == 2 * UNIT


def test_workers_that_never_start_are_given_up() -> None:
    scheduler = make(cpus=1)
    instructions = scheduler.demand(DRIVER, ask({"CPU": 1}), 1)
    tries = 0
    while starts := only(plan.StartWorker, instructions):
        tries += 1
        instructions = scheduler.died(starts[0].worker, b"x", "worker process 7 was killed by SIGSEGV")
    assert 5 <= tries <= 50
    [refused] = only(plan.Refuse, instructions)
    assert "worker process 7 was killed by SIGSEGV" in str(refused.error)
    check(scheduler)


# -- workers by environment ------------------------------------------------------------------------------------------


def test_a_worker_serves_one_environment() -> None:
    scheduler = make(cpus=1)
    plain, red, blue = ask({"CPU": 1}), ask({"CPU": 1}, "red"), ask({"CPU": 1}, "blue")
    workers = []
    for request in (red, blue, plain):
        workers.append(lease(scheduler, request))
        scheduler.returned(DRIVER, workers[-1])
        check(scheduler)
    assert len(set(workers)) == 3, "nobody else's environment"
    assert lease(scheduler, red) == workers[0], "but its own"
    assert [scheduler.workers[number].environment for number in workers] == ["red", "blue", ""]


def test_a_worker_that_has_not_run_anything_is_set_up_with_any_environment() -> None:
    scheduler = make(cpus=2)
    first, second = (start.worker for start in scheduler.prestart(2))
    scheduler.started(first)
    red = ask({"CPU": 1}, "red")
    assert scheduler.demand(DRIVER, red, 2) == [plan.SetUp(first, "red")]
    assert scheduler.started(second) == [plan.SetUp(second, "red")], "the one under way was promised too"
    assert scheduler.set_up(first, None) == [plan.Grant(DRIVER, red, first)]
    assert scheduler.set_up(second, None) == [plan.Grant(DRIVER, red, second)]
    check(scheduler)


def test_an_environment_that_cannot_be_set_up_fails_what_waits_for_it() -> None:
    scheduler = make(cpus=1)
    red = ask({"CPU": 1}, "red")
    (start,) = only(plan.StartWorker, scheduler.demand(DRIVER, red, 5))
    scheduler.started(start.worker)
    kill, refuse = scheduler.set_up(start.worker, "no such directory")
    assert kill == plan.KillWorker(start.worker)
    assert isinstance(refuse, plan.Refuse)
    assert isinstance(refuse.error, RuntimeEnvSetupError)
    assert scheduler.died(start.worker, b"x") == [], "nothing is tried again"
    check(scheduler)
    (start,) = only(plan.StartWorker, scheduler.create_actor(actor("red", red)))
    scheduler.started(start.worker)
    changed = only(plan.ActorChanged, scheduler.set_up(start.worker, "no such directory"))
    assert [one.state for one in changed] == ["dead"]


def test_the_worker_that_was_idle_the_longest_makes_room() -> None:
    scheduler = make(cpus=8)
    held = [lease(scheduler, ask({"CPU": 1}, f"environment {i}")) for i in range(6)]
    dismissed = [only(plan.Dismiss, scheduler.returned(DRIVER, worker)) for worker in held]
    assert dismissed == [[], [], [], [], [plan.Dismiss(held[0])], [plan.Dismiss(held[1])]]
    check(scheduler)


# -- placement groups ------------------------------------------------------------------------------------------------


def test_a_group_takes_its_bundles_and_gives_them_back() -> None:
    scheduler = make(cpus=4, special=1)
    made = scheduler.create_group(group("pair", {"CPU": 1}, {"CPU": 2, "special": 1}), DRIVER, False)
    assert made == [plan.GroupChanged(DRIVER, b"pair", "created")]
    check(scheduler)
    assert scheduler.available() == {"CPU": 1 * UNIT, "special": 0}
    assert scheduler.remove_group(DRIVER, b"pair", b"x") == [], "who removes it knows"
    check(scheduler)
    assert scheduler.available() == {"CPU": 4 * UNIT, "special": UNIT}
    assert scheduler.groups[b"pair"].state == "removed"
    assert scheduler.remove_group(DRIVER, b"pair", b"x") == []


def test_bundles_are_placed_together_or_not_at_all() -> None:
    scheduler = make(cpus=2)
    worker = lease(scheduler, ask({"CPU": 1}))
    made = scheduler.create_group(group("pair", {"CPU": 1}, {"CPU": 1}), DRIVER, False)
    assert made == [plan.Reclaim(DRIVER)]
    check(scheduler)
    assert scheduler.available()["CPU"] == UNIT
    assert plan.GroupChanged(DRIVER, b"pair", "created") in scheduler.returned(DRIVER, worker)
    check(scheduler)


def test_waiting_groups_are_placed_in_order_but_a_big_one_does_not_stop_small_ones() -> None:
    scheduler = make(cpus=2)
    scheduler.create_group(group("first", {"CPU": 1}), DRIVER, False)
    for name, cpus in (("big", 2), ("small", 1), ("big too", 2), ("small too", 1)):
        scheduler.create_group(group(name, {"CPU": cpus}), DRIVER, False)
    assert {name for name, one in scheduler.groups.items() if one.state == "created"} == {b"first", b"small"}
    scheduler.remove_group(DRIVER, b"first", b"x")
    seen = [one.group for one in only(plan.GroupChanged, scheduler.remove_group(DRIVER, b"small", b"x"))]
    assert seen == [], "one CPU went to the small one that waited: the big one still does not fit"
    seen = [one.group for one in only(plan.GroupChanged, scheduler.remove_group(DRIVER, b"small too", b"x"))]
    assert seen == [b"big"]
    seen = [one.group for one in only(plan.GroupChanged, scheduler.remove_group(DRIVER, b"big", b"x"))]
    assert seen == [b"big too"]
    check(scheduler)


def test_requests_of_a_group_take_from_its_bundles_only() -> None:
    scheduler = make(cpus=4)
    scheduler.create_group(group("pair", {"CPU": 1}, {"CPU": 2}), DRIVER, False)
    second = lease(scheduler, ask({"CPU": 1}, group=b"pair", bundle=1))
    anywhere = [lease(scheduler, ask({"CPU": 1}, group=b"pair")) for _ in range(2)]
    check(scheduler)
    assert not only(plan.StartWorker, scheduler.demand(DRIVER, ask({"CPU": 1}, group=b"pair"), 1))
    assert scheduler.available()["CPU"] == UNIT, "what is outside of the group stays free"
    assert scheduler.groups[b"pair"].workers == {second, *anywhere}
    assert only(plan.Grant, scheduler.returned(DRIVER, second))
    check(scheduler)


def test_a_bundle_that_is_named_is_the_only_one_that_will_do() -> None:
    scheduler = make(cpus=4)
    scheduler.create_group(group("pair", {"CPU": 1}, {"CPU": 1}), DRIVER, False)
    first, second = (ask({"CPU": 1}, group=b"pair", bundle=index) for index in (0, 1))
    lease(scheduler, first)
    assert not only(plan.StartWorker, scheduler.demand(DRIVER, first, 1))
    assert len(only(plan.StartWorker, scheduler.demand(DRIVER, second, 1))) == 1
    check(scheduler)


def test_a_task_that_waits_lends_its_cpu_inside_its_group() -> None:
    scheduler = make(cpus=1)
    scheduler.create_group(group("one", {"CPU": 1}), DRIVER, False)
    inside = ask({"CPU": 1}, group=b"one")
    worker = lease(scheduler, inside)
    scheduler.demand(worker, ask({"CPU": 1}), 1)
    scheduler.demand(worker, inside, 1)
    assert len(only(plan.StartWorker, scheduler.blocked(worker, True))) == 1, "not to what is outside"
    check(scheduler)
    scheduler.blocked(worker, False)
    scheduler.client_gone(worker, b"x")
    scheduler.remove_group(DRIVER, b"one", b"x")
    check(scheduler)
    assert scheduler.available()["CPU"] == 0, "until they have ended"
    assert scheduler.node.free["CPU"] == -UNIT


def test_gpus_of_a_group_are_those_that_were_set_aside() -> None:
    scheduler = make(cpus=4, gpus=2)
    scheduler.create_group(group("first", {"GPU": 1}), DRIVER, False)
    scheduler.create_group(group("second", {"GPU": 0.5, "CPU": 1}), DRIVER, False)
    seen = [
        only(plan.StartWorker, scheduler.demand(DRIVER, ask({"GPU": 0.5}, group=name), 2))
        for name in (b"first", b"second")
    ]
    assert [[one.gpus for one in starts] for starts in seen] == [[("0",), ("0",)], [("1",)]]
    check(scheduler)


def test_removing_a_group_ends_what_runs_in_it_and_refuses_what_waits() -> None:
    scheduler = make(cpus=4)
    scheduler.create_group(group("one", {"CPU": 2}), DRIVER, False)
    inside = ask({"CPU": 1}, group=b"one")
    worker = lease(scheduler, inside)
    (start,) = only(plan.StartWorker, scheduler.create_actor(actor("inside", inside, restarts=5)))
    scheduler.started(start.worker)
    scheduler.create_actor(actor("waiting", inside))
    scheduler.demand(DRIVER, inside, 3)
    outside = lease(scheduler, ask({"CPU": 1}))
    out = scheduler.remove_group(7, b"one", b"cause")
    check(scheduler)
    assert only(plan.GroupChanged, out) == [plan.GroupChanged(DRIVER, b"one", "removed")]
    assert set(only(plan.KillWorker, out)) == {plan.KillWorker(worker), plan.KillWorker(start.worker)}
    assert {one.actor for one in only(plan.ActorChanged, out) if one.state == "dead"} == {b"inside", b"waiting"}
    (refuse,) = only(plan.Refuse, out)
    assert (refuse.client, refuse.request) == (DRIVER, inside)
    assert isinstance(refuse.error, TaskPlacementGroupRemoved)
    assert scheduler.available()["CPU"] == 1 * UNIT, "what they hold is free when they have ended, not before"
    for ended in (worker, start.worker):
        assert not only(plan.StartWorker, scheduler.died(ended, b"x")), "the actor does not come back"
    check(scheduler)
    assert scheduler.available()["CPU"] == 3 * UNIT
    assert scheduler.workers[outside].state == "leased"
    assert only(plan.Refuse, scheduler.demand(DRIVER, inside, 1))
    assert only(plan.ActorChanged, scheduler.create_actor(actor("late", inside)))[0].state == "dead"


def test_groups_end_with_the_actor_that_made_them_but_not_with_a_task() -> None:
    scheduler = make(cpus=4)
    (start,) = only(plan.StartWorker, scheduler.create_actor(actor("maker", restarts=1)))
    scheduler.started(start.worker)
    scheduler.create_group(group("named of actor", {"CPU": 1}), start.worker, False)
    scheduler.create_group(group("detached", {"CPU": 1}), start.worker, True)
    task = lease(scheduler, ask({"CPU": 1}))
    scheduler.create_group(group("of task", {"CPU": 1}), task, False)
    with pytest.raises(ValueError, match="already exists"):
        scheduler.create_group(group("named of actor", {"CPU": 1}), DRIVER, False)
    for worker in (start.worker, task):
        scheduler.died(worker, b"x")
        scheduler.client_gone(worker, b"x")
        assert {one.state for one in scheduler.groups.values()} == {"created"}, "the actor comes back"
    scheduler.kill_actor(b"maker", b"x", no_restart=True)
    check(scheduler)
    states = {name: one.state for name, one in scheduler.groups.items()}
    assert states == {b"named of actor": "removed", b"detached": "created", b"of task": "created"}
    assert not scheduler.group_names


def test_a_group_that_a_dead_actor_has_asked_for_is_not_made() -> None:
    """Its last words are read after its end has been told."""
    scheduler = make(cpus=2)
    maker = actor("maker")
    scheduler.create_actor(maker)
    assert maker.worker is not None
    scheduler.started(maker.worker)
    scheduler.actor_ready(maker.id)
    process = maker.worker
    scheduler.create_group(group("before", {"CPU": 1}), process, False)
    assert scheduler.kill_actor(maker.id, b"cause", True)
    assert scheduler.create_group(group("named after", {"CPU": 1}), process, False) == []
    scheduler.create_group(group("detached", {"CPU": 1}), process, True)
    check(scheduler)
    scheduler.died(process, b"cause", "killed")
    assert [name for name, one in scheduler.groups.items() if one.state == "created"] == [b"detached"]
    assert not scheduler.group_names
    check(scheduler)


def test_dead_actors_and_removed_groups_are_forgotten_in_the_end() -> None:
    scheduler = make(cpus=1)
    for i in range(1_200):
        scheduler.create_actor(actor(f"actor {i}", ask({"CPU": 1})))
        scheduler.kill_actor(f"actor {i}".encode(), b"killed", no_restart=True)
        for worker in list(scheduler.workers):
            scheduler.died(worker.id, b"x")
        scheduler.create_group(group(f"group {i}", {"CPU": 1}), DRIVER, False)
        scheduler.remove_group(DRIVER, f"group {i}".encode(), b"x")
    assert (len(scheduler.actors), len(scheduler.groups)) == (1_000, 1_000)
    for name, cause in ((b"actor 0", None), (b"actor 1199", b"killed")):
        (told,) = only(plan.ActorChanged, scheduler.watch_actor(DRIVER, name))
        assert (told.state, told.cause) == ("dead", cause)
    assert scheduler.watch_group(DRIVER, b"group 0") == [plan.GroupChanged(DRIVER, b"group 0", "removed")]
    check(scheduler)


def test_what_waits_is_offered_first_come_first_and_a_kind_that_does_not_fit_once() -> None:
    waiting: Waiting[str] = Waiting()
    for i in range(1_000):
        waiting.add("big", b"big %d" % i)
    for number, kind in enumerate(("small", "odd", "small")):
        waiting.add(kind, f"{kind} {number}".encode())
    waiting.discard("big", b"big 0")
    offered: list[bytes] = []

    def place(item: bytes) -> bool:
        offered.append(item)
        return not item.startswith(b"big")

    waiting.serve(place)
    assert offered == [b"big 1", b"small 0", b"odd 1", b"small 2"]
    assert waiting.of_kinds(lambda kind: kind != "big") == []
    assert len(waiting.of_kinds(lambda kind: kind == "big")) == 999


@pytest.mark.parametrize("seed", range(8))
def test_random_events_keep_every_invariant(seed: int) -> None:
    rng = random.Random(seed)
    scheduler = make(cpus=4, gpus=2, special=3)
    amounts = [{"CPU": 1}, {"CPU": 0.5}, {"CPU": 2}, {"GPU": 0.5}, {"GPU": 1, "CPU": 1}, {"special": 1.5}, {}]
    scheduler.prestart(rng.randrange(4))
    clients, made = [DRIVER], 0
    events = [
        "demand",
        "demand",
        "start",
        "set up",
        "return",
        "block",
        "die",
        "actor",
        "ready",
        "kill",
        "group",
        "ungroup",
        "watch",
        "unwatch",
    ]

    def request() -> Request:
        inside = rng.choice([b"", *scheduler.groups]) if rng.random() < 0.5 else b""
        bundle = rng.randrange(-1, len(scheduler.groups[inside].bundles)) if inside else -1
        return ask(rng.choice(amounts), rng.choice(["", "", "red", "blue"]), inside, bundle)

    for _ in range(1500):
        event = rng.choice(events)
        workers = list(scheduler.workers)
        worker = rng.choice(workers) if workers else None
        if event == "demand":
            scheduler.demand(rng.choice(clients), request(), rng.randrange(4))
        elif event == "group":
            made += 1
            bundles = rng.choices([one for one in amounts if one], k=rng.randrange(1, 4))
            scheduler.create_group(group(f"group {made}", *bundles), rng.choice(clients), rng.random() < 0.2)
        elif event == "ungroup" and scheduler.groups:
            living = [name for name, one in scheduler.groups.items() if one.state != "removed"]
            scheduler.remove_group(rng.choice(clients), rng.choice([*living, b"unheard of"]), b"removed")
        elif event == "actor":
            made += 1
            name = f"{'named' if rng.random() < 0.3 else 'plain'}{made}"
            scheduler.create_actor(actor(name, request(), rng.choice([0, 1, -1]), rng.choice(clients)))
        elif event == "watch" and scheduler.actors:
            scheduler.watch_actor(rng.choice(clients), rng.choice(list(scheduler.actors)))
        elif event == "unwatch" and scheduler.actors:
            scheduler.unwatch_actor(rng.choice(clients), rng.choice(list(scheduler.actors)))
        elif event == "ready" and scheduler.actors:
            one = rng.choice(list(scheduler.actors.values()))
            home = scheduler.workers.get(one.worker)
            if home is not None and home.state == "actor":
                scheduler.actor_ready(one.id)
        elif event == "kill" and scheduler.actors:
            scheduler.kill_actor(rng.choice(list(scheduler.actors)), b"killed", rng.random() < 0.5)
        elif worker is not None and event == "start":
            scheduler.started(worker.id)
            clients.append(worker.id)
        elif worker is not None and event == "set_up":
            scheduler.set_up(worker.id, rng.choice([None, None, "broken"]))
        elif worker is not None and event == "return" and worker.lessee is not None:
            scheduler.returned(worker.lessee, worker.id)
        elif worker is not None and event == "block":
            scheduler.blocked(worker.id, rng.random() < 0.5)
        elif worker is not None and event == "die":
            scheduler.died(worker.id, b"died")
            scheduler.client_gone(worker.id, b"died")
            clients = [client for client in clients if client != worker.id]
        check(scheduler)
    for worker in list(scheduler.workers):
        scheduler.client_gone(worker.id, b"end")
    scheduler.client_gone(DRIVER, b"end")
    for name in list(scheduler.groups):
        scheduler.remove_group(DRIVER, name, b"end")
    while scheduler.workers:
        scheduler.died(next(iter(scheduler.workers)).id, b"end")
        check(scheduler)
    assert scheduler.node.free == scheduler.node.total, "everything came back"

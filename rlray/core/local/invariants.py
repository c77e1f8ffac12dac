"""What must hold of the scheduler's state after every event. Tests look; a run does not spend the time."""

from __future__ import annotations

from rlray.core.local.records import Actor, Group
from rlray.core.local.scheduler import Scheduler
from rlray.core.pools import Pool
from rlray.core.resources import UNIT


def check(scheduler: Scheduler) -> None:
    """Raise AssertionError unless all that is held adds up, and every table agrees with every other."""
    scheduler.workers.validate()
    created = [group for group in scheduler.groups.values() if group.state == "created"]
    used = {id(pool): dict.fromkeys(pool.total, 0) for pool in _pools(scheduler)}
    gpus = {id(pool): dict.fromkeys(scheduler.node.gpus, 0) for pool in _pools(scheduler)}
    for worker in scheduler.workers:
        if worker.pool is None:
            assert not worker.held
            assert not worker.gpus
            continue
        for name, parts in worker.held:
            used[id(worker.pool)][name] += 0 if worker.blocked and name == "CPU" else parts
        for name, parts in worker.gpus:
            gpus[id(worker.pool)][name] += parts
    for group in created:
        for bundle, pool in zip(group.bundles, group.pools, strict=True):
            assert {name: parts - used[id(pool)][name] for name, parts in bundle} == pool.free
            for name, parts in bundle:
                used[id(scheduler.node)][name] += parts
            for name in pool.gpus:
                gpus[id(scheduler.node)][name] += pool.gpus[name] + gpus[id(pool)][name]
    total = scheduler.node.total
    assert {name: total[name] - used[id(scheduler.node)][name] for name in total} == scheduler.node.free, "lost or made"
    assert {name: UNIT - taken for name, taken in gpus[id(scheduler.node)].items()} == scheduler.node.gpus
    assert all(left >= 0 for pool in _pools(scheduler) for left in pool.gpus.values())
    assert all(count > 0 for _, _, count in scheduler.demands())
    for actor in scheduler.actors.values():
        _check_actor(scheduler, actor)
    for client, theirs in scheduler.actors_of.items():
        for one in theirs:
            assert scheduler.actors[one].state != "dead"
            assert client == scheduler.actors[one].creator or client in scheduler.actors[one].watchers
    for group in scheduler.groups.values():
        _check_group(scheduler, group)


def _pools(scheduler: Scheduler) -> list[Pool]:
    return [scheduler.node, *(pool for group in scheduler.groups.values() for pool in group.pools)]


def _check_actor(scheduler: Scheduler, actor: Actor) -> None:
    if actor.state == "dead":
        assert not actor.watchers
        return
    assert actor.name is None or scheduler.names[actor.name] == actor.id
    for watcher in actor.watchers:
        assert actor.id in scheduler.actors_of[watcher]
    if actor.worker is not None:
        assert scheduler.workers[actor.worker].actor == actor.id


def _check_group(scheduler: Scheduler, group: Group) -> None:
    assert group.state != "removed" or not (group.pools or group.workers or group.watchers)
    maker = scheduler.living_actor(group.maker)
    assert (group.state != "removed" and maker is not None) == (maker is not None and group.id in maker.groups)
    assert group.name is None or group.state == "removed" or scheduler.group_names[group.name] == group.id
    for number in group.workers:
        request = scheduler.workers[number].request
        assert request is not None
        assert request.group == group.id

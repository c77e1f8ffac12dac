"""Placement groups: resources set aside together, and what runs with them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlray
from rlray.core.engine import current
from rlray.util import remove_placement_group
from rlray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
)
from rlray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from tests.support import run_driver, wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]
Make = Callable[..., PlacementGroup]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes groups that are removed after the test."""
    made = []

    def make(*bundles: dict[str, float], **options: Any) -> PlacementGroup:
        made.append(placement_group(list(bundles), **options))
        return made[-1]

    yield make
    for group in made:
        remove_placement_group(group)


def within(group: PlacementGroup | None, index: int = -1, capture: bool | None = None) -> dict[str, Any]:
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, index, capture)}  # type: ignore[arg-type]


def free(name: str = "CPU") -> float:
    return rlray.available_resources()[name]


@rlray.remote
def where() -> tuple[PlacementGroup | None, dict[str, float], str | None]:
    context = rlray.get_runtime_context()
    return get_current_placement_group(), context.get_assigned_resources(), context.get_placement_group_id()


@rlray.remote(num_cpus=0)
def child(**options: Any) -> Any:
    """Where a child with these options runs."""
    return rlray.get(where.options(num_cpus=0, **options).remote())[0]


@rlray.remote
class Member:
    def where(self) -> PlacementGroup | None:
        return get_current_placement_group()

    def child(self) -> Any:
        return rlray.get(child.remote())

    def pid(self) -> int:
        return os.getpid()

    def wait_for(self, group: PlacementGroup) -> bool:
        return group.wait(20)

    def make(self, **options: Any) -> PlacementGroup:
        group = placement_group([{"CPU": 1}], **options)
        assert group.wait(20)
        return group


# -- making and removing ---------------------------------------------------------------------------------------------


@pytest.mark.differs("ray", "what is free is known a moment later")
def test_a_group_takes_its_bundles_until_it_is_removed(make: Make) -> None:
    group = make({"CPU": 1}, {"CPU": 2, "special": 1.5})
    assert group.wait(20)
    assert (free("CPU"), free("special")) == (1.0, 0.5)
    remove_placement_group(group)
    assert (free("CPU"), free("special")) == (4.0, 2.0)
    remove_placement_group(group)
    assert (free("CPU"), free("special")) == (4.0, 2.0), "removing twice gives back once"


def test_the_function_is_found_where_ray_has_it() -> None:
    """Also after the module of the same name was imported."""
    code = """
import rlray
from rlray.util.placement_group import placement_group
print(rlray.util.placement_group is placement_group)
"""
    assert run_driver(code).strip() == "True"


def test_ready_gets_the_group_itself(make: Make) -> None:
    group = make({"CPU": 1})
    assert rlray.get(group.ready(), timeout=20) == group
    assert rlray.wait([group.ready()], timeout=20)[1] == []
    assert group.bundle_specs == [{"CPU": 1.0}]
    assert (group.bundle_count, group.is_empty) == (1, False)
    assert len({group, rlray.get(group.ready())}) == 1


def test_waiting_takes_no_worker(make: Make) -> None:
    """All CPUs are in the group itself, so that a task could not run."""
    group = make({"CPU": 4}, {"special": 2})
    assert group.wait(20)
    assert rlray.get(group.ready(), timeout=20) == group


@pytest.mark.processes
def test_a_group_waits_until_there_is_room_and_then_comes_in_turn(make: Make) -> None:
    first, second, third = (make({"CPU": 3}) for _ in range(3))
    assert first.wait(20)
    assert not second.wait(0.1)
    assert not second.wait(0)
    ready = second.ready()
    assert rlray.wait([ready, third.ready()], timeout=0.1)[0] == []
    remove_placement_group(first)
    assert rlray.get(ready, timeout=20) == second
    assert not third.wait(0)
    remove_placement_group(second)
    assert third.wait(20)


@pytest.mark.processes
def test_a_group_waits_for_running_tasks(make: Make) -> None:
    busy = [rlray.remote(lambda: time.sleep(0.5)).remote() for _ in range(4)]
    assert wait_until(lambda: free() == 0, 10)
    group = make({"CPU": 4})
    assert not group.wait(0)
    assert group.wait(20)
    rlray.get(busy)


@pytest.mark.processes
def test_a_removed_group_is_gone_for_everybody(make: Make) -> None:
    blocker, group = make({"CPU": 4}), make({"CPU": 4})
    waiting = group.ready()
    seen_elsewhere = rlray.remote(num_cpus=0)(lambda groups: groups[0].wait(20)).remote([group])
    time.sleep(0.2)
    remove_placement_group(group)
    for ref in (waiting, group.ready()):
        with pytest.raises(rlray.exceptions.TaskPlacementGroupRemoved):
            rlray.get(ref, timeout=20)
    with pytest.raises(ValueError, match="has been removed"):
        group.wait(20)
    with pytest.raises(ValueError, match="has been removed"):
        rlray.get(seen_elsewhere, timeout=20)
    assert blocker.wait(20)


def test_groups_travel_and_can_be_removed_by_others(make: Make) -> None:
    group = make({"CPU": 1})

    @rlray.remote
    def use(group: PlacementGroup) -> Any:
        assert group.wait(20)
        found = rlray.get(where.options(**within(group)).remote())[0]
        remove_placement_group(group)
        return found, group.bundle_specs

    assert rlray.get(use.remote(group), timeout=30) == (group, [{"CPU": 1.0}])
    assert wait_until(lambda: placement_group_table(group)["state"] == "REMOVED", 10)
    with pytest.raises(ValueError, match="has been removed"):
        group.wait(20)


def test_a_handle_may_arrive_before_the_node_has_heard_of_the_group() -> None:
    members = [Member.remote() for _ in range(2)]
    for _ in range(200):
        group = placement_group([{"CPU": 1}])
        assert rlray.get([member.wait_for.remote(group) for member in members], timeout=20) == [True, True]
        remove_placement_group(group)


@pytest.mark.differs("ray", "it looks into the local engine")
@pytest.mark.processes
def test_groups_that_came_and_went_leave_nothing_with_the_caller() -> None:
    engine: Any = current()
    before = len(engine.submitter._lanes)
    for _ in range(20):
        group = placement_group([{"CPU": 1}])
        assert rlray.get(where.options(**within(group)).remote(), timeout=20)[0] == group
        remove_placement_group(group)
    assert wait_until(lambda: len(engine.submitter._lanes) <= before, 10)
    assert not engine.groups._known


@pytest.mark.differs("ray", "it looks into the local engine")
@pytest.mark.processes
def test_a_task_that_waits_for_its_arguments_finds_its_group_again(make: Make) -> None:
    group = make({"CPU": 1})
    inside = where.options(**within(group))
    argument = rlray.remote(lambda: time.sleep(0.5)).remote()
    late = rlray.remote(lambda argument: get_current_placement_group()).options(**within(group)).remote(argument)
    assert rlray.get(inside.remote(), timeout=20)[0] == group
    engine: Any = current()
    assert wait_until(lambda: not any(request.group for request in engine.submitter._lanes), 10)
    assert rlray.get(late, timeout=20) == group


def test_map_in_a_group(make: Make) -> None:
    group = make({"CPU": 2})
    task = rlray.remote(lambda item: (item, get_current_placement_group()))
    assert rlray.get(list(task.options(**within(group)).map(range(20))), timeout=20) == [(i, group) for i in range(20)]

    @rlray.remote(num_cpus=0)
    def outer() -> Any:
        return rlray.get(list(task.options(num_cpus=1).map(range(3))))

    captured = outer.options(**within(group, capture=True)).remote()
    assert rlray.get(captured, timeout=20) == [(i, group) for i in range(3)]


def test_names(make: Make) -> None:
    group = make({"CPU": 1}, {"CPU": 2}, name="found")
    assert get_placement_group("found") == group
    assert get_placement_group("found").bundle_specs == [{"CPU": 1.0}, {"CPU": 2.0}]
    assert rlray.get(rlray.remote(lambda: get_placement_group("found")).remote(), timeout=20) == group
    with pytest.raises(rlray.exceptions.RaySystemError, match="'found' already exists"):
        make({"CPU": 1}, name="found")
    remove_placement_group(group)
    with pytest.raises(ValueError, match="found"):
        get_placement_group("found")
    make({"CPU": 1}, name="found")
    with pytest.raises(ValueError, match="name of a group"):
        get_placement_group("")


@pytest.mark.processes
def test_the_table_tells_how_groups_stand(make: Make) -> None:
    placed, waiting = make({"CPU": 4}, name="placed", strategy="SPREAD"), make({"CPU": 1}, {"special": 1})
    assert placed.wait(20)
    node = rlray.get_runtime_context().get_node_id()
    assert placement_group_table(placed) == {
        "placement_group_id": placed.id.hex(),
        "name": "placed",
        "bundles": {0: {"CPU": 4.0}},
        "bundles_to_node_id": {0: node},
        "strategy": "SPREAD",
        "state": "CREATED",
    }
    everything = placement_group_table()
    assert everything[placed.id.hex()] == placement_group_table(placed)
    assert everything[waiting.id.hex()]["state"] == "PENDING"
    assert everything[waiting.id.hex()]["bundles_to_node_id"] == {0: "", 1: ""}
    remove_placement_group(waiting)
    assert placement_group_table(waiting)["state"] == "REMOVED"


def test_the_empty_group_is_ready() -> None:
    empty = PlacementGroup.empty()
    assert empty.is_empty
    assert empty.wait(0)
    assert rlray.get(empty.ready(), timeout=20) == empty
    assert empty.bundle_specs == []


# -- what can never be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bundles", "options", "text"),
    [
        ([], {}, "must be a list"),
        ({"CPU": 1}, {}, "must be a list"),
        ([{}], {}, "ask for something"),
        ([{"CPU": 0}], {}, "ask for something"),
        ([{"CPU": "one"}], {}, "dict of amounts"),
        ([["CPU"]], {}, "dict of amounts"),
        ([{"CPU": -1}], {}, "must not be negative"),
        ([{"CPU": 1}], {"strategy": "TIGHT"}, "PACK, SPREAD, STRICT_PACK, STRICT_SPREAD, got 'TIGHT'"),
        ([{"CPU": 1}], {"lifetime": "long"}, "'detached', got 'long'"),
        ([{"CPU": 1}, {"CPU": 1}], {"strategy": "STRICT_SPREAD"}, "wants 2 nodes"),
        ([{"CPU": 5}], {}, r"\{CPU: 5\} can never be placed together.*CPU: 4"),
        ([{"CPU": 3}, {"CPU": 2}], {}, "can never be placed together"),
        ([{"unheard_of": 1}], {}, "unheard_of"),
        ([{"memory": 1e18}], {}, "memory"),
    ],
    ids=str,
)
def test_what_can_never_be_raises_at_once(bundles: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){text}"):
        placement_group(bundles, **options)
    assert free() == 4.0


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_every_strategy_packs_on_one_machine(strategy: str, make: Make) -> None:
    assert make({"CPU": 1}, {"CPU": 1}, strategy=strategy).wait(20)


def test_one_bundle_can_be_spread_strictly(make: Make) -> None:
    assert make({"CPU": 1}, strategy="STRICT_SPREAD").wait(20)


@pytest.mark.parametrize(
    ("options", "index", "text"),
    [
        ({"num_cpus": 3}, -1, r"CPU: 3.*fits no bundle.*\{CPU: 1\}, \{CPU: 2\}"),
        ({"num_cpus": 2}, 0, r"fits no bundle.*\{CPU: 1\}"),
        ({"resources": {"special": 1}}, -1, "fits no bundle"),
        ({}, 2, r"-1 \(any bundle\) or 0 to 1, got 2"),
        ({}, -2, "got -2"),
    ],
    ids=str,
)
def test_what_fits_no_bundle_raises_at_once(options: dict[str, Any], index: int, text: str, make: Make) -> None:
    group = make({"CPU": 1}, {"CPU": 2})
    with pytest.raises(ValueError, match=text):
        where.options(**options, **within(group, index)).remote()
    with pytest.raises(ValueError, match=text):
        Member.options(**{"num_cpus": 1, **options}, **within(group, index)).remote()


# -- running in a group ----------------------------------------------------------------------------------------------


def test_tasks_and_actors_run_in_their_group(make: Make) -> None:
    group = make({"CPU": 1}, {"CPU": 1, "special": 2})
    found, resources, group_id = rlray.get(where.options(**within(group)).remote(), timeout=20)
    assert (found, resources, group_id) == (group, {"CPU": 1.0}, group.id.hex())
    special = {"num_cpus": 0.5, "resources": {"special": 2}}
    assert rlray.get(where.options(**special, **within(group, 1)).remote(), timeout=20)[0] == group
    actor = Member.options(num_cpus=1, **within(group, 0)).remote()
    assert rlray.get(actor.where.remote(), timeout=20) == group
    assert rlray.get(where.remote(), timeout=20)[0] is None
    assert get_current_placement_group() is None


def test_the_older_spelling(make: Make) -> None:
    group = make({"CPU": 1}, {"CPU": 1})
    old = {"placement_group": group, "placement_group_bundle_index": 1}
    assert rlray.get(where.options(**old).remote(), timeout=20)[0] == group
    assert rlray.get(where.options(placement_group=None).remote(), timeout=20)[0] is None
    with pytest.raises(ValueError, match="two spellings"):
        where.options(scheduling_strategy="SPREAD", placement_group=group)
    with pytest.raises(ValueError, match="no placement_group is given"):
        where.options(placement_group_bundle_index=1)


@pytest.mark.differs("ray", "how many run at once depends on how fast Ray starts workers")
@pytest.mark.processes
def test_a_task_waits_for_its_group_and_for_room_in_it(tmp_path: Path, make: Make) -> None:
    blocker, group = make({"CPU": 4}), make({"CPU": 2})

    @rlray.remote
    def enter(name: str) -> int:
        (tmp_path / name).touch()
        time.sleep(0.2)
        inside = len(list(tmp_path.iterdir()))
        (tmp_path / name).unlink()
        return inside

    refs = [enter.options(**within(group)).remote(str(i)) for i in range(5)]
    assert rlray.wait(refs, timeout=0.2)[0] == []
    remove_placement_group(blocker)
    assert max(rlray.get(refs, timeout=60)) == 2, "two of the four CPUs are free, but not to them"


def test_children_go_into_the_group_only_if_told(make: Make) -> None:
    group, other = make({"CPU": 1}), make({"CPU": 1})
    assert rlray.get(child.options(**within(group)).remote(), timeout=20) is None
    captured = child.options(**within(group, capture=True))
    assert rlray.get(captured.remote(), timeout=20) == group
    assert rlray.get(captured.remote(scheduling_strategy="DEFAULT"), timeout=20) is None
    assert rlray.get(captured.remote(placement_group=None), timeout=20) is None
    assert rlray.get(captured.remote(**within(other)), timeout=20) == other
    assert rlray.get(captured.remote(**within(None)), timeout=20) is None
    actor = Member.options(**within(group, capture=True)).remote()
    assert rlray.get(actor.child.remote(), timeout=20) == group, "also a child's child"
    with pytest.raises(ValueError, match="fits no bundle"):
        rlray.get(captured.remote(resources={"special": 1}), timeout=20)


def test_what_runs_again_does_so_in_the_same_group(tmp_path: Path, make: Make) -> None:
    group = make({"CPU": 1})

    @rlray.remote(num_cpus=0, retry_exceptions=True, max_retries=3)
    def flaky(name: str) -> PlacementGroup | None:
        mark = tmp_path / name
        if not mark.exists():
            mark.touch()
            raise RuntimeError("the first time")
        return get_current_placement_group()

    @rlray.remote(num_cpus=0)
    def outer() -> Any:
        refs = [flaky.remote("single"), *flaky.map(["mapped"])]
        time.sleep(1.0)  # not in `get`: what runs again is sent from beside this task
        return rlray.get(refs)

    assert rlray.get(outer.options(**within(group, capture=True)).remote(), timeout=20) == [group, group]


def test_the_context_says_whether_children_are_captured(make: Make) -> None:
    group = make({"CPU": 1})
    ask = rlray.remote(lambda: rlray.get_runtime_context().should_capture_child_tasks_in_placement_group)
    asked = [ask.options(**within(group, capture=capture)).remote() for capture in (True, False, None)]
    assert rlray.get(asked, timeout=20) == [True, False, False]


# -- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.differs("ray", "a task that is run again after its group was removed waits for ever")
@pytest.mark.processes
def test_removing_a_group_ends_what_runs_in_it(tmp_path: Path, make: Make) -> None:
    group = make({"CPU": 3})

    @rlray.remote
    def sleep(name: str) -> None:
        (tmp_path / name).touch()
        time.sleep(600)

    running = sleep.options(max_retries=0, **within(group)).remote("running")
    retried = sleep.options(max_retries=3, **within(group)).remote("retried")
    alive = Member.options(num_cpus=1, max_restarts=-1, **within(group)).remote()
    rlray.get(alive.pid.remote(), timeout=20)
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 20)
    waiting = where.options(**within(group)).remote()
    homeless = Member.options(num_cpus=1, **within(group)).remote()
    call = homeless.pid.remote()
    remove_placement_group(group)
    assert wait_until(lambda: free() == 4.0, 10), "until then the actor may still answer"
    for ref, error in (
        (running, rlray.exceptions.WorkerCrashedError),
        (retried, rlray.exceptions.TaskPlacementGroupRemoved),
        (waiting, rlray.exceptions.TaskPlacementGroupRemoved),
        (alive.pid.remote(), rlray.exceptions.ActorDiedError),
        (call, rlray.exceptions.ActorUnschedulableError),
        (where.options(**within(group)).remote(), rlray.exceptions.TaskPlacementGroupRemoved),
        (Member.options(**within(group)).remote().pid.remote(), rlray.exceptions.ActorPlacementGroupRemoved),
    ):
        with pytest.raises(error):
            rlray.get(ref, timeout=30)


@pytest.mark.differs("ray", "Ray keeps them until the program has ended too")
def test_groups_end_with_the_actor_that_made_them(make: Make) -> None:
    maker = Member.remote()
    mine, lasting = rlray.get([maker.make.remote(name="mine"), maker.make.remote(lifetime="detached")], timeout=20)
    assert get_placement_group("mine") == mine
    assert free() == 2.0
    rlray.kill(maker)
    assert wait_until(lambda: placement_group_table(mine)["state"] == "REMOVED", 20)
    assert placement_group_table(lasting)["state"] == "CREATED"
    remove_placement_group(lasting)


@pytest.mark.processes
def test_groups_that_a_task_made_stay() -> None:
    @rlray.remote(max_retries=0)
    def make_one(name: str, end: bool) -> PlacementGroup:
        group = placement_group([{"CPU": 1}], name=name)
        assert group.wait(20)
        if end:
            os._exit(1)
        return group

    assert rlray.get(make_one.remote("first", False), timeout=20).wait(20)
    with pytest.raises(rlray.exceptions.WorkerCrashedError):
        rlray.get(make_one.remote("second", True), timeout=20)
    for name in ("first", "second"):
        assert placement_group_table(get_placement_group(name))["state"] == "CREATED"
        remove_placement_group(get_placement_group(name))


def test_a_blocked_task_in_a_group_lends_its_cpu_to_the_group(make: Make) -> None:
    group = make({"CPU": 1})

    @rlray.remote
    def outer() -> Any:
        return rlray.get(where.remote())[0]

    assert rlray.get(outer.options(**within(group, capture=True)).remote(), timeout=30) == group


# -- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.differs("ray", "Ray wants ids of nodes to be as long as its own")
def test_affinity_to_this_node_and_to_another() -> None:
    here, elsewhere = rlray.get_runtime_context().get_node_id(), "ab" * 16
    for strategy in (NodeAffinitySchedulingStrategy(here, False), NodeAffinitySchedulingStrategy(elsewhere, True)):
        assert rlray.get(where.options(scheduling_strategy=strategy).remote(), timeout=20)[0] is None
    hard = NodeAffinitySchedulingStrategy(elsewhere, soft=False)
    with pytest.raises(rlray.exceptions.TaskUnschedulableError, match=f"{elsewhere}.*{here}.*soft"):
        where.options(scheduling_strategy=hard).remote()
    with pytest.raises(rlray.exceptions.ActorUnschedulableError, match=elsewhere):
        Member.options(scheduling_strategy=hard).remote()
    with pytest.raises(ValueError, match=r"hexadecimal.*'zz'"):
        NodeAffinitySchedulingStrategy("zz", False)


def test_strategies_without_meaning_on_one_machine() -> None:
    for strategy in ("DEFAULT", "SPREAD", None):
        assert rlray.get(where.options(scheduling_strategy=strategy).remote(), timeout=20)[0] is None
    with pytest.raises(ValueError, match="'DEFAULT' or 'SPREAD'"):
        where.options(scheduling_strategy="RANDOM")
    with pytest.raises(TypeError, match="PlacementGroupSchedulingStrategy"):
        where.options(scheduling_strategy=3)
    with pytest.raises(ValueError, match="no labels"):
        NodeLabelSchedulingStrategy({"zone": "a"})

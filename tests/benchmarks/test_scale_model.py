"""The scaling model beside closed forms: queues, shared cores, shared links, and what limits the loop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return


def setting(**changes: Any) -> Any:
    """A node with 64 cores and four simulators; everything takes no time but what a test says."""
    import scale_setting as of

    parts: dict[str, Any] = {
        "nodes": (of.Node(64),),
        "simulators": of.Simulators((0,) * changes.pop("count", 4), 10, changes.pop("play", of.Cost(0.1)), 0.0),
        "learner": of.Learner(10, 1, of.Cost(), changes.pop("update", of.Cost(0.01)), of.Cost(), of.Cost(), 0.0),
        "driver": of.Driver(0.0, 0.0, 0.0),
        "hop": 0.0,
        "latency": 0.0,
    }
    return of.Setting(**{**parts, **changes})


def test_a_worker_is_an_m_d_1_queue() -> None:
    """Mean wait of the Pollaczek-Khinchine formula: rho s / (2 (1 - rho))."""
    from scale_events import Clock, Worker

    clock, chance, service, rho = Clock(), random.Random(1), 1.0, 0.8
    worker, waits = Worker(clock), []

    def arrive() -> None:
        asked = clock.now

        def work(done: Any) -> None:
            waits.append(clock.now - asked)
            clock.after(service, done)

        worker.call(work)
        clock.after(chance.expovariate(rho / service), arrive)

    clock.after(0.0, arrive)
    clock.run(lambda: len(waits) >= 60_000)
    assert sum(waits) / len(waits) == pytest.approx(rho * service / (2 * (1 - rho)), rel=0.05)
    assert worker.busy.mean() == pytest.approx(rho, rel=0.01)


def test_calls_wait_for_their_turn_and_for_what_they_need() -> None:
    from scale_events import Clock, Worker

    clock, ends = Clock(), []
    worker = Worker(clock)

    def work(name: str) -> Any:
        def run(done: Any) -> None:
            clock.after(1.0, lambda: (ends.append((name, clock.now)), done()))

        return run

    arrived = worker.call(work("first"), ready=False)
    worker.call(work("second"))
    clock.after(5.0, arrived)
    clock.run(lambda: len(ends) == 2)
    assert ends == [("first", 6.0), ("second", 7.0)], "the second was ready all the time, and kept its place"


@pytest.mark.parametrize(("others", "expected"), [(0.0, 1.5), (1.0, 2.0)])
def test_jobs_share_cores(others: float, expected: float) -> None:
    """Two cores, three jobs of one second: 2/3 of a core each until the end. A fourth program takes its share."""
    from scale_events import Clock, Cores

    clock, ends = Clock(), []
    cores = Cores(clock, 2, others)
    for _ in range(3):
        cores.run(1.0, lambda: ends.append(clock.now))
    clock.run(lambda: len(ends) == 3)
    assert ends == pytest.approx([expected] * 3)


def test_a_job_has_one_core_at_most() -> None:
    from scale_events import Clock, Cores

    clock, ends = Clock(), []
    cores = Cores(clock, 2)
    cores.run(1.0, lambda: ends.append(("short", clock.now)))
    cores.run(3.0, lambda: ends.append(("long", clock.now)))
    clock.run(lambda: len(ends) == 2)
    assert ends == [("short", 1.0), ("long", 3.0)]
    assert cores.busy.mean() == pytest.approx(4 / 6)


def test_two_flows_on_one_link_share_it() -> None:
    """100 bytes/s: from two nodes into one, 100 and 300 bytes; the second has all of it once the first has ended."""
    from scale_events import Clock, Network

    clock, ends = Clock(), []
    network = Network(clock, [100.0, 100.0, 100.0], latency=0.5)
    network.copy(1, 0, 100.0, lambda: ends.append(("small", clock.now)))
    network.copy(2, 0, 300.0, lambda: ends.append(("large", clock.now)))
    clock.run(lambda: len(ends) == 2)
    assert [name for name, _ in ends] == ["small", "large"]
    assert [when for _, when in ends] == pytest.approx([2.5, 4.5])
    assert network.bytes == 400.0
    assert network.receives[0].busy.mean() == pytest.approx(4.0 / 4.5)


def test_both_ways_of_a_card_are_apart_and_a_node_needs_no_network() -> None:
    from scale_events import Clock, Network

    clock, ends = Clock(), []
    network = Network(clock, [100.0, 100.0], latency=0.0)
    network.copy(0, 1, 100.0, lambda: ends.append(clock.now))
    network.copy(1, 0, 100.0, lambda: ends.append(clock.now))
    network.copy(1, 1, 1e12, lambda: ends.append(clock.now))
    clock.run(lambda: len(ends) == 3)
    assert ends == pytest.approx([0.0, 1.0, 1.0])


def test_more_flows_than_places_wait_in_order() -> None:
    from scale_events import Clock, Network

    clock, ends = Clock(), []
    network = Network(clock, [100.0] * 4, latency=0.0, places=1)
    for source in (1, 2, 3):
        network.copy(source, 0, 100.0, lambda source=source: ends.append((source, clock.now)))
    clock.run(lambda: len(ends) == 3)
    assert ends == [(1, pytest.approx(1.0)), (2, pytest.approx(2.0)), (3, pytest.approx(3.0))]


def test_nothing_left_to_happen_is_an_error() -> None:
    from scale_events import Clock

    with pytest.raises(RuntimeError, match="nothing more happens"):
        Clock().run(lambda: False)


@pytest.mark.parametrize(
    ("play", "update", "rate", "saturated"),
    [(0.1, 0.01, 40, "simulators"), (0.1, 0.05, 20, "learner"), (0.001, 0.001, 1000, "learner")],
)
def test_the_slower_stage_sets_the_pace(play: float, update: float, rate: float, saturated: str) -> None:
    from scale_loop import Loop
    from scale_setting import Cost

    outcome = Loop(setting(play=Cost(play), update=Cost(update))).run(400, 100)
    assert outcome.fragments_per_second == pytest.approx(rate, rel=0.02)
    assert outcome.steps_per_second == pytest.approx(10 * rate, rel=0.02)
    assert outcome.saturated == saturated
    assert outcome.learner_busy == pytest.approx(min(1.0, rate * update), rel=0.02)


def test_a_driver_that_is_slow_sets_the_pace() -> None:
    """Each fragment is two events; with both in a pass of their own, or both in one, that is 2 to 4 ms."""
    from scale_loop import Loop
    from scale_setting import Cost, Driver

    slow = setting(play=Cost(1e-4), update=Cost(1e-4), driver=Driver(base=1e-3, per_event=1e-3, per_ref=0.0))
    outcome = Loop(slow).run(400, 100)
    assert outcome.saturated == "driver"
    assert 1 / 4e-3 <= outcome.fragments_per_second <= 1 / 2e-3


def test_cores_are_shared_by_simulators_and_learner() -> None:
    """Work of 0.11 s a fragment on two cores: 2 / 0.11 fragments a second; asleep it would not be shared."""
    from scale_loop import Loop
    from scale_setting import Cost, Node

    crowded = Loop(setting(nodes=(Node(2),))).run(400, 100)
    assert crowded.fragments_per_second == pytest.approx(2 / 0.11, rel=0.02)
    asleep = Loop(setting(nodes=(Node(2),), play=Cost(0, 0.1), update=Cost(0, 0.01))).run(400, 100)
    assert asleep.fragments_per_second == pytest.approx(40, rel=0.02)


def test_lag_is_what_is_on_its_way() -> None:
    """One update a fragment, the learner saturated: four are played or waiting, one is learned from (`spare`)."""
    from scale_loop import Loop
    from scale_setting import Cost

    outcome = Loop(setting(play=Cost(0.001), update=Cost(0.1))).run(400, 100)
    assert outcome.policy_lag == pytest.approx(4, abs=0.5)
    more = Loop(setting(play=Cost(0.001), update=Cost(0.1), spare=5)).run(400, 100)
    assert more.policy_lag == pytest.approx(8, abs=0.5)


def test_sync_takes_turns_without_lag_within_a_round() -> None:
    """Four play at once, then the learner takes the four: 0.1 + 4 x 0.01 s, and weights are at most 3 updates old."""
    from scale_loop import Loop

    outcome = Loop(setting(sync=True)).run(400, 100)
    assert outcome.fragments_per_second == pytest.approx(4 / 0.14, rel=0.02)
    assert outcome.policy_lag == pytest.approx(1.5)
    assert outcome.weights_per_second == pytest.approx(1 / 0.14, rel=0.02)


def test_the_network_of_the_learner_saturates() -> None:
    """Fragments of 1 MB into a card of 10 MB/s: ten a second, however many nodes play."""
    from scale_loop import Loop
    from scale_setting import Cost, Node, Simulators

    nodes = (Node(4, 1e7), *[Node(4, 1e9)] * 5)
    far = setting(nodes=nodes, simulators=Simulators((1, 2, 3, 4, 5), 10, Cost(0.1), 1e6))
    outcome = Loop(far).run(200, 50)
    assert outcome.fragments_per_second == pytest.approx(10, rel=0.02)
    assert outcome.saturated == "learner's network, in"
    assert outcome.bytes_per_second == pytest.approx(1e7, rel=0.05)


def test_weights_travel_once_to_a_node() -> None:
    """Eight simulators on two nodes, round by round: each version is sent twice, and not eight times."""
    import dataclasses

    from scale_loop import Loop
    from scale_setting import Cost, Node, Simulators

    far = setting(
        nodes=(Node(64), Node(64), Node(64)), simulators=Simulators((1, 2) * 4, 10, Cost(0.1), 0.0), sync=True
    )
    far = dataclasses.replace(far, learner=dataclasses.replace(far.learner, weights_bytes=1e6))
    outcome = Loop(far).run(400, 80)
    assert outcome.bytes_per_second / outcome.weights_per_second == pytest.approx(2e6, rel=0.02)


@pytest.mark.parametrize(("add", "rate"), [(0.001, 1 / 0.04), (0.2, 1 / (0.2 + 4 * 0.001))])
def test_a_replay_of_its_own(add: float, rate: float) -> None:
    """Four updates of 10 ms for each fragment; or a replay that takes 0.2 s to put one in, and 1 ms for each update."""
    import dataclasses

    from scale_loop import Loop
    from scale_setting import Cost, Replay

    of = setting(play=Cost(0.01))
    replay = Replay(Cost(add), Cost(0.0005), Cost(0.0005), most=2)
    learner = dataclasses.replace(of.learner, updates_per_round=4, replay=replay)
    outcome = Loop(dataclasses.replace(of, learner=learner)).run(200, 50)
    assert outcome.fragments_per_second == pytest.approx(rate, rel=0.05)
    assert outcome.updates_per_second == pytest.approx(4 * rate, rel=0.05)
    assert outcome.saturated == ("learner" if add < 0.1 else "replay")


def test_updates_follow_the_steps() -> None:
    """A round is three fragments and a half: two rounds in seven fragments, with five updates each."""
    import dataclasses

    from scale_loop import Loop

    of = setting()
    learner = dataclasses.replace(of.learner, steps_per_round=35, updates_per_round=5)
    outcome = Loop(dataclasses.replace(of, learner=learner)).run(700, 70)
    assert outcome.updates_per_second / outcome.fragments_per_second == pytest.approx(10 / 7, rel=0.02)
    assert outcome.weights_per_second / outcome.fragments_per_second == pytest.approx(2 / 7, rel=0.02)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    import dataclasses

    from scale_loop import Loop

    of = setting()
    of = dataclasses.replace(of, simulators=dataclasses.replace(of.simulators, spread=0.3))
    first, again, other = (Loop(of, seed).run(300, 50) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.fragments_per_second == pytest.approx(40, rel=0.05)


def test_durations_have_the_mean_and_the_spread_asked_for() -> None:
    from scale_events import around

    chance = random.Random(1)
    drawn = [around(2.0, 0.5, chance) for _ in range(20_000)]
    mean = sum(drawn) / len(drawn)
    assert mean == pytest.approx(2.0, rel=0.02)
    assert (sum((one - mean) ** 2 for one in drawn) / len(drawn)) ** 0.5 == pytest.approx(1.0, rel=0.03)
    assert around(2.0, 0.0, chance) == 2.0


def test_a_replay_without_a_ratio_lets_the_learner_do_what_it_can() -> None:
    """Updates of 10 ms one after the other, however slowly the four play; fragments count once they are in."""
    import dataclasses

    from scale_loop import Loop
    from scale_setting import Cost, Replay

    of = setting(play=Cost(0.5))
    learner = dataclasses.replace(of.learner, steps_per_round=None, replay=Replay(*[Cost(0.0005)] * 3, most=2))
    outcome = Loop(dataclasses.replace(of, learner=learner)).run(80, 20)
    assert outcome.updates_per_second == pytest.approx(100, rel=0.02)
    assert outcome.fragments_per_second == pytest.approx(8, rel=0.02)
    assert outcome.policy_lag == pytest.approx(37.5, abs=3), "50 updates; of each four, one is told of all of them"


def test_weights_may_go_out_less_often() -> None:
    import dataclasses

    from scale_loop import Loop

    of = setting()
    seldom = Loop(dataclasses.replace(of, learner=dataclasses.replace(of.learner, publish_after=8))).run(400, 80)
    assert seldom.updates_per_second == pytest.approx(40, rel=0.02)
    assert seldom.weights_per_second == pytest.approx(5, rel=0.05)
    assert seldom.policy_lag > Loop(of).run(400, 80).policy_lag + 2


def test_a_pass_finds_one_report_or_all() -> None:
    """Passes of 10 ms with 50 simulators at hand: one fragment each, or as many as have come."""
    import dataclasses

    from scale_loop import Loop
    from scale_setting import Cost, Driver

    slow = setting(count=50, play=Cost(0.001), update=Cost(0.0001), driver=Driver(0.01, 0.0, 0.0))
    one = Loop(slow).run(400, 100)
    assert one.fragments_per_second == pytest.approx(100, rel=0.05)
    every = Loop(dataclasses.replace(slow, all_reports=True)).run(4000, 1000)
    assert every.fragments_per_second > 1000

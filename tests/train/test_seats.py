"""Who looks for room, since when, and what is said of it when: with a clock of our own, and no cluster."""

from __future__ import annotations

from typing import Any

from rlray.config.schema import LearnerConfig, SimulatorsConfig
from rlray.train.plan import make_plan
from rlray.train.seats import NOTICE_SECONDS, Seekers


def test_each_is_named_once_when_it_is_clear_who_finds_none() -> None:
    now = [0.0]
    seekers = Seekers(lambda: now[0])
    refs: list[Any] = [object() for _ in range(4)]
    assert not seekers.hopeful
    seekers.add(5, refs[0])
    now[0] = NOTICE_SECONDS - 1
    seekers.add(2, refs[1])
    assert (seekers.hopeful, seekers.late()) == (True, [])
    now[0] = NOTICE_SECONDS + 1
    assert seekers.late() == [], "the second may have found some by the time that the first is told of"
    now[0] = 2 * NOTICE_SECONDS
    assert (seekers.hopeful, seekers.late(), seekers.late()) == (False, [5, 2], [])
    seekers.add(7, refs[2])
    assert seekers.hopeful
    assert seekers.answers({refs[1]}) == [(2, refs[1])]
    assert seekers.found(2), "it was told of"
    assert (list(seekers), list(seekers.refs())) == ([5, 7], [refs[0], refs[2]])
    assert seekers.answers({refs[1]}) == []
    seekers.add(7, refs[3])
    now[0] = 3 * NOTICE_SECONDS
    assert seekers.late() == [7], "one that died where it was to begin, and looks anew, has looked all the time"
    assert seekers.answers({refs[2], refs[3]}) == [(7, refs[3])]
    assert seekers.found(7)
    seekers.add(9, refs[2])
    assert not seekers.found(9)


def test_a_plan_for_a_cluster_counts_on_nodes_that_may_join() -> None:
    auto, many = LearnerConfig(), SimulatorsConfig(count=40, num_cpus=1)
    assert make_plan([many], LearnerConfig(num_gpus=1), {"CPU": 4.0}, largest=2.0).learner_gpus == 1.0
    assert make_plan([many], auto, {"CPU": 4.0}, largest=2.0).learner_cpus == 1.0
    few = [SimulatorsConfig(count=3, num_cpus=1)]
    assert make_plan(few, auto, {"CPU": 12.0}, largest=4.0).learner_cpus == 4.0, "no actor is larger than a node"
    assert make_plan(few, auto, {"CPU": 12.0}).learner_cpus == 9.0
    (share,) = make_plan([SimulatorsConfig(count=3)], LearnerConfig(num_cpus=4), {"CPU": 4.0}, largest=4.0).groups
    assert share.cpus == 1.0

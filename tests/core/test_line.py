"""Tasks that wait for their turn, against a plain list."""

from __future__ import annotations

import random
from itertools import count

from rlray.core.engine import CallSpec
from rlray.core.local.line import Line
from rlray.core.local.tasks import Task

SPEC = CallSpec("task", None)


def test_random_comings_and_goings() -> None:
    numbers = count()
    for seed in range(20):
        rng, line, plain = random.Random(seed), Line(), list[Task]()
        coming = rng.uniform(0.3, 0.7)
        for _ in range(500):
            if rng.random() < coming:
                task = Task(next(numbers).to_bytes(10, "big"), SPEC, ())
                if rng.random() < 0.8:
                    line.append(task)
                    plain.append(task)
                else:
                    line.appendleft(task)
                    plain.insert(0, task)
            elif plain and rng.random() < 0.8:
                line.take_out(plain.pop(rng.randrange(len(plain))))
                assert len(line) <= 2 * len(plain), "cancelled tasks pile up"
            else:
                assert line.first() is (plain[0] if plain else None)
                if plain:
                    assert line.popleft() is plain.pop(0)
            assert list(line.tasks()) == plain
            assert line.length == len(plain)

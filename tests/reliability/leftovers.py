"""What the tables of a process of the run still have, as text: for tests that nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import rlray
from rlray.core.engine import current
from tests.support import Meeting


def left(known: Collection[bytes] = ()) -> list[str]:
    """What this process still keeps, apart from references to the values with ``known`` ids; for any process."""
    client: Any = current()
    with client.loop.lock:
        found = [
            f"entry {one.hex()} (local {entry.local}, holders {entry.holders}, owned {entry.owned})"
            for one, entry in client.references.entries.items()
            if one not in known
        ]
        values = client.values
        found += [f"extent {one.id} of {one.size}, used {one.uses}" for one in values.extents._extents.values()]
        found += [f"{sum(lent.values())} extents lent to {to}" for to, lent in values.extents._lent.items() if lent]
        found += [f"view of {one.hex()}" for one in values._pins]
        found += [f"task {task.spec.name}" for task in client.all_tasks()]
        at_known = [lane.running for one, lane in client.actors._lanes.items() if one in known]
        found += [f"sent to {to}" for to, running in client.sent.items() if not any(running is one for one in at_known)]
        found += [f"lane of actor {one.hex()}" for one in client.actors._lanes if one not in known]
        found += [f"actor {one.hex()} made here" for one in client.owned_actors._actors]
        found += [f"reply {ticket}" for ticket in client.replies]
        if client.hooks is not None:
            found += [f"{len(client.hooks.answers._waiting)} answers"] if client.hooks.answers._waiting else []
            found += [f"generator {one.hex()}" for one in client.hooks.yielding._consumed]
    return found


def cool() -> None:
    """Let every process give back at once the pages that it would keep warm for a second. Called by the driver."""
    client: Any = current()
    with client.loop.lock:
        client.values.extents.give_up()
    for path in Path(client.settings.directory).glob("*.sock"):
        process = int(path.stem)
        if process > client.process and not client.references.is_gone(process):
            client.post(process, ("short",))


def left_in_workers(processes: int, patience: float = 10.0) -> list[str]:
    """What ``processes`` pool workers still keep, ``patience`` seconds after they were asked at the latest."""

    @rlray.remote(num_cpus=1)
    def look(box: list[Any]) -> list[str]:
        rlray.get(box[0].wait_for.remote(processes))
        known = {box[0]._life.binary()}
        deadline = time.monotonic() + patience
        while (found := left(known)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process = current().process  # type: ignore[attr-defined]
        return [f"worker {process}: {line}" for line in found]

    meeting = Meeting.remote()
    return [line for lines in rlray.get([look.remote([meeting]) for _ in range(processes)]) for line in lines]

"""How a run stands, as its node sees it: processes, actors, resources, memory. Plain data only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rlray.core.local.memory import Memory
from rlray.core.local.recorder import forget
from rlray.core.local.records import Actor
from rlray.core.local.scheduler import Scheduler
from rlray.core.local.settings import DRIVER, RunSettings
from rlray.core.local.workers import Worker
from rlray.core.resources import amounts

_DEAD_KEPT = 100  # dead workers of which one can still be told how they ended


class Standing:
    """Puts together what the node knows."""

    def __init__(self, settings: RunSettings, scheduler: Scheduler, memory: Memory, pids: Mapping[int, int]) -> None:
        self._settings, self._scheduler, self._memory, self._pids = settings, scheduler, memory, pids
        self._dead: deque[tuple[int, int, str]] = deque(maxlen=_DEAD_KEPT)
        self._deaths = 0
        self._started = time.time()

    def died(self, worker: int, pid: int, reason: str) -> None:
        """A worker process has ended."""
        self._deaths += 1
        if len(self._dead) == _DEAD_KEPT:
            forget(self._settings.spans_directory, self._dead[0][0])
        self._dead.append((worker, pid, reason.split("; its last output")[0]))

    def __call__(self) -> dict[str, Any]:
        """The node's part of every report."""
        scheduler, settings, memory = self._scheduler, self._settings, self._memory
        return {
            "job": settings.job_id,
            "node": settings.node_id,
            "driver": DRIVER,
            "driver_pid": settings.driver_pid,
            "namespace": settings.namespace,
            "logs": settings.log_directory,
            "started": self._started,
            "workers": [self._worker(worker) for worker in scheduler.workers],
            "dead": list(self._dead),
            "deaths": self._deaths,
            "actors": [self._actor(actor) for actor in scheduler.actors.values()],
            "groups": [
                (one.id, one.name, [amounts(bundle) for bundle in one.bundles], one.strategy, one.state)
                for one in scheduler.groups.values()
            ],
            "demand": [
                (client, amounts(request.resources), count, request.group)
                for client, request, count in scheduler.demands()
            ],
            "total": amounts(settings.total),
            "free": amounts(tuple(sorted(scheduler.available().items()))),
            "store": {
                "capacity": memory.extents.capacity,
                "used": memory.extents.used,
                "spilled": memory.spilled_bytes,
                "held": memory.held(),
                "waiting": memory.waiting(),
            },
        }

    def _worker(self, worker: Worker) -> dict[str, Any]:
        return {
            "process": worker.id,
            "pid": self._pids.get(worker.id, 0),
            "state": worker.state,
            "actor": worker.actor,
            "lessee": worker.lessee,
            "blocked": worker.blocked,
            "resources": amounts(worker.held),
            "gpus": [gpu for gpu, _ in worker.gpus],
            "environment": worker.environment,
        }

    def _actor(self, actor: Actor) -> dict[str, Any]:
        return {
            "id": actor.id,
            "class_name": actor.class_name,
            "name": actor.name,
            "state": actor.state,
            "waits": actor.waits,
            "worker": actor.worker,
            "restarts": actor.restarts,
            "detached": actor.detached,
            "creator": actor.creator,
            "resources": amounts(actor.request.resources),
            "group": actor.request.group,
            "cause": actor.cause if actor.state == "dead" else None,
        }

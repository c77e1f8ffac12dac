"""Cases of soak.py in which processes die: workers by the thousand, drivers at any moment."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import chaos_work
from chaos_work import Bench
from processes import Killer, descriptors, node_of, resident

import rlray

SEED = "soak"


def chaos(scale: float, seed: str = SEED, pause: float = 0.06) -> dict[str, Any]:
    """Random SIGKILLs of workers during a stream of retriable tasks, generators, maps and restartable actors."""
    rlray.init(num_cpus=4, object_store_memory=1 << 30)
    counts: Counter[str] = Counter(
        tasks=0, items=0, calls=0, actors=0, values=0, bytes=0, lost=0, wrong=0, unexpected=0
    )
    lock, problems, stop = threading.Lock(), list[str](), threading.Event()
    benches = [Bench(f"{seed} {rounds.__name__}", counts, lock, problems) for rounds in chaos_work.ROUNDS]
    for bench, rounds in zip(benches, chaos_work.ROUNDS, strict=True):  # what every run needs once
        rounds(bench)
    before = _holdings()
    threads = [
        threading.Thread(target=bench.work, args=(rounds, stop), name=rounds.__name__, daemon=True)
        for bench, rounds in zip(benches, chaos_work.ROUNDS, strict=True)
    ]
    killer = Killer(seed, max(1, round(1000 * scale)), pause)
    for thread in (*threads, killer):
        thread.start()
    killer.join()
    stop.set()
    hung = _join(threads, 2 * chaos_work.PATIENCE)
    left = _left_after(before)
    rlray.shutdown()
    return {"kills": killer.kills, **counts, "hung threads": hung, **left}


def _join(threads: list[threading.Thread], patience: float) -> int:
    """How many threads do not end; where they are is printed."""
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hung = [thread.name for thread in threads if thread.is_alive()]
    if hung:
        print("hung:", *hung, flush=True)
        faulthandler.dump_traceback(sys.stdout)
    return len(hung)


def _holdings() -> dict[str, int]:
    """What the driver and the node hold when nothing is under way, once all is free that will be."""
    total = rlray.cluster_resources()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        gc.collect()
        free = rlray.available_resources()
        if all(abs(total[name] - free.get(name, 0)) < 1e-6 for name in total):
            break
        time.sleep(0.1)
    time.sleep(0.5)  # workers beyond those that are kept idle have ended
    driver, node = os.getpid(), node_of(os.getpid())
    return {
        "store": int(total["object_store_memory"] - free["object_store_memory"]),
        "CPU": round(total["CPU"] - free["CPU"]),
        "driver": descriptors(driver),
        "node": descriptors(node),
        "driver MB": resident(driver) // 1_000_000,
        "node MB": resident(node) // 1_000_000,
    }


def _left_after(before: dict[str, int]) -> dict[str, Any]:
    """What is not as it was before."""
    after = _holdings()
    return {
        "left: bytes of the store": after["store"],
        "left: CPUs taken": after["CPU"],
        "left: descriptors of the driver": max(0, after["driver"] - before["driver"]),
        "left: descriptors of the node": max(0, after["node"] - before["node"]),
        "MB of the driver, before → after": f"{before['driver MB']} → {after['driver MB']}",
        "MB of the node, before → after": f"{before['node MB']} → {after['node MB']}",
    }


CASES: dict[str, Callable[[float], dict[str, Any]]] = {"chaos": chaos}

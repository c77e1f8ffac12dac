"""Cases of soak.py in which processes die: workers by the thousand, drivers at any moment."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import chaos_work
from chaos_work import Bench
from driver_states import STATES
from processes import Killer, descriptors, node_of, portrait, resident, workers_of, zygote_of
from sides import HERE, Child
from soak import WITHIN, left_over

import rlray

SEED = "soak"


def chaos(scale: float, seed: str = SEED, pause: float = 0.12) -> dict[str, Any]:
    """Random SIGKILLs of workers during a stream of retriable tasks, generators, maps and restartable actors."""
    rlray.init(num_cpus=4, object_store_memory=1 << 30)
    counts: Counter[str] = Counter(
        tasks=0, items=0, calls=0, actors=0, values=0, bytes=0, lost=0, wrong=0, unexpected=0
    )
    lock, problems, stop = threading.Lock(), list[str](), threading.Event()
    benches = [Bench(f"{seed} {number}", counts, lock, problems) for number, _ in enumerate(chaos_work.ROUNDS)]
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
    """What the driver and the node hold when nothing is under way, all is free that will be, and no worker lives."""
    total = rlray.cluster_resources()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        gc.collect()
        free = rlray.available_resources()
        if all(abs(total[name] - free.get(name, 0)) < 1e-6 for name in total):
            break
        time.sleep(0.1)
    while workers_of(os.getpid()):
        for pid in workers_of(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    time.sleep(0.5)  # for the node to tell the driver
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


# -- drivers that are ended ------------------------------------------------------------------------------------------

ENDINGS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "os._exit", "raise", "return", "node", "zygote")
LEFT_PROCESSES, LEFT_FILES = "left by drivers: processes", "left by drivers: files"
AT_ONCE = 3  # drivers
PATIENCE = 20.0  # seconds to see how long what is left after two seconds stays


def driver_deaths(scale: float, seed: str = SEED) -> dict[str, Any]:
    """Drivers in all kinds of states, ended at random moments in random ways, or whose node or zygote is killed."""
    rng = random.Random(seed)
    plans = [
        (rng.choice(list(STATES)), rng.choice(ENDINGS), rng.uniform(0.0, 1.2), rng.random() < 0.2)
        for _ in range(max(1, round(400 * scale)))
    ]
    counts: Counter[str] = Counter({"drivers": 0, **dict.fromkeys(ENDINGS, 0), "workers stopped before": 0})
    counts.update(dict.fromkeys(("told of the death of a part", "hung", LEFT_PROCESSES, LEFT_FILES), 0))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = gone = 0.0
        for outcome, until_told, until_gone in pool.map(lambda plan: _end_driver(*plan), plans):
            counts.update(outcome)
            told, gone = max(told, until_told), max(gone, until_gone)
    return {**counts, "slowest to be told, s": round(told, 2), "slowest until all was gone, s": round(gone, 2)}


def _end_driver(state: str, ending: str, moment: float, stopped: bool) -> tuple[Counter[str], float, float]:
    """One driver from its start to its end; what is found, how long it took to learn of the death of a part, and how
    long after its end nothing of it was there any more."""
    by_itself = ending in ("os._exit", "raise", "return")
    outcome = Counter({"drivers": 1, ending: 1})
    command = (str(HERE / "driver_states.py"), state, ending if by_itself else "signal", f"{moment / 2:.2f}")
    with Child(sys.executable, *command) as driver:
        pid, told = driver.process.pid, 0.0
        if ending in ("node", "zygote"):
            _when_there(lambda: node_of(pid))
        if moment > 0.4 or by_itself:  # not in its start, which takes long on a busy machine
            _when_there(lambda: "READY" in driver.output or driver.process.poll() is not None)
        time.sleep(moment)
        if stopped:
            with suppress(LookupError, OSError):
                os.kill(workers_of(pid)[0], signal.SIGSTOP)
                outcome["workers stopped before"] += 1
        if ending in ("node", "zygote"):
            told = _kill_part(driver, node_of if ending == "node" else zygote_of)
            outcome["told of the death of a part" if told else "hung"] += 1
        elif not by_itself:
            for _ in range(20):  # Python swallows a KeyboardInterrupt in a finalizer
                driver.process.send_signal(getattr(signal, ending))
                if driver.wait(1):
                    break
        if not driver.wait(30):
            outcome["hung"] += 1
            who = [portrait(one) for one in driver.left()]
            driver.process.send_signal(signal.SIGUSR1)  # it prints what its threads do
            driver.wait(2)
            print(f"hung in {state}, {ending} {moment:.3f} s on:", *who, driver.output[-5000:], sep="\n  ", flush=True)
            return outcome, told, 0.0
        ended = time.monotonic()
        left = left_over(driver, set())
        outcome.update({LEFT_PROCESSES: left["processes"], LEFT_FILES: left["files"]})
        if left["processes"] or left["files"]:
            who, files = [portrait(pid) for pid in driver.left()], sorted(map(str, driver.folder.rglob("*")))
            left_over(driver, set(), within=PATIENCE)
            late = time.monotonic() - ended
            print(
                f"left after {WITHIN:g} s by a driver in {state}, worker stopped: {stopped}, ended by {ending} "
                f"{moment:.3f} s on (all gone, or given up, after {late:.2f} s; load {os.getloadavg()[0]:.1f}):",
                *who, *files, driver.output[-3000:], sep="\n    ", flush=True,
            )  # fmt: skip
        return outcome, told, time.monotonic() - ended


def _kill_part(driver: Child, find: Callable[[int], int]) -> float:
    """Kill a part of a run; returns how long the driver took to say so, 0 if it did not.

    One that is just starting anew may not notice: then the next one is killed.
    """
    for _ in range(10):
        begun = time.monotonic()
        with suppress(LookupError, OSError):
            os.kill(find(driver.process.pid), signal.SIGKILL)
        if _when_there(lambda: "TOLD" in driver.output or driver.process.poll() is not None, 5):
            return time.monotonic() - begun
    return 0.0


def _when_there(find: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What is found, once it can be; the last answer when ``patience`` seconds have passed."""
    deadline, found = time.monotonic() + patience, None
    while not found and time.monotonic() < deadline:
        with suppress(LookupError):
            found = find()
        time.sleep(0.005)
    return found


CASES: dict[str, Callable[[float], dict[str, Any]]] = {"chaos": chaos, "driver_deaths": driver_deaths}

"""A driver that does one thing for ever, until it is ended: python driver_states.py STATE ENDING SECONDS.

ENDING says how it ends after about SECONDS: ``return``, ``raise`` and ``os._exit`` by itself, while a thread is in the
state; with ``signal`` the main thread is in it, until somebody ends the process. If the runtime breaks, it prints TOLD
and what it was told, and starts it anew.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time

import numpy as np

import rlray as ray
from rlray.util.placement_group import placement_group


def start() -> None:
    ray.init(num_cpus=2, object_store_memory=200_000_000)


@ray.remote
def nap(seconds):
    time.sleep(seconds)


@ray.remote
def same(value):
    return value


@ray.remote(num_returns="streaming")
def slow_steps():
    yield 0
    time.sleep(600)


@ray.remote
class Actor:
    def nap(self, seconds):
        time.sleep(seconds)

    def refs(self):
        return [nap.remote(600)]


def idle():
    while True:
        time.sleep(0.05)
        ray.put(1)


def get():
    ray.get([nap.remote(600), nap.remote(600)])


def wait():
    while True:
        ready, _ = ray.wait([nap.remote(600), same.remote(1)], num_returns=2)
        ray.get(ready)


def submit():
    while True:
        refs = [same.remote(i) for i in range(100_000)]
        del refs


def put():
    array = np.ones(5_000_000)
    while True:
        ray.put(array)


def full():
    """A store that is full of what is read here: `put` waits."""
    array, kept = np.ones(5_000_000), []
    while True:
        kept.append(np.frombuffer(ray.get(ray.put(array))))


def actors():
    while True:
        crowd = [Actor.remote() for _ in range(4)]
        ray.get([one.nap.remote(0.05) for one in crowd[:2]])


def call():
    ray.get(Actor.remote().nap.remote(600))


def map_results():
    for _ in same.map(iter(int, 1)).results():
        pass


def stream():
    for ref in slow_steps.remote():
        ray.get(ref)


def awaiting():
    async def gather():
        await asyncio.gather(nap.remote(600), nap.remote(600))

    asyncio.run(gather())


def awaiting_others():
    """Values that another process owns."""

    async def gather():
        await asyncio.gather(*ray.get(keeper.refs.remote()))

    keeper = Actor.remote()
    asyncio.run(gather())


def awaiting_group():
    placement_group([{"CPU": 2}])

    async def ready():
        await placement_group([{"CPU": 2}]).ready()

    asyncio.run(ready())


def group_wait():
    placement_group([{"CPU": 2}])
    second = placement_group([{"CPU": 2}])
    ray.get(second.ready())


def thread():
    """The main thread computes while another one waits."""
    failed = []

    def body():
        try:
            get()
        except BaseException as error:
            failed.append(error)

    waiter = threading.Thread(target=body, daemon=True)
    waiter.start()
    while not failed:
        time.sleep(0.01)
    raise failed[0]


def restart():
    while True:
        ray.shutdown()
        start()
        ray.get(same.remote(1))


STATES = {
    state.__name__: state
    for state in (
        idle, get, wait, submit, put, full, actors, call, map_results, stream, awaiting, awaiting_others,
        awaiting_group, group_wait, thread, restart,
    )
}  # fmt: skip


def main(name, ending, seconds):
    faulthandler.register(signal.SIGUSR1)  # for whoever wonders what it waits for
    start()
    ray.get(same.remote(0))
    print("READY", flush=True)
    if ending == "signal":
        try:
            STATES[name]()
        except ray.exceptions.RayError as error:
            print("TOLD", error, flush=True)
            ray.shutdown()
            start()
            print("AGAIN", ray.get(same.remote(42)), flush=True)
    elif ending == "os._exit":
        threading.Timer(seconds, os._exit, (7,)).start()
        STATES[name]()
    else:
        threading.Thread(target=STATES[name], daemon=True).start()
        time.sleep(seconds)
        if ending == "raise":
            raise RuntimeError("uncaught")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))

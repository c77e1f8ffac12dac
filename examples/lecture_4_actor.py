"""Step 4 of 4: an actor keeps a count while the tasks run. They all hold a handle to the same one."""

import time

import rlray as ray
from rlray import ActorHandle

ITEMS = ["learning", "Ray", "for", "distributed", "data", "processing"]


@ray.remote
class DataTracker:
    """Counts what was retrieved. Its state lives in a process of its own."""

    def __init__(self) -> None:
        self._count = 0

    def increment(self) -> None:
        self._count += 1

    def count(self) -> int:
        return self._count


@ray.remote
def retrieve_tracked(i: int, items: list[str], tracker: ActorHandle) -> str:
    """Item ``i`` of ``items``; tells ``tracker`` about it."""
    time.sleep(i / 10)
    ray.get(tracker.increment.remote())
    return items[i]


if __name__ == "__main__":
    ray.init(num_cpus=6)
    tracker = DataTracker.remote()
    items_reference = ray.put(ITEMS)
    start = time.perf_counter()
    data = ray.get([retrieve_tracked.remote(i, items_reference, tracker) for i in range(len(ITEMS))])
    seconds = time.perf_counter() - start
    print("tracked:", *data)
    print("count:", ray.get(tracker.count.remote()))
    print(f"time: {seconds:.2f} s")

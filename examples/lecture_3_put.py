"""Step 3 of 4: the list lies once in shared memory, and the tasks get a reference to it."""

import time

import rlray as ray

ITEMS = ["learning", "Ray", "for", "distributed", "data", "processing"]


@ray.remote
def retrieve_task(i: int, items: list[str]) -> str:
    """Item ``i`` of ``items``: a reference given as an argument arrives as its value."""
    time.sleep(i / 10)
    return items[i]


if __name__ == "__main__":
    ray.init(num_cpus=6)
    items_reference = ray.put(ITEMS)
    start = time.perf_counter()
    references = [retrieve_task.remote(i, items_reference) for i in range(len(ITEMS))]

    pending = references
    while pending:  # what is ready first is shown first
        ready, pending = ray.wait(pending, timeout=7.0)
        print("ready:", *ray.get(ready))
    seconds = time.perf_counter() - start
    print("shared:", *ray.get(references))
    print(f"time: {seconds:.2f} s")

"""Step 2 of 4: the same function as tasks, side by side. It takes the longest wait, about 0.5 s."""

import time

import rlray as ray

ITEMS = ["learning", "Ray", "for", "distributed", "data", "processing"]


@ray.remote
def retrieve_task(i: int) -> str:
    """Item ``i``, from a slow place. ``ITEMS`` travels to the workers with the function."""
    time.sleep(i / 10)
    return ITEMS[i]


if __name__ == "__main__":
    ray.init(num_cpus=6)
    start = time.perf_counter()
    references = [retrieve_task.remote(i) for i in range(len(ITEMS))]  # returns at once
    data = ray.get(references)  # waits for the results
    seconds = time.perf_counter() - start
    print("tasks:", *data)
    print(f"time: {seconds:.2f} s")

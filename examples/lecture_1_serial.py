"""Step 1 of 4: fetch six items one after the other. It takes the sum of all waits, about 1.5 s."""

import time

ITEMS = ["learning", "Ray", "for", "distributed", "data", "processing"]


def retrieve(i: int) -> str:
    """Item ``i``, from a slow place."""
    time.sleep(i / 10)
    return ITEMS[i]


if __name__ == "__main__":
    start = time.perf_counter()
    data = [retrieve(i) for i in range(len(ITEMS))]
    seconds = time.perf_counter() - start
    print("serial:", *data)
    print(f"time: {seconds:.2f} s")

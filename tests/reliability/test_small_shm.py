"""A machine whose /dev/shm is tiny, as in a container: the object store does not live there, and nothing is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.support import PACKAGE_PARENT

PROGRAM = """
import os
import numpy as np, rlray
assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize <= 1 << 20
rlray.init(num_cpus=2, object_store_memory=400_000_000)
make = rlray.remote(lambda i: np.full(20_000_000, i, np.uint8))
look = rlray.remote(lambda array: int(array[-1]))
refs = [rlray.put(np.full(20_000_000, i, np.uint8)) for i in range(5)] + [make.remote(i) for i in range(5, 10)]
assert rlray.get([look.remote(ref) for ref in refs]) == list(range(10))
print("WHOLE", all((array == i).all() for i, array in enumerate(rlray.get(refs))), os.listdir("/dev/shm"))
rlray.shutdown()
"""


def test_two_hundred_megabytes_beside_one_megabyte_of_shared_memory() -> None:
    """In a mount namespace of its own, so that nobody else sees the small /dev/shm."""
    unshare = shutil.which("unshare")
    inside = "mount -t tmpfs -o size=1m none /dev/shm"
    if unshare is None or subprocess.run([unshare, "-m", "sh", "-c", inside], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here: that takes root and Linux")
    command = [unshare, "-m", "sh", "-c", f'{inside} && exec "$0" -c "$1"', sys.executable, PROGRAM]
    search = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=search, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WHOLE True []" in done.stdout

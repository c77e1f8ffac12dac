"""What every process of a run knows."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field

from rlray.core.resources import Shape

ZYGOTE, NODE, DRIVER, FIRST_WORKER = -1, 0, 1, 2  # process numbers
VISITOR = (1 << 32) - 1  # whoever looks in from outside: the command line


@dataclass(frozen=True)
class RunSettings:
    """What the driver has decided when the run began."""

    secret: bytes = field(repr=False)  # not in a log or a traceback
    directory: str  # mode 0700: sockets
    log_directory: str
    spill_directory: str  # made when something is spilled, removed at the end
    store_fd: int
    store_capacity: int
    total: Shape
    gpus: tuple[str, ...]
    namespace: str
    job_id: str
    node_id: str
    driver_pid: int
    sys_path: tuple[str, ...]
    preload: tuple[str, ...]
    log_to_driver: bool
    fold_logs: bool  # what several workers print alike is printed once
    threads_set: bool  # the user has set OMP_NUM_THREADS: leave it alone
    environment: str  # that the driver's tasks and actors get
    timeline: bool  # every call is noted, however short
    look_after: float  # seconds after which a `get` looks whether it waits for ever, then twice that, and so on

    def stack_path(self, process: int) -> str:
        """Where a process writes what its threads do, see `rlray.core.local.stuck`."""
        return f"{self.directory}/{process}.stack"

    @property
    def spans_directory(self) -> str:
        """Where processes note what calls took."""
        return f"{self.directory}/spans"

    @property
    def names_directory(self) -> str:
        """Where workers tell what they run, for those who read what they print."""
        return f"{self.directory}/names"

    def make_directories(self) -> None:
        """Make the run's directory, which only this user may enter, and that of the logs: whoever comes first.

        The driver does so once the zygote knows of them: when the driver is killed, somebody removes them.
        """
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.makedirs(self.names_directory, exist_ok=True)
        os.makedirs(self.log_directory, exist_ok=True)

    def remove_directories(self) -> None:
        """Remove what the run has on disk, but for logs that the user wants to keep."""
        for directory in (self.directory, self.spill_directory):
            shutil.rmtree(directory, ignore_errors=True)

    def socket_path(self, process: int) -> str:
        """Where a process of the run listens."""
        return f"{self.directory}/{process}.sock"

"""What `init` is asked for, checked and turned into the settings of a run."""

from __future__ import annotations

import importlib.util
import os
import pickle
import secrets
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlray.core.exceptions import RaySystemError
from rlray.core.local.driver import Driver
from rlray.core.local.settings import RunSettings
from rlray.core.local.spawn import Spawned
from rlray.core.local.store import MIN_CAPACITY, PAGE, default_capacity, set_capacity
from rlray.core.local.visit import announce
from rlray.core.resources import node_resources
from rlray.core.runtime_env import canonical

_LONGEST_PLACE = 60  # bytes
_LOOK_VARIABLE = "RLRAY_DEADLOCK_SECONDS"


def start(
    spawned: Spawned,
    *,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: Mapping[str, float] | None,
    object_store_memory: int | None,
    object_spilling_directory: str | os.PathLike[str] | None,
    memory: float | None,
    runtime_env: Mapping[str, Any] | None,
    namespace: str | None,
    log_to_driver: bool,
    fold_logs: bool,
    log_dir: str | os.PathLike[str] | None,
    preload: Sequence[str],
    timeline: bool,
) -> Driver:
    """Let the spawned process make a run of it; returns when all is there."""
    _check(object_store_memory, object_spilling_directory, preload)
    environment = canonical(runtime_env)
    capacity = (object_store_memory or default_capacity()) // PAGE * PAGE
    total, gpus = node_resources(num_cpus, num_gpus, memory, resources, other_memory=capacity)
    directory = os.path.join(_place_for_sockets(), f"rlray-{secrets.token_hex(8)}")
    logs = Path(directory) / "logs"
    if log_dir is not None:
        logs = Path(log_dir)
        logs.mkdir(parents=True, exist_ok=True)
    job_id = secrets.token_hex(4)
    settings = RunSettings(
        secret=secrets.token_bytes(32),
        directory=directory,
        log_directory=str(logs.resolve()),
        spill_directory=str(Path(object_spilling_directory or directory).resolve() / f"spilled-{job_id}"),
        store_fd=spawned.store_fd,
        store_capacity=capacity,
        total=total,
        gpus=gpus,
        namespace=namespace or uuid.uuid4().hex,
        job_id=job_id,
        node_id=uuid.uuid4().hex,
        driver_pid=os.getpid(),
        sys_path=tuple(map(_absolute, sys.path)),
        preload=(*(name for name in ("numpy",) if name in sys.modules), *preload),
        log_to_driver=log_to_driver,
        fold_logs=fold_logs,
        threads_set="OMP_NUM_THREADS" in os.environ,
        environment=environment,
        timeline=timeline,
        look_after=_look_after(),
    )
    try:
        set_capacity(spawned.store_fd, capacity)
        with suppress(BrokenPipeError):  # it died at once: the wait for its welcome reports it
            spawned.lifeline.sendall(pickle.dumps(settings))
        _make_directories(settings)
        announce(settings)
        return Driver(settings, spawned)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _check(
    object_store_memory: int | None, object_spilling_directory: str | os.PathLike[str] | None, preload: Sequence[str]
) -> None:
    """Wrong arguments are named before anything starts."""
    if object_store_memory is not None and object_store_memory < MIN_CAPACITY:
        raise ValueError(
            f"object_store_memory of init() is in bytes, at least {MIN_CAPACITY}, got {object_store_memory!r}"
        )
    if object_spilling_directory is not None:
        try:
            os.makedirs(object_spilling_directory, exist_ok=True)
            tempfile.TemporaryFile(dir=object_spilling_directory).close()
        except OSError as why:
            raise ValueError(
                "object_spilling_directory of init() must be a directory that can be written to, got "
                f"{os.fspath(object_spilling_directory)!r}: {why.strerror}"
            ) from why
    for module in preload:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"preload of init() names {module!r}, which is not installed")


def _look_after() -> float:
    """Seconds after which a wait without a timeout is looked at for calls that wait for each other."""
    text = os.environ.get(_LOOK_VARIABLE, "5")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"the environment variable {_LOOK_VARIABLE} is a number of seconds above 0, got {text!r}")
    return seconds


def _make_directories(settings: RunSettings) -> None:
    try:
        settings.make_directories()
    except OSError as why:
        raise RaySystemError(
            f"init() needs a directory for its sockets, and cannot make {settings.directory}: {why.strerror}; "
            "set the environment variable TMPDIR to a directory that can be written to"
        ) from why


def _place_for_sockets() -> str:
    """A directory for the run's; the paths of sockets may have about 100 bytes."""
    usual = tempfile.gettempdir()
    return "/tmp" if len(os.fsencode(usual)) > _LONGEST_PLACE else usual


def _absolute(place: str) -> str:
    """An entry of ``sys.path``, also for processes that are in another directory one day."""
    if not place or os.path.exists(place):  # others mean something to a finder of modules
        with suppress(FileNotFoundError):  # the current directory is gone
            return os.path.abspath(place)
    return place

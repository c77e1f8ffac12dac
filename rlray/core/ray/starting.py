"""Connecting to a Ray cluster, or starting one of this machine alone."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlray.core.exceptions import RaySystemError, say

if TYPE_CHECKING:
    from rlray.core.ray.engine import RayEngine

LOCAL = "local-ray"
_OLDEST = (2, 44)
_REACHABLE_SECONDS = 10.0  # for a connection to the address of a cluster
_OURS = {
    "RAY_AUTH_MODE": "token",  # whoever wants to run code on the cluster must have its token
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # whoever asks for no GPU sees none
}
"""What a cluster that is started here is told by its environment, unless that says otherwise."""


def start(
    *,
    address: str | None,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: Mapping[str, float] | None,
    memory: float | None,
    object_store_memory: int | None,
    object_spilling_directory: str | os.PathLike[str] | None,
    runtime_env: Mapping[str, Any] | None,
    namespace: str | None,
    log_to_driver: bool,
) -> RayEngine:
    """Connect to the cluster at ``address``, or start one. If Ray is up in this process already, that is used.

    Raises:
        ImportError: Ray is not installed, or too old.
        ValueError: An argument describes a machine, and the cluster is there already.
        ConnectionError: There is no cluster at the address, or it does not let us in.
        RaySystemError: Ray's processes did not start in time.
    """
    address = address or LOCAL
    described = {
        "num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources, "memory": memory,
        "object_store_memory": object_store_memory, "object_spilling_directory": object_spilling_directory,
    }  # fmt: skip
    told = _tell() if address == LOCAL else False
    was_there = "ray" in sys.modules
    ray = _imported()
    if told and was_there:
        ray._raylet.Config.initialize("")  # it has read its environment already
    from rlray.core.ray.engine import RayEngine

    if address != LOCAL and (wrong := [name for name, value in described.items() if value is not None]):
        raise ValueError(
            f"{wrong[0]} of init() says what a machine has, and the cluster at {address!r} knows that of its nodes; "
            f"leave it out, or start a cluster of this machine with address={LOCAL!r}"
        )
    if ray.is_initialized():
        return RayEngine(driver=True)
    if address == LOCAL:
        _start_here(ray, runtime_env, namespace, log_to_driver, described)
    else:
        _join(ray, address, runtime_env, namespace, log_to_driver)
    return RayEngine(driver=True, owns=True, grows=address != LOCAL)


def _tell() -> bool:
    """Tell Ray through the environment, best before it is imported, what holds for our clusters; whether it is new."""
    new = [name for name in _OURS if name not in os.environ]
    os.environ.update({name: _OURS[name] for name in new})
    return bool(new)


def _start_here(
    ray: Any,
    runtime_env: Mapping[str, Any] | None,
    namespace: str | None,
    log_to_driver: bool,
    described: Mapping[str, Any],
) -> None:
    from rlray.core.resources import UNIT, node_resources

    total, gpus = node_resources(
        described["num_cpus"], described["num_gpus"], described["memory"], described["resources"]
    )
    options: dict[str, Any] = {"num_cpus": _number(dict(total).get("CPU", 0) / UNIT), "num_gpus": len(gpus)}
    if described["memory"] is not None:
        options["_memory"] = int(described["memory"])
    if described["object_store_memory"] is not None:
        options["object_store_memory"] = int(described["object_store_memory"])
    if described["object_spilling_directory"] is not None:
        options["object_spilling_directory"] = os.fspath(described["object_spilling_directory"])
    try:
        ray.init(
            "local",
            resources=dict(described["resources"] or {}),
            runtime_env=None if runtime_env is None else dict(runtime_env),
            namespace=namespace,
            log_to_driver=log_to_driver,
            include_dashboard=False,
            **options,
        )
    except Exception as why:
        with contextlib.suppress(Exception):
            ray.shutdown()  # what has started already
        if isinstance(why, TypeError | ValueError):
            raise
        raise RaySystemError(f"Ray did not start on this machine: {say(why)}; its logs are in /tmp/ray") from why


def _join(
    ray: Any, address: str, runtime_env: Mapping[str, Any] | None, namespace: str | None, log_to_driver: bool
) -> None:
    _check_reachable(address)
    try:
        ray.init(
            address,
            runtime_env=None if runtime_env is None else dict(runtime_env),
            namespace=namespace,
            log_to_driver=log_to_driver,
        )
    except ConnectionError as why:
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise ConnectionError(
            f"no Ray cluster lets this program in at address={address!r}: {say(why)}. See whether one runs there (`ray "
            "start --head`), whether RAY_AUTH_MODE and the token are the same here and there, and the versions of Ray "
            "and Python"
        ) from why


def _check_reachable(address: str) -> None:
    """Raise ConnectionError if nobody listens there: Ray itself would try for minutes, and not say where."""
    where = address.removeprefix("ray://")
    if address == "auto":
        with contextlib.suppress(Exception):  # whatever it is, Ray is about to find out
            from ray._private.services import get_ray_address_from_environment

            where = get_ray_address_from_environment("auto", None)
    host, colon, port = where.partition("?")[0].rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHABLE_SECONDS).close()
    except OSError as why:
        named = "" if where in address else f", which is {where}"
        command = f"`ray start --head{f' --ray-client-server-port={port}' if address.startswith('ray://') else ''}`"
        raise ConnectionError(
            f"no Ray cluster answers at address={address!r}{named}: {why}. Start one there with {command}, or see "
            "whether the port may be reached from here"
        ) from why


def _number(amount: float) -> float | int:
    return int(amount) if amount == int(amount) else amount


def _imported() -> Any:
    try:
        import ray
    except ImportError as why:
        raise ImportError(f'the Ray engine needs Ray: pip install "rlray[ray]" ({why})') from why
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < _OLDEST:
        raise ImportError(
            f"the Ray engine needs Ray {'.'.join(map(str, _OLDEST))} or newer, this is {ray.__version__}: "
            'pip install --upgrade "rlray[ray]"'
        )
    return ray

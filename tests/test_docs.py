"""Promises of the documentation name tests that exist, and docs/core.md explains every name of Ray that is missing."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import rlray

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "core.md"
PROMISES = (PAGE, ROOT / "docs" / "guarantees.md")
NODE = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)*)`")

RAY = {
    *("ActorClassID", "ActorID", "ClientBuilder", "ClusterID", "DynamicObjectRefGenerator", "FunctionID", "JobID"),
    *("Language", "LoggingConfig", "NodeID", "ObjectID", "ObjectRef", "ObjectRefGenerator", "PlacementGroupID"),
    *("TaskID", "UniqueID", "WorkerID", "actor", "available_resources", "cancel", "client", "cluster_resources"),
    *("cross_language", "exceptions", "get", "get_actor", "get_gpu_ids", "get_runtime_context", "init"),
    *("is_initialized", "java_actor_class", "java_function", "kill", "method", "nodes", "put", "remote", "shutdown"),
    *("timeline", "util", "wait"),
}
"""What Ray 2.60 offers programs of its core under ``ray.``, submodules of its libraries and internals apart."""

EXCEPTIONS = {
    *("ActorAlreadyExistsError", "ActorDiedError", "ActorHandleNotFoundError", "ActorPlacementGroupRemoved"),
    *("ActorUnavailableError", "ActorUnschedulableError", "AsyncioActorExit", "AuthenticationError"),
    *("CrossLanguageError", "GetTimeoutError", "LocalRayletDiedError", "NodeDiedError", "ObjectFetchTimedOutError"),
    *("ObjectFreedError", "ObjectLostError", "ObjectReconstructionFailedError", "ObjectRefStreamEndOfStreamError"),
    *("ObjectStoreFullError", "OufOfBandObjectRefSerializationException", "OutOfDiskError", "OutOfMemoryError"),
    *("OwnerDiedError", "PendingCallsLimitExceeded", "PlasmaObjectNotAvailable", "RayActorError"),
    *("RayCgraphCapacityExceeded", "RayChannelError", "RayChannelTimeoutError", "RayDirectTransportError"),
    *("RayError", "RaySystemError", "RayTaskError", "ReferenceCountingAssertionError", "RpcError"),
    *("RuntimeEnvSetupError", "StreamingGeneratorReplayInconsistentError", "TaskCancelledError"),
    *("TaskPlacementGroupRemoved", "TaskUnschedulableError", "UnserializableException", "UserCodeException"),
    "WorkerCrashedError",
}
"""The classes of ``ray.exceptions``."""

CONTEXT = {
    *("actor_id", "current_actor", "current_placement_group_id", "gcs_address", "get", "get_accelerator_ids"),
    *("get_actor_id", "get_actor_name", "get_assigned_resources", "get_job_id", "get_node_id", "get_node_labels"),
    *("get_placement_group_id", "get_resource_ids", "get_runtime_env_string", "get_session_name"),
    *("get_task_function_name", "get_task_id", "get_task_name", "get_temp_dir", "get_worker_id", "is_canceled"),
    *("job_id", "namespace", "node_id", "runtime_env", "should_capture_child_tasks_in_placement_group", "task_id"),
    "was_current_actor_reconstructed",
}
"""The methods and properties of what Ray's ``get_runtime_context()`` returns."""


def rows() -> list[list[str]]:
    """The cells of every table row that has a test in its last cell."""
    lines = [line for page in PROMISES for line in page.read_text(encoding="utf-8").splitlines()]
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [cells for cells in tables if NODE.search(cells[-1])]


@cache
def names_in(path: Path) -> frozenset[str]:
    """``name`` of every test function of a file, ``Class::name`` of those in classes."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(found)


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: re.sub(r"\W+", "-", cells[0])[:60])
def test_every_test_named_beside_a_promise_exists(cells: list[str]) -> None:
    for part in cells[-1].split(","):
        [node] = NODE.findall(part)
        path, _, name = node.partition("::")
        if "TODO" in part and not (ROOT / path).exists():
            continue  # not built yet; once the file is there, the row must be looked at and the mark removed
        assert "TODO" not in part, f"{path} is there now: check the row and remove its mark"
        assert (ROOT / path).exists(), f"there is no file {path}"
        assert not name or name in names_in(ROOT / path), f"there is no test {node}"


def test_the_page_has_its_tables() -> None:
    assert len(rows()) > 50
    titles = set(re.findall(r"^### (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"Tasks", "Objects", "Actors", "Resources and environments", "Tools"} <= titles


def explained(title: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    _, below = PAGE.read_text(encoding="utf-8").split(f"### {title}\n")
    table = below.split("\n### ")[0]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in firsts for name in re.findall(r"`(\w+)`", cell)}


def test_every_name_of_ray_is_there_or_explained() -> None:
    assert explained("Names of `ray` that are left out") == RAY - set(dir(rlray))


def test_every_exception_of_ray_is_there_or_explained() -> None:
    assert explained("Names of `ray.exceptions` that are left out") == EXCEPTIONS - set(dir(rlray.exceptions))


def test_every_method_of_the_runtime_context_is_there_or_explained() -> None:
    assert explained("Methods of `get_runtime_context()` that are left out") == CONTEXT - set(dir(rlray.RuntimeContext))


@pytest.mark.skipif(find_spec("ray") is None, reason="compares with Ray, which is not installed")
def test_the_lists_of_rays_names_are_rays() -> None:
    ray = import_module("ray")
    modules = {"actor", "cross_language", "exceptions", "util"}
    assert {name for name in dir(ray) if callable(getattr(ray, name)) and name[0] != "_"} | modules == RAY
    errors = {name: kind for name, kind in vars(ray.exceptions).items() if isinstance(kind, type)}
    assert {name for name, kind in errors.items() if issubclass(kind, BaseException)} == EXCEPTIONS
    assert {name for name in dir(ray.runtime_context.RuntimeContext) if name[0] != "_"} == CONTEXT

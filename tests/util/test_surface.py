"""The names of rlray.util, their signatures, and what importing them loads."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import rlray.util
from rlray.util.multiprocessing import Pool
from rlray.util.queue import Queue

SURFACE = {
    "ActorPool",
    "Executor",
    "get_current_placement_group",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "placement_group",
    "placement_group_table",
    "profile",
    "remove_placement_group",
}
MODULES = {"joblib", "metrics", "multiprocessing", "queue", "scheduling_strategies", "state"}


def test_all_is_the_surface() -> None:
    assert set(rlray.util.__all__) == SURFACE


@pytest.mark.parametrize("name", sorted(SURFACE | MODULES))
def test_every_name_exists_is_listed_and_documented(name: str) -> None:
    assert name in dir(rlray.util)
    assert (getattr(rlray.util, name).__doc__ or "").strip()


@pytest.mark.parametrize("cls", [rlray.util.ActorPool, rlray.util.Executor, Queue, Pool])
def test_public_methods_are_documented(cls: type) -> None:
    bare = [
        name
        for name, member in inspect.getmembers(cls)
        if not name.startswith("_") and callable(member) and not inspect.getdoc(member)
    ]
    assert not bare


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rlray.util.no_such_name


def parameters(callable_: Any) -> str:
    """Names and defaults, as they are written."""
    found = inspect.signature(callable_).parameters.values()
    return ", ".join(str(one.replace(annotation=one.empty)) for one in found if one.name != "self")


@pytest.mark.parametrize(
    ("callable_", "expected"),
    [
        (rlray.util.ActorPool.map, "fn, values, progress=False"),  # progress: by name only, beyond Ray
        (rlray.util.ActorPool.submit, "fn, value"),
        (rlray.util.ActorPool.get_next, "timeout=None, ignore_if_timedout=False"),
        (rlray.util.ActorPool.get_next_unordered, "timeout=None, ignore_if_timedout=False"),
        (Queue, "maxsize=0, actor_options=None"),
        (Queue.put, "item, block=True, timeout=None"),
        (Queue.get, "block=True, timeout=None"),
        (Queue.put_async, "item, block=True, timeout=None"),
        (Queue.get_async, "block=True, timeout=None"),
        (Queue.shutdown, "force=False, grace_period_s=5"),
        (
            Pool,
            "processes=None, initializer=None, initargs=None, maxtasksperchild=None, context=None, ray_address=None, "
            "ray_remote_args=None",
        ),
        (Pool.apply_async, "func, args=None, kwargs=None, callback=None, error_callback=None"),
        (Pool.map_async, "func, iterable, chunksize=None, callback=None, error_callback=None"),
        (Pool.imap, "func, iterable, chunksize=1"),
        (rlray.util.inspect_serializability, "base_obj, name=None, depth=3, print_file=None"),
        (rlray.util.list_named_actors, "all_namespaces=False"),
        (rlray.util.placement_group, "bundles, strategy='PACK', name='', lifetime=None"),
        (rlray.util.remove_placement_group, "placement_group"),
        (rlray.util.get_placement_group, "placement_group_name"),
        (rlray.util.placement_group_table, "placement_group=None"),
    ],
    ids=lambda given: getattr(given, "__qualname__", ""),
)
def test_signatures_are_rays(callable_: Any, expected: str) -> None:
    assert parameters(callable_) == expected


def test_importing_the_package_loads_placement_groups_at_most() -> None:
    """They are a few small modules; see the package for why they are not loaded lazily."""
    code = "import sys, rlray.util; print(*[name for name in sys.modules if name.startswith('rlray.')])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    ours = {"rlray.util", "rlray.util.placement_group"}
    assert set(answer.stdout.split()) == {*ours, "rlray.core", "rlray.core.placement_groups", "rlray.core.resources"}

"""The public names, written down: adding or losing one is a decision, not an accident."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from importlib.metadata import PackageNotFoundError, version

import pytest

import rlray

SURFACE = {
    "ActorHandle",
    "ObjectRef",
    "ObjectRefGenerator",
    "RuntimeContext",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "empty",
    "envs",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "runtime_env",
    "shutdown",
    "simulate",
    "timeline",
    "train",
    "util",
    "wait",
}


def test_all_is_the_surface() -> None:
    assert sorted(rlray.__all__) == sorted(SURFACE)
    assert len(rlray.__all__) == len(set(rlray.__all__))


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_every_public_name_exists_is_listed_and_documented(name: str) -> None:
    value = getattr(rlray, name)
    assert name in dir(rlray)
    assert (value.__doc__ or "").strip(), f"rlray.{name} has no docstring"


@pytest.mark.parametrize("name", sorted(SURFACE - {"actor", "envs", "exceptions", "train", "util"}))
def test_public_methods_of_public_classes_are_documented(name: str) -> None:
    value = getattr(rlray, name)
    if not inspect.isclass(value):
        return
    bare = [
        attribute
        for attribute, member in vars(value).items()
        if not attribute.startswith("_")
        and isinstance(member, types.FunctionType | property | classmethod | staticmethod)
        and not (inspect.getdoc(getattr(value, attribute)) or "").strip()
    ]
    assert not bare, f"rlray.{name}: no docstring on {bare}"


def test_every_exception_is_exported_and_documented() -> None:
    module = rlray.exceptions
    defined = {
        name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, BaseException)
    }
    assert defined == {name for name in module.__all__ if inspect.isclass(getattr(module, name))}
    for name in defined:
        assert (getattr(module, name).__doc__ or "").strip(), name


def test_star_import_gives_the_surface_and_nothing_else() -> None:
    code = "before = set(dir()); from rlray import *; print(*sorted(set(dir()) - before - {'before'}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(answer.stdout.split()) == SURFACE


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rlray.no_such_name


def test_signatures_are_rays() -> None:
    """The parameters of Ray that programs use, with Ray's defaults."""
    expected = {
        "get": {"timeout": None},
        "wait": {"num_returns": 1, "timeout": None},
        "kill": {"no_restart": True},
        "cancel": {"force": False, "recursive": True},
        "get_actor": {"namespace": None},
        "init": {
            "num_cpus": None,
            "num_gpus": None,
            "resources": None,
            "object_store_memory": None,
            "runtime_env": None,
            "namespace": None,
            "ignore_reinit_error": False,
            "log_to_driver": True,
        },
    }
    for name, defaults in expected.items():
        parameters = inspect.signature(getattr(rlray, name)).parameters
        for parameter, default in defaults.items():
            assert parameters[parameter].default == default, f"rlray.{name}({parameter})"


def test_version_is_the_packages() -> None:
    try:
        assert rlray.__version__ == version("rlray")
    except PackageNotFoundError:
        pytest.skip("rlray is on the path but not installed, so there is no package version to compare with")

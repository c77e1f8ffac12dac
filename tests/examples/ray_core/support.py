"""The programs of this folder run on rlray, and unchanged on Ray: ``RAY_MODULE=ray`` chooses.

    RAY_MODULE=ray PYTHONPATH=. python -m pytest -c /dev/null --noconftest tests/examples/ray_core

in an environment that has Ray and pytest, but need not have rlray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

NAME = os.environ.get("RAY_MODULE", "rlray")
ray: Any = import_module(NAME)


def submodule(name: str) -> ModuleType:
    """``ray.<name>`` of whichever is running."""
    return import_module(f"{NAME}.{name}")


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    """Four CPUs and two of a resource named ``special``, for the tests of a module."""
    ray.init(num_cpus=4, resources={"special": 2}, log_to_driver=False)
    yield
    ray.shutdown()

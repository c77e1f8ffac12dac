"""rlray: reinforcement learning by simulation, on a general task/actor core.

``import rlray as ray`` runs programs written for Ray's core on this machine; ``rlray.train`` trains.
Everything is loaded when first used: importing rlray costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlray import actor as actor
    from rlray import exceptions as exceptions
    from rlray import util as util
    from rlray.core.api import RuntimeContext as RuntimeContext
    from rlray.core.api import available_resources as available_resources
    from rlray.core.api import cancel as cancel
    from rlray.core.api import cluster_resources as cluster_resources
    from rlray.core.api import empty as empty
    from rlray.core.api import get as get
    from rlray.core.api import get_actor as get_actor
    from rlray.core.api import get_gpu_ids as get_gpu_ids
    from rlray.core.api import get_runtime_context as get_runtime_context
    from rlray.core.api import is_initialized as is_initialized
    from rlray.core.api import kill as kill
    from rlray.core.api import nodes as nodes
    from rlray.core.api import put as put
    from rlray.core.api import remote as remote
    from rlray.core.api import shutdown as shutdown
    from rlray.core.api import wait as wait
    from rlray.core.inspecting import timeline as timeline
    from rlray.core.refs import ObjectRef as ObjectRef
    from rlray.core.refs import ObjectRefGenerator as ObjectRefGenerator
    from rlray.core.remote import ActorHandle as ActorHandle
    from rlray.core.remote import method as method
    from rlray.core.starting import init as init
    from rlray.train.simulation import simulate as simulate

__version__ = "0.1.0"

_WHERE = {
    "ActorHandle": "rlray.core.remote",
    "ObjectRef": "rlray.core.refs",
    "ObjectRefGenerator": "rlray.core.refs",
    "RuntimeContext": "rlray.core.api",
    "available_resources": "rlray.core.api",
    "cancel": "rlray.core.api",
    "cluster_resources": "rlray.core.api",
    "empty": "rlray.core.api",
    "get": "rlray.core.api",
    "get_actor": "rlray.core.api",
    "get_gpu_ids": "rlray.core.api",
    "get_runtime_context": "rlray.core.api",
    "init": "rlray.core.starting",
    "is_initialized": "rlray.core.api",
    "kill": "rlray.core.api",
    "method": "rlray.core.remote",
    "nodes": "rlray.core.api",
    "put": "rlray.core.api",
    "remote": "rlray.core.api",
    "shutdown": "rlray.core.api",
    "simulate": "rlray.train.simulation",
    "timeline": "rlray.core.inspecting",
    "wait": "rlray.core.api",
}
_MODULES = ("actor", "envs", "exceptions", "runtime_env", "train", "util")

__all__ = [*sorted(_WHERE), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name in _MODULES:
        value = import_module(f"rlray.{name}")
    else:
        raise AttributeError(f"module 'rlray' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

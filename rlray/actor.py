"""What programs import from ``ray.actor``: handles, and leaving an actor from inside."""

from __future__ import annotations

from rlray.core.api import exit_actor
from rlray.core.remote import ActorClass, ActorHandle, ActorMethod, method

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor", "method"]

"""Cases of soak.py in which processes die: workers by the thousand, drivers at any moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CASES: dict[str, Callable[[float], dict[str, Any]]] = {}

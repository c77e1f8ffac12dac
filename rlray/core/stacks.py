"""Stacks as users want to see them: their own lines, and which call of the runtime they are in."""

from __future__ import annotations

import os
import sys
import traceback
from itertools import pairwise
from types import FrameType

_CORE = os.path.dirname(os.path.abspath(__file__))
OURS = (_CORE + os.sep, os.path.join(os.path.dirname(_CORE), "util") + os.sep)


def calling_line() -> str:
    """The line of the user's program that called: ``file:line``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def users_part(frame: FrameType | None) -> str:
    """The user's part of a stack, and the call of the runtime that it is in; nothing if only the runtime is at work."""
    whole = traceback.extract_stack(frame)
    kept = []
    for before, one in pairwise([None, *whole]):
        assert one is not None
        ours = one.filename.startswith(OURS) or one.filename == "<string>"
        if not ours or (before is not None and before in kept and not before.filename.startswith(OURS)):
            kept.append(one)
    return "".join(traceback.format_list(kept))

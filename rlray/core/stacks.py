"""Stacks as users want to see them: their own lines, and which call of the runtime they are in."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from itertools import dropwhile, pairwise
from types import FrameType
from typing import Any

_CORE = os.path.dirname(os.path.abspath(__file__))
_LIBRARY = os.path.dirname(os.__file__)
OURS = (_CORE + os.sep, os.path.join(os.path.dirname(_CORE), "util") + os.sep)
_CALLERS = tuple(  # what calls the user's code, besides the runtime
    os.path.join(_LIBRARY, *path)
    for path in (["asyncio", ""], ["concurrent", "futures", ""], ["threading.py"], ["selectors.py"])
)
_ZYGOTE = os.path.join(_CORE, "local", "zygote")  # what a worker's main thread begins in: zygote.py, zygote_start.py

_IN_DUMPS = tuple(f'File "{path}' for path in (*OURS, *_CALLERS))


def calling_line() -> str:
    """The line of the user's program that called: ``file:line``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def users_part(frame: FrameType | None) -> str:
    """The user's part of a stack, and the call of the runtime that it is in; nothing if there is no such part."""
    return _text(traceback.extract_stack(frame))


def awaited_part(coroutine: Any) -> str:
    """As `users_part`, for a coroutine: down to what it awaits."""
    return _text(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in _frames(coroutine)))


def users_part_of_dump(dump: str) -> str:
    """As `users_part`, of what `faulthandler` has written, the most recent call first.

    Threads of the runtime are left out, unless it is one that was at work.
    """
    kept = []
    for block in dump.strip().split("\n\n"):
        head, *lines = block.splitlines()
        if len(lines) > 1 and _ZYGOTE in lines[-2]:
            lines.pop()  # the program that the zygote is
        while len(lines) > 1 and lines[-1].strip().startswith(_IN_DUMPS):
            lines.pop()
        if lines and not (lines[0].strip().startswith(_IN_DUMPS) and len(lines) == 1 and "Current" not in head):
            kept.append("\n".join([head, *lines]))
    return "\n\n".join(kept)


def _frames(awaitable: Any) -> Iterator[FrameType]:
    while awaitable is not None:
        for kind in ("cr", "gi", "ag"):  # a coroutine, a generator, an asynchronous one
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return


def _text(whole: traceback.StackSummary) -> str:
    if len(whole) > 1 and whole[1].filename.startswith(_ZYGOTE):
        del whole[0]  # the program that the zygote is
    kept: list[traceback.FrameSummary] = []
    rest = dropwhile(lambda one: one.filename.startswith((*OURS, *_CALLERS)), whole)
    for before, one in pairwise([None, *rest]):
        assert one is not None
        if not one.filename.startswith(OURS) or (before is not None and not before.filename.startswith(OURS)):
            kept.append(one)
    return "".join(traceback.format_list(kept))

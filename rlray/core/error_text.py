"""What a pickled error says, found without running or importing anything that its pickle names."""

from __future__ import annotations

import builtins
import io
import pickle
from typing import Any

from rlray.core import exceptions


def error_text(pickled: bytes) -> str:
    """The text of an error as `rlray.core.serialization.dumps_error` makes it.

    Only exceptions of Python and of rlray are loaded. Whatever else it is made of, somebody's class or function, is
    replaced by something that does nothing: whoever looks into a run has not got the modules of the program.
    """
    try:
        return str(_Words(io.BytesIO(pickled)).load())
    except Exception as why:  # a class that cannot be replaced like that
        return f"an error that cannot be shown here: {type(why).__name__}: {why}"


class _Words(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" or module == exceptions.__name__:
            found = getattr(builtins if module == "builtins" else exceptions, name, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                return found
            if name == "_dual_again":  # an error of a task that is also one of its cause's class
                return exceptions.RayTaskError
        return _Nothing

    def persistent_load(self, pid: Any) -> Any:
        return _Nothing()


class _Nothing(dict[Any, Any]):
    """Takes everything, and does nothing with it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """As a list has it."""

    def extend(self, items: Any) -> None:
        """As a list has it."""

    def add(self, item: Any) -> None:
        """As a set has it."""

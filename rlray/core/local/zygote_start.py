"""The first lines of a run's first process: its imports, which end when the driver does."""

from __future__ import annotations

import importlib
import os

from rlray.core.local.hangup import Hangup, while_connected

BASE = ("cloudpickle", "rlray.core.local.worker")  # what every worker needs


def main(lifeline: int, node_fd: int) -> None:
    """Entry point of the fresh Python that `rlray.core.local.spawn` starts.

    ``lifeline`` and ``node_fd`` are inherited sockets: the driver's to this process, the driver's to the node.
    """
    try:
        with while_connected(lifeline):  # while the driver makes up its mind
            from rlray.core.local import zygote

            for name in BASE:
                try:
                    importlib.import_module(name)
                except ImportError:  # it may be found where the settings tell to look
                    continue
    except Hangup:
        _clear_away(lifeline)
    else:
        zygote.main(lifeline, node_fd)


def _clear_away(lifeline: int) -> None:
    """The driver is gone: remove what it has made of a run, if it came to that."""
    import pickle

    from rlray.core.local.settings import RunSettings

    with os.fdopen(lifeline, "rb") as stream:
        try:
            settings: RunSettings = pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            return
    settings.remove_directories()

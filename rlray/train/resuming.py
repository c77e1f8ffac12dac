"""Going on with a run: what may differ from its first part, and what is said about the rest."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rlray.config import RunConfig, load_config
from rlray.train.metrics import flat
from rlray.train.run_folder import RunFolder, RunFolderError

log = logging.getLogger(__name__)

FREE = ("stop.", "eval.", "checkpoint.", "engine.", "wandb", "name", "run_dir", "code")
"""Keys that may differ: they change how long a run is and what is seen of it, not what it learns."""
FREE_ANYWHERE = (".num_cpus", ".num_gpus", ".max_env_failures")
"""The same of the machine: it changes the speed, and in mode sync at most the last bits."""


Changes = dict[str, tuple[Any, Any]]


class ResumeRefused(RunFolderError):
    """A run cannot go on with another configuration; the message lists the keys that differ."""


def config_to_resume(
    folder: RunFolder,
    config: RunConfig | Mapping[str, Any] | str | os.PathLike[str] | None,
    overrides: Sequence[str],
    anyway: bool,
) -> tuple[RunConfig, Changes]:
    """What the run in ``folder`` goes on with: its own configuration, ``overrides``, or all of another one.

    Also returns what differs, for `tell_changes`. Where that is a key that changes what is learned, it is refused
    unless ``anyway``. ``name`` and ``run_dir`` stay what they are: the run keeps its folder.

    Raises: ResumeRefused, with every such key; ConfigError.
    """
    old = folder.load_config()
    if config is None:
        new = folder.load_config(overrides)
    elif isinstance(config, str | os.PathLike):
        new = load_config(config, overrides)
    else:
        new = config if isinstance(config, RunConfig) else RunConfig.from_dict(config)
    new = RunConfig.from_dict({**new.model_dump(), "name": old.name, "run_dir": old.run_dir})
    changed = differences(old, new)
    refused = {key: values for key, values in changed.items() if not _is_free(key)}
    if refused and not anyway:
        raise ResumeRefused(
            f"{folder.path} cannot go on with another configuration; these keys differ:\n{_listed(refused)}\n"
            "Leave them as they were, begin a new run, or force it with --resume-anyway (resume_anyway=True)"
        )
    return new, changed


def tell_changes(changed: Changes) -> None:
    """Log what differs from the run so far; with a warning where it changes what is learned."""
    for key, (before, after) in changed.items():
        if _is_free(key):
            log.info("%s is now %s, was %s", key, after, before)
    if refused := {key: values for key, values in changed.items() if not _is_free(key)}:
        log.warning("goes on although these keys differ:\n%s", _listed(refused))


def differences(old: RunConfig, new: RunConfig) -> Changes:
    """Old and new value by dotted key, where they differ; None for a key that one does not have."""
    before, after = (dict(flat(config.model_dump(mode="json"))) for config in (old, new))
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _is_free(key: str) -> bool:
    return key.startswith(FREE) or key.endswith(FREE_ANYWHERE)


def _listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return "\n".join(f"  {key}: was {before!r}, now {after!r}" for key, (before, after) in changed.items())

"""Numbers that are none: where they are looked for, and how what led to them is kept for whoever looks into it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlray.algos.types import Fragment, Metrics
from rlray.train.checkpoint import save_checkpoint
from rlray.train.failures import NotFiniteFound


def check_fragment(fragment: Fragment, who: str, step: int, failures: Path) -> None:
    """Raise NotFiniteFound, with the fragment saved, where a reward or an observation is infinite or not a number.

    Args:
        who: the simulator, its environment and seed, for the message.
        step: vector steps of the simulator before this fragment.
    """
    for name in ("reward", "obs", "final_obs", "last_obs"):
        array = getattr(fragment, name)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        at = np.argwhere(~np.isfinite(array))[0]
        if name == "final_obs":
            t, b = fragment.final_index[at[0]]
        else:
            t, b = (len(fragment.first), at[0]) if name == "last_obs" else at[:2]
        what = "a reward" if name == "reward" else "an observation"
        kept = keep_evidence(failures, "simulator", {"fragment": vars(fragment)})
        raise NotFiniteFound(
            f"{who} gave {what} with the number {array[tuple(at)]} in copy {b}, vector step {step + int(t)}: look into "
            f"the environment. {kept}"
        )


def not_finite_in(metrics: Metrics) -> str | None:
    """The name of a loss or gradient norm that is infinite or not a number, None if all are fine."""
    watched = (name for name in metrics if "loss" in name or "grad_norm" in name)
    return next((name for name in watched if not np.isfinite(metrics[name])), None)


def keep_evidence(failures: Path, who: str, evidence: Mapping[str, Any]) -> str:
    """Save ``evidence`` to a new folder in ``failures``; returns a sentence that says where it is."""
    path = failures / f"{who}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**9:09d}"
    try:
        save_checkpoint(path, evidence)
    except (OSError, TypeError) as error:
        return f"What led to it could not be saved: {error}"
    return (
        f"What led to it is in {path} ({', '.join(evidence)}); rlray.train.checkpoint.load_checkpoint gives it back as "
        "a dict of arrays"
    )

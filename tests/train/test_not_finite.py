"""Numbers that are none end the run, and what led to them is kept and can be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray.train.checkpoint import load_checkpoint
from rlray.train.failures import NotFiniteFound, TrainingError
from tests.train.conftest import Played
from tests.train.test_experiment import CARTPOLE

Run = Callable[..., Played]


def evidence(error: TrainingError) -> tuple[Path, dict[str, Any]]:
    """Where the message says that it is, and what is there."""
    found = re.search(
        r"What led to it is in (\S+) \(.*\); rlray.train.checkpoint.load_checkpoint gives it back", str(error)
    )
    assert found, str(error)
    return Path(found[1]), load_checkpoint(found[1])


@pytest.mark.parametrize(
    ("fail", "what"), [("reward", "a reward with the number nan"), ("obs", "an observation with the number inf")]
)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_one_of_an_environment(run: Run, tmp_path: Path, fail: str, what: str, mode: str) -> None:
    """In step 25 of every copy: the fragment of steps 20 to 29 is kept."""
    who = r"simulator \d: environment 'tests.train.toys:Corridor' \(seed \d+\) gave "
    with pytest.raises(
        NotFiniteFound, match=rf"{who}{what} in copy \d, vector step 2[456]: look into the env"
    ) as caught:
        run(mode=mode, env_settings={"fail": fail, "fail_at": 24})
    path, kept = evidence(caught.value)
    assert path.parent == tmp_path / "failures"
    fragment = kept["fragment"]
    assert fragment["obs"].shape == (10, 4, 3)
    assert fragment["sequence"] == 2
    bad = ~np.isfinite(fragment["reward"] if fail == "reward" else fragment["obs"][..., 2])
    assert not bad[:4].any()
    assert bad[6:].any()


def test_a_loss_of_any_algorithm(run: Run, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteFound, match=r"the learner, in update 6 or a few later: loss became nan") as caught:
        run(hyperparameters={"nan_at": 7})
    path, kept = evidence(caught.value)
    assert path.parent == tmp_path / "failures"
    assert kept.keys() == {"fragment", "learner"}
    assert kept["learner"]["count"] == 7
    assert "replay" not in kept["learner"]


def test_a_loss_of_dqn_with_its_batch(run: Run) -> None:
    """Rewards of 1e38 overflow in the sum over three steps."""
    config = {**CARTPOLE, "env": "tests.train.toys:Corridor", "env_settings": {"prize": 1e38}}
    with pytest.raises(NotFiniteFound, match=r"the learner, .*: dqn: the loss became \w+ .*learning_rate") as caught:
        run(**config)
    _, kept = evidence(caught.value)
    assert kept.keys() == {"batch", "fragment", "learner"}
    assert kept["batch"]["s_tm1"].shape == (64, 3)
    assert kept["batch"]["r_t"].max() > 1e37


def test_a_full_disk_does_not_hide_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("a file where the folder should be")
    with pytest.raises(NotFiniteFound, match=r"loss became nan. What led to it could not be saved: .*failures"):
        run(hyperparameters={"nan_at": 7})

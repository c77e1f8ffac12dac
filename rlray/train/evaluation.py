"""Measuring what a run has learned, from its checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlray.train import seeds
from rlray.train.checkpoint import CheckpointError, load_checkpoint
from rlray.train.checkpoint_folder import latest_checkpoint
from rlray.train.evaluator import EvalResult, Evaluator, EvaluatorSetup
from rlray.train.groups import env_spec
from rlray.train.run import resolve
from rlray.train.run_folder import RunFolder
from rlray.train.sources import AlgorithmSource


def evaluate(
    run: str | os.PathLike[str],
    episodes: int = 20,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    video: bool = False,
    explore: bool | None = None,
    env: Callable[..., Any] | None = None,
    num_cpus: int = 1,
) -> EvalResult:
    """Play episodes with the weights of a checkpoint, in this process.

    The same checkpoint, number of episodes and seed give the same result.

    Args:
        run: a run folder.
        checkpoint: one of its checkpoints, by path or by name; the newest if not given.
        seed: which episodes; none of them is one of those that the run itself was evaluated on.
        video: whether to write the first episode to the run's ``videos/``.
        explore: whether actions are sampled or random as in training, or greedy; as the run's ``eval.explore`` says if
            not given.
        env: what the run was trained on, where that was a class or callable of a script.

    Raises:
        RunFolderError, ConfigError: the run folder is none, or damaged.
        CheckpointError: there is no checkpoint, or it cannot be read.
        EnvironmentFailed: the environment raised.
    """
    folder = RunFolder.open(run)
    config, source = resolve(folder.load_config(), env)
    env_spec(config, source)  # an unknown environment is a matter of the configuration
    path = find_checkpoint(folder, checkpoint)
    saved = load_checkpoint(path, ["weights", "run"])
    algorithm = AlgorithmSource.of(config)
    sequence = seeds.sequence(config.seed, seeds.Role.SEPARATE_EVALUATION, seed)
    target = str(folder.videos / f"{path.name}-seed_{seed}.mp4") if video else None
    evaluator = Evaluator(
        EvaluatorSetup(source, algorithm, num_cpus, config.eval.explore if explore is None else explore)
    )
    steps = saved["run"]["progress"]["steps"]
    return evaluator.evaluate(saved["weights"], episodes, seeds.integer(sequence), target, steps)


def find_checkpoint(folder: RunFolder, checkpoint: str | os.PathLike[str] | None = None) -> Path:
    """The path of a checkpoint of ``folder``, given by path or name; the newest if None.

    Raises: CheckpointError where there is none yet.
    """
    if checkpoint is None:
        newest = latest_checkpoint(folder.checkpoints)
        if newest is None:
            raise CheckpointError(f"{folder.path} has no checkpoint yet; let the run reach its first one")
        return newest
    path = Path(checkpoint)
    return path if path.exists() else folder.checkpoints / path

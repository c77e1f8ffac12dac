"""What training raises. Each message stands alone: it says what broke, where, and what to do.

TrainingError (RuntimeError)
├── EnvironmentFailed    the environment raised in its constructor, reset, step or render
├── SimulatorFailed      a simulator died again and again without delivering anything
├── LearnerFailed        the learner raised, or died again and again
│   └── LearnerDied      it died; caught where the run can go on from a checkpoint
│       └── ReplayDied   its replay died, an actor of its own: the same
├── EvaluatorFailed      the evaluator died again and again, or raised
├── NotFiniteFound       a loss, a reward or an observation is infinite or not a number
├── NoRoom               on a cluster: for long there was no room for any simulator, or for the learner
└── ResourcesTooSmall    the actors asked for do not fit on this machine
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlray.envs.errors import EnvError
from rlray.exceptions import RayTaskError

_PACKAGE = str(Path(__file__).resolve().parents[1])


class TrainingError(RuntimeError):
    """Something stopped the run."""


class EnvironmentFailed(TrainingError):
    """The environment raised. ``user_traceback`` is the text of its own traceback, frames of rlray left out."""

    def __init__(self, message: str, user_traceback: str) -> None:
        super().__init__(message)
        self.user_traceback = user_traceback

    @classmethod
    def during(cls, doing: str, env_id: str, who: str, seed: int, step: int, error: BaseException) -> EnvironmentFailed:
        """The failure of ``env_id`` while ``doing``; raise it ``from error``."""
        if isinstance(error, EnvError):  # says all but who it was; its cause is what the environment raised
            return cls(f"{who}: {error}", _own_traceback(error.__cause__ or error))
        message = (
            f"{who}: environment {env_id!r} raised {type(error).__name__} in {doing} "
            f"(seed {seed}, at vector step {step}): {error}"
        )
        return cls(message, _own_traceback(error))

    def __reduce__(self) -> tuple[Any, ...]:
        return EnvironmentFailed, (str(self), self.user_traceback)


class SimulatorFailed(TrainingError):
    """A simulator cannot be kept alive, or its policy raised."""


class LearnerFailed(TrainingError):
    """The learner is gone, and what it had learned since the last checkpoint with it."""


class LearnerDied(LearnerFailed):
    """The learner's process is gone."""


class ReplayDied(LearnerDied):
    """The process of the learner's replay is gone; the learner goes on only together with a fresh one."""


class NotFiniteFound(TrainingError):
    """A number is none. What led to it has been saved; the message says where, and how to load it."""


class EvaluatorFailed(TrainingError):
    """The evaluator cannot be kept alive, or its policy raised."""


class NoRoom(TrainingError):
    """For long the cluster had no room for any simulator, or for the learner."""


class ResourcesTooSmall(TrainingError, ValueError):
    """The machine can never hold the actors that the configuration asks for."""


def translated(error: RayTaskError, kind: Callable[[str], TrainingError], who: str, more: str = "") -> TrainingError:
    """What an actor's call raised, as an error of ours: one of ours as it is, any other as ``kind``."""
    cause = error.cause
    if isinstance(cause, EnvironmentFailed):
        return EnvironmentFailed(str(cause), cause.user_traceback)
    if isinstance(cause, TrainingError):
        return type(cause)(str(cause))
    return kind(f"{who} raised {type(cause).__name__}: {cause}{more}")


def _own_traceback(error: BaseException) -> str:
    """The traceback of ``error`` from the first frame outside rlray on; the whole of it if there is none."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb or error.__traceback__)).rstrip()

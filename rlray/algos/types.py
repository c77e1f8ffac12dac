"""What flows between simulators, learner and evaluator, and what an algorithm must provide.

An algorithm is one folder that exposes ``ALGORITHM``, an `Algorithm`: its settings, its policy (what simulators
run) and its learner (what turns fragments into better weights). Nothing here knows about actors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from rlray.envs.types import EnvSpec

Weights = Mapping[str, NDArray[Any]]
"""A network's state by parameter name. Arrays may be read-only views of shared memory."""

Metrics = dict[str, float]

PRIORITY = "priority"
"""The extra [T, B] by which a prioritised replay ranks the transition that begins at a step; NaN: not known."""


@dataclass
class Fragment:
    """``T`` consecutive steps of the ``B`` environments of one simulator.

    ``obs[t]`` is what action ``action[t]`` was chosen on. For stacked frames only the newest frame of each
    observation is kept (`EnvSpec.frame_shape`). Consecutive fragments of one ``stream`` follow each other without a
    gap: the observation after the last step is ``obs[0]`` of the fragment with ``sequence + 1``.
    """

    stream: int  # which simulator life this is: a restarted simulator gets a new number
    sequence: int  # 0, 1, 2, ... within the stream
    obs: NDArray[Any]  # [T, B, *frame_shape]
    first: NDArray[np.bool_]  # [T, B] obs[t] is the first of an episode
    action: NDArray[Any]  # [T, B, ...]
    reward: NDArray[np.float32]  # [T, B] raw
    terminated: NDArray[np.bool_]  # [T, B]
    truncated: NDArray[np.bool_]  # [T, B]
    valid: NDArray[np.bool_]  # [T, B] False: a dummy reset step, not to be trained on
    final_index: NDArray[np.int64]  # [K, 2] (t, b) of ended episodes, sorted by t then b
    final_obs: NDArray[Any]  # [K, *frame_shape] their true last observation (newest frame)
    last_obs: NDArray[Any]  # [B, *observation_shape] the whole observation after the last step, for bootstrapping
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)  # [T, B, ...] what the policy wants kept

    @property
    def steps(self) -> int:
        """Agent steps in it, dummy reset steps not counted."""
        return int(self.valid.sum())


@dataclass
class Outcomes:
    """What became of some of a round's trials: ``N`` policies that played ``E`` whole episodes each."""

    round: int
    trial: NDArray[np.int64]  # [N] their numbers within the round, ascending
    returns: NDArray[np.float64]  # [N, E] raw
    lengths: NDArray[np.int64]  # [N, E] agent steps
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)  # [N, ...] what the algorithm wants kept

    @property
    def steps(self) -> int:
        """Agent steps in it."""
        return int(self.lengths.sum())


class Policy(Protocol):
    """What a simulator or evaluator runs: a copy of the network on the CPU, and a way to choose actions."""

    def load(self, weights: Weights) -> None:
        """Take new weights; they are copied, names and shapes must match exactly."""

    def act(
        self, obs: NDArray[Any], step: int, rng: np.random.Generator
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Exploring actions [B, ...] for ``obs`` [B, ...], and the extras [B, ...] that the fragment shall keep.

        ``step`` is the run's global count of agent steps, for schedules such as epsilon.
        """

    def act_greedy(self, obs: NDArray[Any]) -> NDArray[Any]:
        """The policy's best actions [B, ...], for evaluation."""


@runtime_checkable
class StatefulPolicy(Protocol):
    """What a policy that remembers something between two calls of ``act`` offers besides."""

    def state(self) -> dict[str, Any]:
        """What it remembers, but not its weights: as `Learner.state`."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`; the weights are loaded after it."""


@runtime_checkable
class RecurrentPolicy(Protocol):
    """What a policy that remembers what it saw of an episode offers besides; it is a `StatefulPolicy`, too."""

    def begin(self, first: NDArray[np.bool_]) -> None:
        """Told before each ``act`` and ``act_greedy`` where, [B], an episode begins: forget the one before it.

        All calls are about the same ``B`` environments. ``first`` may be overwritten later.
        """


@dataclass(frozen=True)
class Place:
    """Which environments of a run a policy acts in: ``envs`` of them, from number ``first`` on, out of ``total``."""

    first: int  # counted over all simulators of the run, from 0
    envs: int  # B
    total: int


@runtime_checkable
class PlacedPolicy(Protocol):
    """What a policy that acts differently in each environment of a run offers besides."""

    def place(self, place: Place) -> None:
        """Told once, before the first ``act``, in a simulator; never in an evaluator."""


@runtime_checkable
class CompletingPolicy(Protocol):
    """What a policy whose extras depend on what came after its actions offers besides."""

    def complete(self, fragment: Fragment) -> None:
        """Change ``fragment.extras`` of a fragment that has just been played to its end."""


class NotFinite(FloatingPointError):
    """A loss became infinite or not a number. ``batch`` is what led to it: nested dicts of arrays, to be saved."""

    def __init__(self, message: str, batch: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.batch = dict(batch or {})


class Cast(Protocol):
    """Policies that play beside each other in one task, one in each of its slots. Made for one task."""

    def assign(self, slot: int, trial: int, rng: np.random.Generator) -> None:
        """Let ``slot`` play the policy of ``trial`` from now on; the one it had before is through.

        All trials of one group get the same ``rng``, each a copy of its own: it is all that may be random in them.
        """

    def act(self, obs: NDArray[Any], slots: NDArray[np.int64]) -> NDArray[Any]:
        """Actions [K, ...] for ``obs`` [K, ...] of those ``slots`` [K], ascending."""

    def extras(self) -> dict[str, NDArray[Any]]:
        """What `Outcomes.extras` shall hold: arrays [N, ...], in the order of the trials. Called once, at the end."""


class Trials(Protocol):
    """What an algorithm offers that learns from whole episodes: its rounds are played by tasks, not by simulators.

    A round is `count` trials; each is one policy that plays `episodes` episodes. What a trial comes to follows from
    its round, its number and the weights alone, wherever and beside which others it is played.
    """

    count: int
    """Trials of a round."""
    group: int
    """So many trials in a row play the same episodes, in one task; `count` is a multiple of it."""
    episodes: int
    """Episodes of each trial."""
    same_episodes: bool
    """Whether all groups of a round play the same episodes."""
    max_steps: int | None
    """Agent steps after which an episode is cut off."""

    def shared(self, rng: np.random.Generator) -> NDArray[Any] | None:
        """What all tasks and the learner read: made once, by a task, and kept in shared memory."""

    def cast(self, weights: Weights, shared: Any, slots: int) -> Cast:
        """For one task, with ``slots`` slots."""


class Lasting(Protocol):
    """What all learners have in common: weights for policies, and a state that survives."""

    def weights(self) -> Weights:
        """A copy of the weights that policies should run with."""

    def state(self) -> dict[str, Any]:
        """All that must survive: nested dicts of numpy arrays, torch tensors, numbers, strings, bools, None, lists.

        Random numbers included, but for torch's own generator, which the caller keeps. Large arrays are views, not
        copies: the state is used before the next call. What a replay holds stands under the key ``"replay"``.
        """

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`: learning goes on as if it had never stopped. ``state`` is copied.

        The key ``"replay"`` may be missing, where checkpoints are made without: the replay then fills anew.
        """


class Learner(Lasting, Protocol):
    """Turns what was played into better weights. Owns network, optimiser, replay and schedules."""

    def learn(self, played: Any, /) -> Metrics:
        """Take in ``played``, do the updates that are due, and say what happened.

        It is a `Fragment`, or `Outcomes` where the algorithm has `Trials`.

        Always in the result: ``updates`` (gradient steps done by this call). Others by the fixed tags of
        `docs/metrics.md`, such as ``loss``, ``q_mean``, ``replay_fill`` (0 to 1), ``epsilon``, ``lr``.

        Raises: NotFinite where a loss became infinite or not a number.
        """


@runtime_checkable
class GradientLearner(Protocol):
    """What a learner that can show its gradients offers besides, for histograms of them."""

    def gradients(self) -> Weights:
        """Copies of the last update's, by name, as they were applied; without an update yet there may be none.

        It is called only where they are to be shown.
        """


class DrawnLearner(Lasting, Protocol):
    """A learner without a replay of its own: it is given what a `Replay` has drawn. Owns network and optimiser."""

    def learn_drawn(self, drawn: Any) -> tuple[Metrics, Any]:
        """Do the updates that ``drawn`` (what `Replay.draw` gave, its arrays read-only) is for.

        Returns metrics as `Learner.learn`, and what `Replay.take_back` shall get.

        Raises: NotFinite where a loss became infinite or not a number.
        """


class Replay(Protocol):
    """Keeps what fragments held and draws what a `DrawnLearner` learns from, in an actor of its own.

    What is drawn and what comes back travel between processes; large arrays in them are not copied on the way.
    """

    most: int
    """Updates that one call of `draw` is asked for at most: what is drawn together is drawn by the same priorities."""

    def add(self, fragment: Fragment) -> tuple[int | None, Metrics]:
        """Take in ``fragment``.

        Returns the updates that it makes due, None for as many as the learner can do from now on, and metrics.
        """

    def draw(self, updates: int) -> Any:
        """What ``updates`` gradient steps shall learn from."""

    def take_back(self, returned: Any) -> None:
        """What `DrawnLearner.learn_drawn` returned, such as new priorities; some of it may be held no longer."""

    def state(self) -> dict[str, Any]:
        """As `Lasting.state`: what it holds lies under the key ``"replay"``, all the rest beside it."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo `state`; the key ``"replay"`` may be missing. ``state`` is copied."""


@dataclass(frozen=True)
class LearnerContext:
    """Where and how a learner runs."""

    device: str  # "cpu" or "cuda"
    seed: int
    total_steps: int  # agent steps the run is planned for: what schedules end at
    shared: Any = None  # what `Trials.shared` gave, read-only


@dataclass(frozen=True)
class Held:
    """Memory that a learner takes when it is full, because a setting says so."""

    what: str  # such as "replay"
    bytes: int
    setting: str  # the name of the setting
    value: int  # its value, to which ``bytes`` are in proportion


@dataclass(frozen=True)
class Algorithm:
    """One algorithm: its settings, and how to make its two halves from a spec and settings.

    With ``make_replay`` fragments go to a replay in an actor of its own, and the learner is a `DrawnLearner`.
    """

    name: str
    config: type[BaseModel]
    make_policy: Callable[[EnvSpec, Any], Policy]
    make_learner: Callable[[EnvSpec, Any, LearnerContext], Learner | DrawnLearner]
    make_trials: Callable[[EnvSpec, Any], Trials] | None = None
    """For algorithms that learn from whole episodes; without it simulators play fragments."""
    make_replay: Callable[[EnvSpec, Any, LearnerContext], Replay] | None = None
    """For a replay in an actor of its own, to which fragments go; the learner is a `DrawnLearner` then."""
    memory: Callable[[EnvSpec, Any], Sequence[Held]] | None = None
    """What the learner will hold, from a spec and settings, found without torch; for those that hold much."""

    def __post_init__(self) -> None:
        if not (isinstance(self.config, type) and issubclass(self.config, BaseModel)):
            raise TypeError(
                f"the config of algorithm {self.name!r} must be a class of settings (derive it from "
                f"rlray.algos.Settings), got {self.config!r}"
            )

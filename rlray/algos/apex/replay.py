"""The replay of Ape-X: takes fragments in, says how many updates are due, and draws their batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlray.algos.apex.config import ApexConfig
from rlray.algos.apex.drawn import Drawn, Returned
from rlray.algos.replay import Batch, NStepReplay, Priorities
from rlray.algos.types import Fragment, LearnerContext, Metrics
from rlray.envs.types import EnvSpec

FRAMES_FOR_NORM = 5_000


class ApexReplay:
    """Draws n-step transitions by priority.

    Guarantees: the same spec, settings, context and calls draw the same batches, bit for bit; so does going on from a
    saved state. After warm-up ``samples_per_step`` transitions are due for every agent step taken in, whatever the
    sizes of fragments.
    """

    def __init__(self, spec: EnvSpec, config: ApexConfig, context: LearnerContext) -> None:
        self._config, self._total_steps = config, context.total_steps
        self.most = config.batches_per_draw
        self._held = NStepReplay(
            spec,
            config.replay_capacity,
            config.n_step,
            config.discount,
            clip_reward=config.clip_reward,
            priorities=Priorities(config.priority_alpha, config.priority_floor),
        )
        self._rng = np.random.default_rng(context.seed)
        self._steps = 0  # agent steps taken in
        self._owed = 0.0  # transitions due that do not fill a batch yet
        self._measured = False  # whether frames were handed out for the input's normalisation

    def add(self, fragment: Fragment) -> tuple[int | None, Metrics]:
        """Put ``fragment`` in; returns the updates that it makes due, and ``replay_fill`` and ``replay_beta``."""
        config = self._config
        self._held.add(fragment)
        self._steps += fragment.steps
        metrics = {"replay_fill": self._held.fill, "replay_beta": self._beta()}
        if len(self._held) < config.warmup_steps or not self._held.eligible:
            return 0, metrics
        if config.samples_per_step is None:
            return None, metrics
        self._owed += fragment.steps * config.samples_per_step
        due = int(self._owed // config.batch_size)
        self._owed -= due * config.batch_size
        return due, metrics

    def draw(self, updates: int) -> Drawn:
        """``updates`` batches, one after the other. Raises: ValueError where nothing complete is held yet."""
        size, beta = self._config.batch_size, self._beta()
        one = self._held.make_batch(size)
        batches = Batch(**{name: np.empty((updates, *a.shape), a.dtype) for name, a in vars(one).items()})
        for k in range(updates):
            self._held.sample(size, self._rng, Batch(**{name: a[k] for name, a in vars(batches).items()}), beta)
        frames = None if self._measured else self._held.frames(FRAMES_FOR_NORM)
        self._measured = True
        return Drawn(batches, self._steps, beta, frames)

    def take_back(self, returned: Returned) -> None:
        """New priorities; where a transition was drawn more than once, the last one holds."""
        self._held.update(returned.index.reshape(-1), returned.priority.reshape(-1))

    def state(self) -> dict[str, Any]:
        """All that drawing goes on from; what is held, by far the largest part, lies under ``replay``."""
        return {
            "rng": self._rng.bit_generator.state,
            "steps": self._steps,
            "owed": self._owed,
            "measured": self._measured,
            "replay": self._held.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, which is copied. Without ``replay`` in it, it fills to the warm-up again.

        Raises: ValueError: what it holds was made with other settings.
        """
        if "replay" in state:
            self._held.load_state(state["replay"])
        self._rng.bit_generator.state = state["rng"]
        self._steps, self._owed, self._measured = state["steps"], state["owed"], state["measured"]

    def _beta(self) -> float:
        return self._config.priority_beta.at(self._steps, self._total_steps)

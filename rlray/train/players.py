"""Who plays, seen from the driver: simulators (`Fleet`) or tasks (`TaskFleet`), each with one rollout at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

from rlray import ObjectRef
from rlray.train.simulator import RolloutStats


@dataclass
class Rollout:
    """Something asked for: two references, of which the driver only ever reads the small one."""

    number: int
    played: ObjectRef  # a `Fragment` or `Outcomes`
    stats: ObjectRef
    withdrawn: bool = False  # it shall not be learned from


class Players(Protocol):
    """``len(players)`` places, each with at most one rollout under way, once `begin` was called.

    On a cluster some may be absent: they cannot play before there is room for them, and nobody waits for them.
    """

    @property
    def shared(self) -> ObjectRef | None:
        """What the learner, too, shall read; None where there is no such thing."""

    @property
    def playing(self) -> bool:
        """Whether `begin` or `restore` was called, and `close` was not after it."""

    def __len__(self) -> int: ...

    def steps_of(self, number: int) -> int:
        """Agent steps of a rollout of place ``number``, as far as that is known before it is played."""

    def begin(self) -> None:
        """Get ready, from the beginning."""

    def idle(self) -> list[int]:
        """Places without a rollout under way that are not absent, the one that was asked longest ago first."""

    def absent(self) -> Collection[int]:
        """Places that there is no room for at present."""

    @property
    def gathering(self) -> bool:
        """Whether a round should wait for those that are absent."""

    def seeking(self) -> Iterator[ObjectRef]:
        """References that are ready when there is room for one that is absent."""

    def look_around(self, ready: Set[ObjectRef]) -> None:
        """Count in those that have found room, and say who finds none.

        Raises: NoRoom where that are all of them, for long.
        """

    def rollouts(self) -> Iterator[Rollout]:
        """The rollouts under way, in the order of the places."""

    def launch(self, number: int, weights: ObjectRef, version: int, step: int) -> None:
        """Ask for the next rollout of place ``number``, with ``weights`` of that ``version``.

        Args:
            step: the run's agent steps so far, for the policies' schedules.
        """

    def collect(self, rollout: Rollout) -> RolloutStats | None:
        """The stats of a rollout that is ready; None if it is not to be learned from.

        Raises: EnvironmentFailed where environments raised too often; SimulatorFailed where anything else raised, or
        where whoever plays keeps dying; ObjectLostError where a node of a cluster took along what it was asked or has
        answered, which is then to be asked again.
        """

    def snapshot(self, steps: int) -> list[ObjectRef | None]:
        """References to what must be kept of each place, none of which may be playing; empty where that is nothing."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs besides that."""

    def restore(
        self,
        state: Mapping[str, Any] | None,
        checkpoint: str | None,
        saved: Collection[int],
        steps: int,
        new_lives: bool,
    ) -> None:
        """Go on from ``state``, or begin anew where it is None; rollouts under way are forgotten.

        Args:
            checkpoint: from which it is.
            saved: the places of which it holds what `snapshot` gave.
            steps: the run's, when it was made.
            new_lives: whether the others begin a life that they had not begun then, with seeds of their own.
        """

    def go_on(self) -> None:
        """Nothing played so far will be learned from any more: withdraw it."""

    def close(self) -> None:
        """End everything at once."""

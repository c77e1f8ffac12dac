"""Tasks that wait for their turn, and may be cancelled meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from rlray.core.local.tasks import Task


class Line(deque[Task]):
    """Tasks in the order in which they go.

    One in the middle is taken out without a search: its place stays, empty, until it comes to the front or half of the
    places are empty. So what cancelling costs does not grow with the length. As a deque it has the empty places too.
    """

    empty = 0  # places

    @property
    def length(self) -> int:
        """How many tasks wait."""
        return len(self) - self.empty

    def tasks(self) -> Iterator[Task]:
        """Those that wait, in order."""
        return (task for task in self if not task.cancelled)

    def first(self) -> Task | None:
        """The one whose turn it is; the empty places before it are gone afterwards."""
        while self:
            if not self[0].cancelled:
                return self[0]
            self.skip()
        return None

    def skip(self) -> None:
        """Do away with the empty place at the front."""
        self.popleft()
        self.empty -= 1

    def take_out(self, task: Task) -> None:
        """A task that waits is to wait no more: it is cancelled."""
        task.cancelled = True
        self.empty += 1
        if 2 * self.empty > len(self):
            left = list(self.tasks())
            self.clear()
            self.extend(left)
            self.empty = 0

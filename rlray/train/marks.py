"""When something is due: every so many steps."""

from __future__ import annotations


class Marks:
    """The multiples of ``every`` steps; ``every=None`` has none."""

    def __init__(self, every: int | None) -> None:
        self._every = every
        self._next = every

    def reached(self, steps: int) -> bool:
        """Whether ``steps`` reached a mark that was not passed yet."""
        return self._every is not None and self._next is not None and steps >= self._next

    def passed(self, steps: int) -> bool:
        """Whether ``steps`` reached a mark that was not reported yet; several at once count as one."""
        if not self.reached(steps):
            return False
        assert self._every is not None
        self._next = (steps // self._every + 1) * self._every
        return True

    @property
    def next(self) -> int | None:
        """The mark to come; None where there is none."""
        return self._next

    def resume(self, steps: int, saved: int | None) -> None:
        """Go on after ``steps``, where ``saved`` was the mark to come; with another ``every`` it is one of those."""
        if self._every is None:
            self._next = None
        elif saved is not None and saved % self._every == 0:
            self._next = saved
        else:
            self._next = (steps // self._every + 1) * self._every

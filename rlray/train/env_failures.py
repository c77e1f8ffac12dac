"""Environments that raise: how often a run survives that, and what it says each time."""

from __future__ import annotations

import logging

from rlray.train.failures import EnvironmentFailed

log = logging.getLogger(__name__)


class EnvFailures:
    """Counts what environments of one run have raised, over all its simulators and evaluations."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.count = 0

    def survived(self, error: EnvironmentFailed, consequence: str) -> None:
        """Log ``error`` whole, with ``consequence``.

        Raises: ``error`` itself where there have been more than the limit.
        """
        self.count += 1
        if self.count > self._limit:
            if self._limit:
                failures = f"{self.count} failures of environments, simulators.max_env_failures is {self._limit}"
                raise EnvironmentFailed(f"{error} ({failures})", error.user_traceback) from error
            raise error
        log.warning(
            "%s; %s (failure %d, simulators.max_env_failures is %d). Its own traceback:\n%s",
            *(error, consequence, self.count, self._limit, error.user_traceback),
        )

"""Environments that raise: how often a run survives that, and what it says each time."""

from __future__ import annotations

import logging

from rlray.train.failures import EnvironmentFailed

log = logging.getLogger(__name__)


class EnvFailures:
    """Counts what the environments of one group have raised, over all its simulators.

    Args:
        limit: how often that is survived.
        key: where the configuration says so.
    """

    def __init__(self, limit: int, key: str = "simulators.max_env_failures") -> None:
        self._limit, self._key = limit, key
        self.count = 0

    def survived(self, error: EnvironmentFailed, consequence: str) -> None:
        """Log ``error`` whole, with ``consequence``.

        Raises: ``error`` itself where there have been more than the limit.
        """
        self.count += 1
        if self.count > self._limit:
            if self._limit:
                failures = f"{self.count} failures of environments, {self._key} is {self._limit}"
                raise EnvironmentFailed(f"{error} ({failures})", error.user_traceback) from error
            raise error
        log.warning(
            "%s; %s (failure %d, %s is %d). Its own traceback:\n%s",
            *(error, consequence, self.count, self._key, self._limit, error.user_traceback),
        )

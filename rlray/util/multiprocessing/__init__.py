"""``multiprocessing.Pool`` on actors: ``from rlray.util.multiprocessing import Pool``."""

from multiprocessing import TimeoutError as TimeoutError

from rlray.util.multiprocessing.pool import Pool as Pool

__all__ = ["Pool", "TimeoutError"]

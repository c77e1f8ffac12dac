"""A joblib backend on rlray: ``register_rlray()``, then ``with joblib.parallel_backend("rlray"): ...``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rlray.util.multiprocessing.pool import Pool, process_count

try:
    import joblib
    from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend
except ImportError as missing:
    raise ImportError("rlray.util.joblib needs joblib: pip install joblib") from missing

if TYPE_CHECKING:
    from rlray.util.multiprocessing.results import AsyncResult


def register_rlray() -> None:
    """Make the backends "rlray" and "ray" known to joblib; they are the same."""
    for name in ("rlray", "ray"):
        joblib.register_parallel_backend(name, RlrayBackend)


register_ray = register_rlray  # Ray's name


class RlrayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches in a `Pool` of rlray: one for each call of ``Parallel``, or for each ``with Parallel()``.

    ``parallel_backend("rlray", ray_remote_args={"num_cpus": 1})`` gives the pool's actors options. ``n_jobs=-1`` means
    as many processes as the runtime has CPUs; the runtime is started if it is not up.
    """

    supports_retrieve_callback = True

    def __init__(self, ray_remote_args: Mapping[str, Any] | None = None, **joblib_settings: Any) -> None:
        super().__init__(**joblib_settings)
        self._remote_args = ray_remote_args
        self._pool: Pool | None = None

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **_: Any) -> int:
        """Start the processes; returns how many."""
        processes = self.effective_n_jobs(n_jobs)
        if processes == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._pool = Pool(processes, ray_remote_args=self._remote_args)
        return processes

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many processes ``n_jobs`` means: None is 1, -1 all CPUs of the runtime, -2 all but one."""
        if n_jobs == 0:
            raise ValueError("n_jobs must not be 0: use 1 for no parallelism, -1 for all CPUs")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        return max(1, process_count(self._remote_args) + 1 + n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any]) -> AsyncResult:
        """Run a batch; ``callback`` gets (whether it succeeded, its results or the error)."""
        assert self._pool is not None
        return self._pool.apply_async(
            func,
            callback=lambda value: callback((True, value)),
            error_callback=lambda error: callback((False, error)),
        )

    def retrieve_result_callback(self, out: tuple[bool, Any]) -> Any:
        """What `submit` has given to its callback: the results. Raises the error."""
        succeeded, value = out
        if not succeeded:
            raise value
        return value

    def terminate(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the processes in the middle of their work, and start others if more is to come."""
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

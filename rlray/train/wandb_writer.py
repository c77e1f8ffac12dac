"""Metrics to Weights & Biases, for runs that ask for it; the package is imported only then."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType, TracebackType

from rlray.config import RunConfig, WandbConfig
from rlray.train.run_folder import RunFolder


class WandbWriter:
    """Sends the records of a run, under the id of its folder, so that a resume goes on there. A context manager.

    The x axis of every tag is ``steps``, the run's agent steps. What a resumed run withdraws from its files stays there
    and is sent once more.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, wanted: WandbConfig) -> None:
        wandb = need_wandb()
        self._run = wandb.init(
            project=wanted.project,
            entity=wanted.entity,
            mode=wanted.mode,
            id=folder.path.name,
            name=folder.path.name,
            group=config.name,
            resume="allow",
            dir=str(folder.path),
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(console="off"),  # it would stand between the display and the terminal
        )
        self._run.define_metric("steps")
        self._run.define_metric("*", step_metric="steps")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Report ``values`` by tag for the moment after ``step`` agent steps."""
        if values:
            self._run.log({"steps": step, **values})

    def __enter__(self) -> WandbWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)


def need_wandb() -> ModuleType:
    """The package. Raises: ImportError where it is missing, with the pip line."""
    try:
        import wandb
    except ImportError as error:
        raise ImportError("the key 'wandb' needs Weights & Biases; install it with: pip install wandb") from error
    module: ModuleType = wandb
    return module

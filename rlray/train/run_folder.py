"""The folder that holds everything of one run."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlray.config import RunConfig, dump_config, load_config


class RunFolderError(ValueError):
    """A path was given as a run folder, and is none or not a whole one."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what. Made by `create` or `open`, so that all of it exists.

    ``config.yaml`` is the resolved configuration, ``events/`` is for TensorBoard, ``metrics.csv`` has the same
    numbers as a table, ``checkpoints/``, ``logs/`` and ``videos/`` are what they are called. ``failures/`` is there
    once something went wrong that is worth looking into.
    """

    path: Path

    @classmethod
    def create(cls, config: RunConfig) -> RunFolder:
        """A new folder ``<run_dir>/<name>-<date>-<time>-<four characters>/``, which no other run has or gets."""
        parent = Path(config.run_dir).expanduser()
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            path = parent / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            try:
                path.mkdir()
            except FileExistsError:
                continue  # another run took this name in the same second
            break
        folder = cls(path)
        for part in folder._folders():
            part.mkdir()
        folder._write_config(config)
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run folder at ``path``. Empty folders that a copy has lost are made anew.

        Raises:
            RunFolderError: there is none, or it lacks what nothing can replace; the message lists what is missing.
        """
        folder = cls(Path(path).expanduser())
        if not folder.path.is_dir():
            raise RunFolderError(f"no run folder at {folder.path}: {_runs_in(folder.path.parent)}")
        needed = (folder.config_file, folder.checkpoints)
        if missing := [f"{part.name}{'' if part.suffix else '/'}" for part in needed if not part.exists()]:
            raise RunFolderError(
                f"{folder.path} is no run folder, it lacks {', '.join(missing)}: {_runs_in(folder.path)}"
            )
        for part in folder._folders():
            part.mkdir(exist_ok=True)
        return folder

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        """For TensorBoard."""
        return self.path / "events"

    @property
    def metrics_file(self) -> Path:
        """Every metric as a table; see `rlray.train.metrics`."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """For `rlray.train.checkpoint`."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.path / "logs"

    @property
    def videos(self) -> Path:
        """Episodes as mp4."""
        return self.path / "videos"

    def load_config(self, overrides: Sequence[str] = ()) -> RunConfig:
        """The run's configuration, with ``overrides`` as in `rlray.config.load_config`."""
        return load_config(self.config_file, overrides)

    def replace_config(self, config: RunConfig) -> None:
        """From now on the run goes by ``config``; where it differs, the file before stays as ``config-<n>.yaml``."""
        if dump_config(config) == self.config_file.read_text(encoding="utf-8"):
            return
        number = 1
        while (kept := self.path / f"config-{number}.yaml").exists():
            number += 1
        kept.write_bytes(self.config_file.read_bytes())
        self._write_config(config)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Within the block no other process gets the lock of this run. The kernel takes it back from a dead one.

        Raises: RunFolderError where another process has it.
        """
        with (self.path / ".lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(f"{self.path} is being trained by another process; end that one first") from None
            yield

    def _write_config(self, config: RunConfig) -> None:
        """In one piece: a kill leaves the old file or the new one."""
        draft = self.path / ".config.yaml.tmp"
        draft.write_text(dump_config(config), encoding="utf-8")
        draft.replace(self.config_file)

    def _folders(self) -> tuple[Path, ...]:
        return self.events, self.checkpoints, self.logs, self.videos


def _runs_in(parent: Path) -> str:
    """What to open instead."""
    configs = [file for file in parent.glob("*/config.yaml") if file.is_file()]
    newest = sorted(configs, key=lambda file: file.stat().st_mtime, reverse=True)[:3]
    if not newest:
        return "give the folder that a training run printed when it began"
    return f"the newest runs there are {', '.join(str(file.parent) for file in newest)}"

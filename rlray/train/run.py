"""A run from configuration to result: run folder, runtime, experiment, metrics, console."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rlray
from rlray.algos import get_algorithm
from rlray.config import RunConfig, load_config
from rlray.core.resources import count_cpus, count_gpus
from rlray.envs import EnvError
from rlray.train import seats
from rlray.train.checkpoint_folder import checkpoint_to_resume
from rlray.train.console import Console
from rlray.train.evaluator import EvalResult
from rlray.train.experiment import Experiment
from rlray.train.groups import spec_of
from rlray.train.interrupts import leave_cleanly
from rlray.train.memory import check, free_memory, parts_of
from rlray.train.metrics import MetricsWriter
from rlray.train.plan import Plan, make_plan, make_task_plan
from rlray.train.resuming import Changes, config_to_resume, tell_changes
from rlray.train.run_folder import RunFolder
from rlray.train.sources import EnvSource, name_of
from rlray.train.video import need_ffmpeg
from rlray.train.wandb_writer import WandbWriter, need_wandb

log = logging.getLogger("rlray.train")


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    run_dir: str
    steps: int  # agent steps learned from
    episodes: int
    updates: int
    seconds: float
    stopped_by: str  # "steps", "minutes", "eval_return", "train_return" or "interrupted"
    checkpoint: str | None
    evaluation: EvalResult | None  # the last one; after a run that was not interrupted, the final one


class RunInterrupted(KeyboardInterrupt):
    """The run was interrupted, and left cleanly: ``result`` says how far it came and where its checkpoint is."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"interrupted at step {result.steps:,}; checkpoint: {result.checkpoint}")
        self.result = result


def train(
    config: RunConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    env: str | Callable[..., Any] | None = None,
    overrides: Sequence[str] = (),
    resume: str | os.PathLike[str] | None = None,
    resume_anyway: bool = False,
) -> Result:
    """Train, and write all of it to a new run folder, or go on with a run in its folder.

    A runtime that is already initialised is used and left running; else one is started for the run and shut down
    after it, whatever happens.

    Args:
        config: a path, the name of a file in ``configs/``, the same as nested dicts, or a checked configuration.
        env: an environment instead of the configuration's: an id, or a class or callable that makes one, also one
            defined in the calling script. ``env_settings`` are its keyword arguments.
        overrides: ``"stop.steps=1e5"`` and the like, for a configuration from a file or that of the run to go on with.
        resume: the folder of a run to go on with, from its newest good checkpoint, or from the beginning where it has
            none. Without ``config`` it keeps its own, and ``overrides`` may change what `rlray.train.resuming` lists.
        resume_anyway: go on even where other keys differ.

    Raises:
        FileNotFoundError, ConfigError, ResourcesTooSmall, RunFolderError, CheckpointError: before anything has started
            or been written.
        TrainingError: what stopped the run; see `rlray.train.failures`.
        RunInterrupted: after the first Ctrl-C, when everything has been saved.
    """
    with ExitStack() as stack:
        changed: Changes = {}
        if resume is not None:
            folder = RunFolder.open(resume)
            stack.enter_context(folder.lock())
            wanted, changed = config_to_resume(folder, config, overrides, resume_anyway)
            checked, source = resolve(wanted, env)
        elif config is None:
            raise TypeError("train needs a configuration, or resume=FOLDER of a run to go on with")
        else:
            checked, source = resolve(config, env, overrides)
        spec = spec_of(checked, source)
        if checked.engine.kind == "ray":
            # First, since it alone knows what it has.
            stack.enter_context(_runtime(checked, engine="ray", address=checked.engine.address))
        plan = plan_for(checked)
        memory = check(checked, parts_of(checked, spec, plan), free_memory())
        if checked.eval.video:
            check_video(checked, source)
        if checked.wandb is not None:
            need_wandb()
        if resume is None:
            folder = RunFolder.create(checked)
            stack.enter_context(folder.lock())
        console = stack.enter_context(Console(checked, frame_skip=source.frame_skip))
        stack.enter_context(_log_lines(folder, console))
        log.info("run folder %s; watch it with: tensorboard --logdir %s", folder.path, folder.events)
        log.info("%s", plan)
        log.info("%s", memory)
        checkpoint = None if resume is None else _going_on(folder, checked, changed)
        stack.enter_context(_runtime(checked, preload=("torch", "gymnasium"), log_dir=str(folder.logs)))
        writer = stack.enter_context(MetricsWriter(folder, checked, resume=resume is not None))
        wandb = None if checked.wandb is None else stack.enter_context(WandbWriter(folder, checked, checked.wandb))
        if resume is not None and checkpoint is None:
            writer.rewind(None, 0)
        experiment = stack.enter_context(
            Experiment(checked, source, spec, plan, folder.checkpoints, records=writer, resume=checkpoint)
        )
        with leave_cleanly(experiment.stop):
            for metrics in experiment:
                step = int(metrics.pop("steps"))
                writer.write(step, metrics)
                if wandb is not None:
                    wandb.write(step, metrics)
                if "eval/return_mean" in metrics and experiment.last_evaluation is not None:
                    writer.write_evaluation(step, experiment.last_evaluation)
                console.update(metrics, step)
        writer.end("unknown" if experiment.stopped_by == "interrupted" else "success")
        progress = experiment.progress
        result = Result(
            run_dir=str(folder.path),
            steps=progress.steps,
            episodes=progress.episodes.count,
            updates=progress.version,
            seconds=progress.seconds,
            stopped_by=experiment.stopped_by or "steps",
            checkpoint=experiment.last_checkpoint,
            evaluation=experiment.last_evaluation,
        )
    if result.stopped_by == "interrupted":
        raise RunInterrupted(result)
    return result


def _going_on(folder: RunFolder, config: RunConfig, changed: Changes) -> Path | None:
    """The checkpoint to go on from; what is now different is written down."""
    checkpoint = checkpoint_to_resume(folder.checkpoints)
    if checkpoint is None:
        log.warning("%s has no checkpoint: it begins at the beginning", folder.path)
    folder.replace_config(config)
    tell_changes(changed)
    return checkpoint


def resolve(
    config: RunConfig | Mapping[str, Any] | str | os.PathLike[str],
    env: str | Callable[..., Any] | None = None,
    overrides: Sequence[str] = (),
) -> tuple[RunConfig, EnvSource]:
    """The checked configuration, and where its environments come from."""
    if env is not None and not isinstance(env, str) and not callable(env):
        raise TypeError(f"env must be an id or something that makes an environment, got {env!r}")
    name = env if env is None or isinstance(env, str) else name_of(env)
    if not isinstance(config, RunConfig | Mapping | str | os.PathLike):
        raise TypeError(f"a configuration must be a path, a name, a mapping or a RunConfig, got {config!r}")
    if isinstance(config, str | os.PathLike):
        checked = load_config(config, [*overrides, *([f"env={name}"] if name else [])])
    elif overrides:
        raise ValueError(f"overrides are for configurations from a file; write {list(overrides)!r} into the dict")
    elif isinstance(config, RunConfig) and name is None:
        checked = config  # which knows where it was written
    else:
        values = config.model_dump() if isinstance(config, RunConfig) else dict(config)
        checked = RunConfig.from_dict({**values, "env": name} if name else values)
    source = EnvSource.of(checked.env if env is None else env, checked.env_settings, checked.code)
    return checked, source


def check_video(config: RunConfig, source: EnvSource) -> None:
    """See whether the environment can be drawn, by one picture of it.

    Raises: ImportError where the extra with ffmpeg is missing; ConfigError where the environment cannot be drawn.
    """
    need_ffmpeg()
    try:
        env = source.make(1, render=True)
        try:
            env.reset(0)
            env.render()
        finally:
            env.close()
    except (EnvError, TypeError, ValueError) as error:
        raise config.error("eval.video", f"eval.video: true needs an environment that can be drawn: {error}") from error


def plan_for(config: RunConfig) -> Plan:
    """The resources for a run on the runtime that is there, or on the one that would be started."""
    largest = None
    if rlray.is_initialized():
        total: Mapping[str, float] = rlray.cluster_resources()
        largest = seats.largest_node() if seats.elastic() else None
    else:
        total = {"CPU": config.engine.num_cpus or count_cpus(), "GPU": count_gpus()}
    if get_algorithm(config.algo).make_trials is not None:
        return make_task_plan(config.groups[0], config.learner, total)
    return make_plan(config.groups, config.learner, total, largest)


@contextmanager
def _runtime(config: RunConfig, **options: Any) -> Iterator[None]:
    """A runtime with these options of `rlray.init`, unless one is there already."""
    if rlray.is_initialized():
        yield
        return
    rlray.init(num_cpus=config.engine.num_cpus, **options)
    try:
        yield
    finally:
        rlray.shutdown()


@contextmanager
def _log_lines(folder: RunFolder, console: Console) -> Iterator[None]:
    """The driver's own log lines go to ``logs/driver.log`` and onto the console."""
    to_file = logging.FileHandler(folder.logs / "driver.log", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers = (to_file, _ConsoleHandler(console))
    ours = logging.getLogger("rlray.train")
    level = ours.level
    ours.setLevel(logging.INFO)
    for handler in handlers:
        ours.addHandler(handler)
    try:
        yield
    finally:
        ours.setLevel(level)
        for handler in handlers:
            ours.removeHandler(handler)
            handler.close()


class _ConsoleHandler(logging.Handler):
    """Log lines above the live display, so that neither garbles the other."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.message(self.format(record))

"""The command line: ``rlray train``, ``evaluate``, ``simulate``, …, and what looks into a run (`rlray.cli.inside`).

Exit codes: 0 done, 1 the run failed, 2 the input was wrong and nothing was started, 130 interrupted and saved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from rlray.cli import compare, inside, plot, simulate
from rlray.cli.text import positive

_ENVIRONMENTS = ("ALE/Pong-v5", "LunarLander-v3", "rlray/Pong-v0")
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` (``sys.argv[1:]`` if not given) name; returns the exit code."""
    parser = argparse.ArgumentParser(
        "rlray",
        description="Reinforcement learning by simulation.",
        epilog="Exit codes: 0 done, 1 it failed, 2 the input was wrong and nothing was started, 130 interrupted and "
        "saved. rlray COMMAND --help says more.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, add, run, text in _COMMANDS:
        command = commands.add_parser(name, help=text, description=text)
        add(command)
        command.set_defaults(run=run)
    return _guarded(_parsed(parser, arguments))


def train_main(arguments: Sequence[str] | None = None) -> int:
    """``rlray train`` as a program of its own, for ``scripts/train.py``."""
    return _single("train", arguments)


def evaluate_main(arguments: Sequence[str] | None = None) -> int:
    """``rlray evaluate`` as a program of its own, for ``scripts/evaluate.py``."""
    return _single("evaluate", arguments)


def _single(wanted: str, arguments: Sequence[str] | None) -> int:
    _, add, run, text = next(command for command in _COMMANDS if command[0] == wanted)
    parser = argparse.ArgumentParser(description=text)
    add(parser)
    parser.set_defaults(run=run)
    return _guarded(_parsed(parser, arguments))


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Like ``parse_args``, but overrides may also stand after and between options."""
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def _guarded(options: argparse.Namespace) -> int:
    """Run a command; what goes wrong becomes one message on stderr and an exit code."""
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt as error:
        return _say(str(error) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        raise  # whoever read our output has gone; there is nobody to tell
    except Exception as error:
        told = _explain(error)
        if told is None:
            raise  # a fault of ours: the traceback is what a report needs
        return _say(*told)


def _explain(error: Exception) -> tuple[str, int] | None:
    """Message and exit code for an error that a user can do something about."""
    if isinstance(error, ImportError):  # first: what follows imports much
        return str(error), FAILED
    from rlray.config import ConfigError
    from rlray.exceptions import RayError, RayTaskError
    from rlray.train.checkpoint import CheckpointError
    from rlray.train.failures import EnvironmentFailed, ResourcesTooSmall, TrainingError
    from rlray.train.run_folder import RunFolderError

    if isinstance(error, ConfigError | RunFolderError | CheckpointError | ResourcesTooSmall):
        return str(error), BAD_INPUT
    if isinstance(error, EnvironmentFailed):
        return f"{error}\n\nIts own traceback:\n{error.user_traceback}", FAILED
    if isinstance(error, TrainingError) and isinstance(error.__cause__, RayTaskError):
        return f"{error}\n\nIts own traceback:\n{error.__cause__.traceback_str}", FAILED
    if isinstance(error, TrainingError | RayError):
        return str(error), FAILED
    return None


def _say(message: str, code: int) -> int:
    sys.stdout.flush()
    print(message, file=sys.stderr)
    return code


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="NAME|PATH", help="a YAML file, or its name in configs/")
    parser.add_argument(
        "--resume", metavar="RUN", help="go on with the run in this folder; its own config if none is given"
    )
    parser.add_argument("--resume-anyway", action="store_true", help="go on even where the configuration differs")
    parser.add_argument("--engine", choices=("local", "ray"), help="short for engine.kind=...")
    parser.add_argument("--address", metavar="ADDRESS", help="short for engine.address=...: that of a Ray cluster")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted, such as stop.steps=1e5")
    parser.add_argument("--print-config", action="store_true", help="show the resolved configuration and stop")


def _train(options: argparse.Namespace) -> int:
    from rlray.config import RunConfig, dump_config, load_config

    if options.config is None and options.resume is None:
        return _say("give --config NAME|PATH, or --resume RUN to go on with a run", BAD_INPUT)
    for key, value in (("engine.kind", options.engine), ("engine.address", options.address)):
        if value is not None:
            options.overrides.append(f"{key}={value}")
    config: RunConfig | None = None
    try:
        if options.config is not None:
            config = load_config(options.config, options.overrides)
        elif options.print_config:
            from rlray.train.run_folder import RunFolder

            config = RunFolder.open(options.resume).load_config(options.overrides)
    except FileNotFoundError as error:
        return _say(str(error), BAD_INPUT)
    if options.print_config and config is not None:
        print(dump_config(config), end="")
        return 0
    from rlray.train import train

    overrides = options.overrides if config is None else ()
    result = train(config, overrides=overrides, resume=options.resume, resume_anyway=options.resume_anyway)
    print(f"stopped by {result.stopped_by} at step {result.steps:,} after {result.seconds:.0f} s")
    if result.evaluation is not None:
        print(f"evaluation: {result.evaluation}")
    print(f"checkpoint: {result.checkpoint}")
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="DIR", dest="folder", help="a run folder")
    parser.add_argument("--episodes", type=positive, default=20, metavar="N", help="default: 20")
    parser.add_argument("--video", action="store_true", help="write the first episode as an mp4 to DIR/videos/")
    parser.add_argument("--checkpoint", metavar="NAME|PATH", help="default: the newest")
    parser.add_argument("--seed", type=int, default=0, help="which episodes to play; default: 0")
    parser.add_argument(
        "--explore",
        action=argparse.BooleanOptionalAction,
        help="act as in training, with sampled or random actions, or greedily; default: the run's eval.explore",
    )


def _evaluate(options: argparse.Namespace) -> int:
    from rlray.train import evaluate

    result = evaluate(
        options.folder,
        options.episodes,
        checkpoint=options.checkpoint,
        seed=options.seed,
        video=options.video,
        explore=options.explore,
    )
    print(result)
    if result.video is not None:
        print(f"video: {result.video}")
    if result.trouble is not None:
        return _say(result.trouble, FAILED)
    return 0


def _add_list(parser: argparse.ArgumentParser) -> None:
    """It takes no options."""


def _list(options: argparse.Namespace) -> int:
    from rlray.algos import algorithm_names
    from rlray.config import config_folders

    configs = {path.name: path for folder in reversed(config_folders()) for path in sorted(folder.glob("*.yaml"))}
    for title, names in (
        ("algorithms", algorithm_names()),
        ("environments (and any other id of gymnasium, or package.module:Class)", _ENVIRONMENTS),
        ("configurations", sorted(configs)),
    ):
        print(f"{title}:")
        for name in names:
            print(f"  {name}")
    return 0


_COMMANDS: tuple[inside.Command, ...] = (
    ("train", _add_train, _train, "Train as a configuration says, into a new run folder."),
    ("evaluate", _add_evaluate, _evaluate, "Play episodes with what a run has learned."),
    ("eval", _add_evaluate, _evaluate, "The same as evaluate."),
    ("simulate", simulate.add, simulate.run, "Play an environment on all cores, for as many steps as wanted."),
    ("plot", plot.add, plot.run, "Draw the curves of runs, those with different seeds only as one."),
    ("compare", compare.add, compare.run, "Show what runs were told that is different, and what came of it."),
    ("list", _add_list, _list, "Show the algorithms, environments and configurations that come with rlray."),
    *inside.COMMANDS,
)

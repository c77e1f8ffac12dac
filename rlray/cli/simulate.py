"""``rlray simulate``: any environment on all cores, without learning."""

from __future__ import annotations

import argparse

from rlray.cli.text import positive, whole_number


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--env", metavar="ID", help="as in a configuration; default with --policy RUN: the run's")
    parser.add_argument(
        "--steps", type=whole_number, required=True, metavar="N", help="agent steps, such as 300M, 1e6 or 5_000"
    )
    parser.add_argument("--policy", default="random", metavar="random|RUN", help="a run folder plays greedily")
    parser.add_argument("--envs", type=positive, metavar="N", help="environments that each process steps together")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes; default: one for each CPU")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--env-settings", nargs="+", default=[], metavar="key=value", help="settings of the environment, as in YAML"
    )
    parser.add_argument("--report", metavar="FILE", help="write all figures there: JSON, or Markdown for FILE.md")


def run(options: argparse.Namespace) -> int:
    """Simulate, and say what came of it."""
    from rlray.config.loader import read_settings
    from rlray.train.simulation import SimulationInterrupted, simulate

    try:
        told = simulate(
            options.env,
            options.steps,
            policy=options.policy,
            env_settings=read_settings(options.env_settings),
            envs=options.envs,
            workers=options.workers,
            seed=options.seed,
            report=options.report,
            progress=True,
        )
    except SimulationInterrupted as interrupted:
        print(interrupted.report)
        raise
    print(told)
    return 0

"""Looking into a run from another terminal: ``rlray status``, ``memory``, ``timeline``, ``stack``, ``metrics``.

Nothing here changes what the run does. Exit codes: 1 no driver is running, or it has ended; 2 several are and none was
picked, or an argument is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rlray.cli.text import duration, size, table

_NONE, _WHICH = 1, 2
_TOP = 10
_MOST_ROWS = 1_000  # of calls that are under way, asked of each process to know what those run that do not answer

Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int], str]


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", dest="which", metavar="NAME|PID", help="which run, by name or driver pid, if there are several"
    )
    parser.add_argument(
        "--temp", metavar="DIR", help="where the driver keeps its temporary files; default: this shell's, and /tmp"
    )


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def _add_memory(parser: argparse.ArgumentParser) -> None:
    _add_status(parser)
    parser.add_argument("--top", type=_count, default=_TOP, metavar="N", help=f"values to show; default: {_TOP}")


def _add_timeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: timeline-NAME.json")
    _add_common(parser)
    parser.add_argument(
        "--seconds", type=_seconds, metavar="S", help="first note every call, however short, for so long"
    )


def _add_stack(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--pid", type=_count, metavar="PID", help="only this process")


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--listen", type=_port, metavar="PORT", help="serve them on 127.0.0.1; 0: any free port")
    parser.add_argument(
        "--token-file", metavar="FILE", help="where the token of --listen stands, or goes; default: it is printed"
    )


def _status(options: argparse.Namespace) -> int:
    runs = _runs(options)
    if options.which is None and len(runs) > 1 and not options.json:
        print(f"{len(runs)} runs; rlray status --run NAME shows one of them")
        print(*_run_lines(runs), sep="\n")
        return 0

    def show(run: Any) -> None:
        from rlray.cli.status import status, status_lines

        told = status(run, _look(run, "tasks", limit=_MOST_ROWS))
        _print(told if options.json else status_lines(told))

    return _with_run(options, runs, show)


def _memory(options: argparse.Namespace) -> int:
    def show(run: Any) -> None:
        from rlray.cli.memory import memory, memory_lines

        told = memory(run, _look(run, "objects", limit=options.top))
        _print(told if options.json else memory_lines(told, options.top))

    return _with_run(options, _runs(options), show)


def _timeline(options: argparse.Namespace) -> int:
    def record(run: Any) -> None:
        from rlray.core.local.visit import Visit
        from rlray.core.timeline import trace, write

        with Visit(run) as visit:
            if options.seconds:
                print(f"noting every call for {duration(options.seconds)} ...", flush=True)
                visit.record(options.seconds)
            events = trace(visit.tracks())
        file = Path(options.file or f"timeline-{run.name}.json")
        write(events, file)
        spans = sum(event["ph"] == "X" for event in events)
        print(f"{file}: {spans:,} spans, {size(file.stat().st_size)}; open it at https://ui.perfetto.dev")

    return _with_run(options, _runs(options), record)


def _stack(options: argparse.Namespace) -> int:
    def show(run: Any) -> None:
        from rlray.cli.stack import stack_lines

        view = _look(run, "stacks")
        pids = [worker.pid for worker in view.workers() if worker.is_alive]
        if options.pid is not None and options.pid not in pids:
            raise _Trouble(
                f"no process of the run has pid {options.pid}; there are {', '.join(map(str, pids))}", _WHICH
            )
        _print(stack_lines(view, options.pid))

    return _with_run(options, _runs(options), show)


def _metrics(options: argparse.Namespace) -> int:
    def show(run: Any) -> None:
        if options.listen is None:
            print(_metrics_text(run), end="")
            return
        from rlray.cli.serving import serve

        serve(run.lives, lambda: _metrics_text(run), options.listen, options.token_file)

    return _with_run(options, _runs(options), show)


def _metrics_text(run: Any) -> str:
    from rlray.core.samples import metrics_text

    return metrics_text(_look(run, "metrics"))


# -- which run -------------------------------------------------------------------------------------------------------


class _Trouble(Exception):
    """What the user is told, and the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def _runs(options: argparse.Namespace) -> list[Any]:
    """The runs to choose from, the latest first."""
    from rlray.core.local.visit import find_runs

    return find_runs([options.temp] if options.temp is not None else None)


def _with_run(options: argparse.Namespace, runs: list[Any], show: Callable[[Any], None]) -> int:
    """Show the run that was picked, or the only one; returns the exit code."""
    try:
        show(_picked(options, runs))
    except _Trouble as trouble:
        return _say(str(trouble), trouble.code)
    except BrokenPipeError:
        raise  # whoever read our output has gone
    except OSError as why:
        return _say(str(why), _NONE)
    except ValueError as why:
        return _say(str(why), _WHICH)
    return 0


def _picked(options: argparse.Namespace, runs: list[Any]) -> Any:
    if not runs:
        places = [options.temp] if options.temp is not None else dict.fromkeys([tempfile.gettempdir(), "/tmp"])
        raise _Trouble(
            f"no driver of yours is running rlray here; looked in {' and '.join(places)} (--temp DIR looks elsewhere; "
            "engine='inline' has nothing to look into)",
            _NONE,
        )
    if options.which is None:
        if len(runs) > 1:
            raise _Trouble("\n".join([f"{len(runs)} runs; pick one with --run NAME", *_run_lines(runs)]), _WHICH)
        return runs[0]
    found = [run for run in runs if options.which in (run.name, str(run.driver_pid))]
    if not found:
        raise _Trouble("\n".join([f"there is no run {options.which!r}; there are", *_run_lines(runs)]), _WHICH)
    return found[0]


def _run_lines(runs: list[Any]) -> list[str]:
    now = time.time()
    return table(
        (run.name, f"driver pid {run.driver_pid}", f"up {duration(now - run.started)}", run.program) for run in runs
    )


def _look(run: Any, kind: str, **asked: Any) -> Any:
    from rlray.core.local.visit import Visit
    from rlray.core.state import View

    with Visit(run) as visit:
        return View(visit.inspect(kind, **asked))


# -- words -----------------------------------------------------------------------------------------------------------


def _print(told: Mapping[str, Any] | Iterable[str]) -> None:
    if isinstance(told, Mapping):
        print(json.dumps(told, indent=2))
        return
    for line in told:
        print(line)


def _say(message: str, code: int) -> int:
    sys.stdout.flush()
    print(message, file=sys.stderr)
    return code


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a port, 0 to 65535, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be seconds above 0 and at most 3600, got {text!r}")
    return seconds


COMMANDS: tuple[Command, ...] = (
    ("status", _add_status, _status, "Show what a running driver and its processes do."),
    ("memory", _add_memory, _memory, "Show who holds the memory of a running driver's object store."),
    ("timeline", _add_timeline, _timeline, "Write where the time went, as a trace for https://ui.perfetto.dev."),
    ("stack", _add_stack, _stack, "Show where the code is, in every thread and coroutine of every process."),
    ("metrics", _add_metrics, _metrics, "Print metrics in Prometheus' text format, or serve them."),
)

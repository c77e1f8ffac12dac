"""Words and tables of the command line: plain text, whole where it is read by programs, cut to a terminal's width."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}


def size(count: float) -> str:
    """Bytes, for people: 3 digits and a unit."""
    if count < 1000:
        return f"{count:.0f} B"
    units = iter(("kB", "MB", "GB"))
    unit = ""
    while count >= 999.5 and (larger := next(units, None)) is not None:
        count, unit = count / 1000, larger
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:,.0f} {unit}"


def duration(seconds: float) -> str:
    """A time span, for people."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    while parts[0][0] == 0:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2])


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def whole_number(text: str) -> int:
    """A whole number above 0 that may be large, for argparse: ``300M`` (k, M, G), ``1.5e6``, ``5_000``."""
    digits, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "")
    try:
        number = Decimal(digits) * _UNITS.get(unit, 1)
        if number == int(number) > 0:
            return int(number)
    except (ArithmeticError, ValueError):  # no number, or one without end
        pass
    raise argparse.ArgumentTypeError(f"must be a whole number above 0, such as 300M, 1e6 or 5_000, got {text!r}")


def amount(value: float) -> str:
    """An amount of a resource: as short as it is exact."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def amounts(resources: dict[str, float]) -> str:
    """Amounts of several resources."""
    return ", ".join(f"{name} {amount(value)}" for name, value in resources.items()) or "nothing"


def some(words: Sequence[str], most: int) -> str:
    """The first of a list, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def width() -> int | None:
    """How many characters a line may have; None where nobody looks at it in a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Iterable[Sequence[str]], right: Collection[int] = (), indent: str = "  ") -> list[str]:
    """Lines with aligned columns, those of ``right`` at their right side. On a terminal a long one is cut."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    most = width()
    lines = []
    for row in rows:
        cells = [
            cell.rjust(length) if i in right else cell.ljust(length)
            for i, (cell, length) in enumerate(zip(row, widths, strict=True))
        ]
        line = (indent + "  ".join(cells)).rstrip()
        lines.append(line if most is None or len(line) <= most else line[: most - 1] + "…")
    return lines

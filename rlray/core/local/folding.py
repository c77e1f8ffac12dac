"""Folding: the same words of several workers are printed once, and counted. No clock, no files, no threads in here.

What is compared is a *block*: a line with the indented and the empty lines that follow it, and a traceback as a whole,
so that no traceback is torn by folding half of it. The rule, for the blocks of one stream and of one function or actor
class (an actor's own name does not matter):

* The first to print a block is shown at once, and a window opens.
* While it is open, another worker that prints the same block, and has not yet in this window, is counted instead.
* When the window ends, a line says how many others there were: ``(f pid=12) text [repeated by 3 other workers]``.
* A worker that prints it again is shown again, which begins a new window; what was counted before is said first.

So nothing is lost: what is shown and what is counted add up to what was printed, and blocks that differ in anything,
be it one digit, are all shown. Blocks shown of one worker stay in order; of those counted only the number is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

WINDOW = 5.0  # seconds
_MOST = 5_000  # blocks of which each of two generations knows; when there are more, windows end early
_LONG = 200  # characters: of longer blocks a digest is compared
_MOST_LINES, _LONGEST = 200, 10_000  # of a block, and characters of such a line

_BLANKS = " \t"
_TRACEBACK = "Traceback (most recent call last):"
_CHAINS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


class Blocks:
    """Cuts the lines of one worker's stream into blocks, each a text of one or more lines."""

    def __init__(self) -> None:
        self._block: list[str] = []
        self._state = "plain"  # "empty": no words yet; "traceback": its last line is to come; "error": that was it

    def add(self, lines: Sequence[str]) -> list[str]:
        """The blocks that are complete, now that these lines have come."""
        complete: list[str] = []
        for line in lines:
            if not self._block:
                self._begin(line)
            elif self._goes_on(line) and len(self._block) < _MOST_LINES:
                self._block.append(line)
            else:
                complete += self.rest()
                self._begin(line)
        return complete

    def expects_more(self) -> bool:
        """Whether the last block surely goes on: the last line of its traceback has not come."""
        return bool(self._block) and self._state == "traceback"

    def rest(self) -> list[str]:
        """The block that may not be complete: nothing more will come, or not soon."""
        block, self._block = self._block, []
        return ["\n".join(block)] if block else []

    def _begin(self, line: str) -> None:
        self._block = [line]
        # An indented one, as groups of exceptions have it, ends where the indentation does.
        whole = line.endswith(_TRACEBACK) and line[0] not in _BLANKS
        self._state = "traceback" if whole else "plain" if line else "empty"

    def _goes_on(self, line: str) -> bool:
        if not line or (line[0] in _BLANKS and len(line) <= _LONGEST):
            return True
        if line.endswith(_TRACEBACK):  # below the message that was logged with it, or another error
            self._state = "traceback"
            return True
        if self._state == "plain":
            return False
        if self._state == "error":
            return line in _CHAINS
        self._state = "error" if self._state == "traceback" else "plain"
        return True


@dataclass(slots=True)
class _Repeated:
    """A block that others have printed in its window."""

    ends: float
    prefix: str
    text: str
    others: set[int]

    def said(self) -> str:
        count = len(self.others)
        return f"{self.prefix}{self.text} [repeated by {count} other worker{'s' if count > 1 else ''}]"


_Key = tuple[str, "str | bytes"]  # function or class, text or digest
_Shown = tuple[float, int, str]  # when the window ends, which worker was shown, with which prefix


class Folder:
    """Decides what is shown of the blocks that all workers print to one stream."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._young: dict[_Key, _Shown] = {}
        self._old: dict[_Key, _Shown] = {}  # the generation before
        self._repeated: dict[_Key, _Repeated] = {}

    def take(self, worker: int, name: str, prefix: str, blocks: Sequence[str], now: float) -> list[str]:
        """The lines to show of the blocks that ``worker`` has printed, and of windows that they end."""
        lines: list[str] = []
        shown = (now + self._window, worker, prefix)
        for text in blocks:
            key = (name, text if len(text) <= _LONG else blake2b(text.encode(errors="replace")).digest())
            known = self._young.get(key) or self._old.get(key)
            if known is None or text.isspace() or not text:
                self._young[key] = shown
            elif self._counted(key, known, worker, text, now):
                continue
            else:
                lines += self._end(key)
                self._young[key] = shown
            if "\n" in text:
                lines += [prefix + line for line in text.split("\n")]
            else:
                lines.append(prefix + text)
            if len(self._young) > _MOST:
                lines += self._forget()
        return lines

    def expire(self, now: float) -> list[str]:
        """The lines that say how often the blocks were printed whose windows have ended."""
        return self._end(*[key for key, block in self._repeated.items() if block.ends <= now])

    def due(self) -> float | None:
        """When `expire` will have something to say."""
        return min((block.ends for block in self._repeated.values()), default=None)

    def _counted(self, key: _Key, known: _Shown, worker: int, text: str, now: float) -> bool:
        """Whether this worker is one more that prints what was shown."""
        ends, first, prefix = known
        if ends <= now or worker == first:
            return False
        block = self._repeated.get(key)
        if block is None:
            block = self._repeated[key] = _Repeated(ends, prefix, _in_one_line(text), set())
        if worker in block.others:
            return False
        block.others.add(worker)
        return True

    def _forget(self) -> list[str]:
        """Only the latest blocks are known from here on."""
        said = self._end(*[key for key in self._repeated if key not in self._young])
        self._old, self._young = self._young, {}
        return said

    def _end(self, *keys: _Key) -> list[str]:
        return [self._repeated.pop(key).said() for key in keys if key in self._repeated]


def _in_one_line(text: str) -> str:
    first, *more = text.strip("\n").split("\n")
    if more:
        first = f"{first} … {more[-1].strip()}"
    return first if len(first) <= 2 * _LONG else f"{first[: 2 * _LONG]}…"

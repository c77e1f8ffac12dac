"""The list of files in docs/architecture.md is what the tree holds. Run this file to write the list anew."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files:begin -->\n", "<!-- files:end -->"
ROOMS = ("rlray", "scripts", "examples", "benchmarks")


def listing() -> str:
    """A table per folder: each file and the first line of its docstring."""
    text = ""
    for room in ROOMS:
        for folder in sorted({path.parent for path in (ROOT / room).rglob("*.py") if path.stat().st_size}):
            text += f"**`{folder.relative_to(ROOT)}/`**\n\n| file | what it is |\n|---|---|\n"
            for path in sorted(folder.glob("*.py")):
                doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
                if doc:
                    text += f"| `{path.name}` | {doc.splitlines()[0].replace('|', chr(92) + '|')} |\n"
            text += "\n"
    return text


def split() -> tuple[str, str, str]:
    """The page before the list, the list, and after it."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    inside, after = rest.split(END)
    return before, inside, after


def test_every_file_says_what_it_is() -> None:
    bare = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not bare


def test_the_page_lists_every_file() -> None:
    assert split()[1] == listing(), "run `python tests/test_architecture.py` to bring docs/architecture.md up to date"


if __name__ == "__main__":
    head, _, tail = split()
    PAGE.write_text(head + BEGIN + listing() + END + tail, encoding="utf-8")

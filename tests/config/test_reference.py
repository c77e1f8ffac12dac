"""The page about configurations says what the schema says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlray.config import RunConfig, reference
from rlray.config.explain import keys_of

PAGE = Path(__file__).parents[2] / "docs" / "config.md"


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert reference.refresh(text) == text, "run: python -m rlray.config.reference docs/config.md"


def test_every_key_has_a_meaning() -> None:
    tables = reference.tables()
    for path in keys_of(RunConfig, {}):
        (row,) = [line for line in tables.splitlines() if line.startswith(f"| `{path[-1]}` |")][:1]
        assert len(row.rsplit("|", 2)[1].strip()) > 10, row


def test_the_command_mends_an_old_page(tmp_path: Path) -> None:
    page = tmp_path / "config.md"
    page.write_text(f"before\n{reference.BEGIN}\nold\n{reference.END}\nafter\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "rlray.config.reference", str(page)], check=True, timeout=60)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| `seed` | whole number ≥ 0, < 2⁶³ | `1` |" in text
    with pytest.raises(ValueError, match="must hold the markers"):
        reference.refresh("no markers")

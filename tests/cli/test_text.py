"""Numbers as people type them on the command line."""

from __future__ import annotations

import argparse

import pytest

from rlray.cli.text import whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5), ("300M", 300_000_000), ("2k", 2000), ("1.5G", 1_500_000_000), ("1e6", 10**6), ("5_000", 5000)],
)
def test_large_numbers(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["", "M", "0", "-3", "1.5", "3x", "0.0001k", "inf", "nan", "3MM", "1e-3"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 300M, 1e6 or 5_000, got"):
        whole_number(text)

"""Our YAML: scalars as people mean them, the line of every key, and text that reads back as what was written."""

from __future__ import annotations

import math
import random
import string
from typing import Any

import pytest

from rlray.config.yaml_text import Parsed, dump


def parse(text: str) -> Any:
    parsed = Parsed(text, "f.yaml")
    assert not parsed.problems
    return parsed.value


def problems(text: str) -> list[str]:
    return [str(problem) for problem in Parsed(text, "f.yaml").problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e6", 1e6),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("400_000", 400_000),
        ("0x1f", 31),
        ("0o17", 15),
        ("012", 12),
        ("+7", 7),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("'3e-4'", "3e-4"),
        ("1.2.3", "1.2.3"),
        ("_1", "_1"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    found = parse(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan() -> None:
    assert math.isnan(parse("key: .nan")["key"])


def test_every_key_and_item_has_its_line() -> None:
    parsed = Parsed("a: 1\n\n# note\nb:\n  c: [1,\n    2]\n  d: {e: 3,\n      f: 4}\n", "f.yaml")
    lines = {".".join(map(str, path)): place.line for path, place in parsed.places.items()}
    assert lines == {"a": 1, "b": 4, "b.c": 5, "b.c.0": 5, "b.c.1": 6, "b.d": 7, "b.d.e": 7, "b.d.f": 8}
    assert str(parsed.places["b", "c", 1]) == "f.yaml:6"


def test_aliases_repeat_a_value() -> None:
    assert parse("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3: the key 'a' stands here a second time; first in line 1"]),
        ("s:\n  x: 1\n  x: 2\n", ["f.yaml:3: the key 'x' stands here a second time; first in line 2"]),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", ["f.yaml:2: the tag"]),
        ("a: !!int x\n", ["f.yaml:1: invalid literal for int"]),
        ("a: &x [1, *x]\n", ["f.yaml:1: a value cannot contain itself"]),
        ("base: &b {x: 1}\na:\n  <<: *b\n", ["f.yaml:3: merge keys ('<<') are not supported"]),
        ("? [1, 2]\n: 3\n", ["f.yaml:1: a key must be a plain word, got [1, 2]"]),
        ("a: 1\nb: [1\n", ["f.yaml:3: not valid YAML: while parsing a flow sequence expected ',' or ']'"]),
        ("a: 1\n\tb: 2\n", ["f.yaml:2: not valid YAML"]),
        ("a: 1\n---\nb: 1\n", ["f.yaml:2: not valid YAML: expected a single document"]),
        ("a: \x00", ["f.yaml:1: not valid YAML: unacceptable character"]),
        ("a: 1\na: 2\na: 3\n", ["f.yaml:2: the key 'a'", "f.yaml:3: the key 'a'"]),
    ],
)
def test_what_is_refused(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected)
    assert all(message.startswith(start) for message, start in zip(found, expected, strict=True)), found


TRICKY = [
    "",
    " ",
    "~",
    "null",
    "true",
    "yes",
    "1",
    "3e-4",
    "1_0",
    "0x1f",
    ".5",
    "-",
    "<<",
    "=",
    "!x",
    "&a",
    "*a",
    "a: b",
]
TRICKY += [
    "#c",
    "12:30",
    "2024-01-01",
    "\n",
    "a\nb\n",
    "\x85",
    "\u2028",
    "\t",
    "'",
    '"',
    "é",
    "日本",
    "\U0001f600",
    "\x07",
    "%",
]


def random_value(rng: random.Random, depth: int = 0) -> Any:
    choice = rng.randrange(10 if depth < 4 else 7)
    if choice == 0:
        return rng.choice(TRICKY)
    if choice == 1:
        return "".join(rng.choices(string.printable, k=rng.randrange(12)))
    if choice == 2:
        return rng.choice([rng.uniform(-1, 1), 10 ** rng.uniform(-300, 300), math.inf, -math.inf, -0.0, 1e22, 3e-4])
    if choice == 3:
        return rng.choice([rng.randrange(-5, 5), rng.getrandbits(200), -rng.getrandbits(70)])
    if choice in (4, 5, 6):
        return [None, True, False][choice - 4]
    if choice == 7:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {random_value(rng, 9): random_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1 from True from 1.0, and 0.0 from -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(repr(a) == repr(b))


def test_dumped_values_read_back_as_they_were() -> None:
    for seed in range(400):
        value = {"root": random_value(random.Random(seed))}
        assert same(parse(dump(value)), value), f"seed {seed}: {dump(value)}"

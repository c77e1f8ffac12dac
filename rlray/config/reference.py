"""The tables of `docs/config.md`, made from the schema: ``python -m rlray.config.reference docs/config.md``.

Everything between the two markers in the file is written anew; a test fails when that has been forgotten.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlray.algos.registry import algorithm_names, get_algorithm
from rlray.config.explain import models_in
from rlray.config.schema import RunConfig

BEGIN = "<!-- begin: made by python -m rlray.config.reference docs/config.md -->"
END = "<!-- end -->"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def tables() -> str:
    """Every key with its type, default and meaning; the bundled algorithms' settings at the end."""
    lines = ["## The run", "", *_table(RunConfig)]
    for path, section in _sections(RunConfig):
        lines += _section(f"`{path}`", section)
    for name in algorithm_names():
        settings = get_algorithm(name).config
        lines += _section(f"`hyperparameters` of `{name}`", settings)
        for path, section in _sections(settings):
            lines += _section(f"`hyperparameters.{path}` of `{name}`", section)
    return "\n".join(lines)


def refresh(text: str) -> str:
    """``text`` with what lies between the markers made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text must hold the markers {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models in ``model`` that have keys of their own, each once, with the names of the fields that take it."""
    takers: dict[type[BaseModel], list[str]] = {}
    for name, field in model.model_fields.items():
        for section in dict.fromkeys(models_in(field.annotation)):
            if section.model_fields:
                takers.setdefault(section, []).append(name)
    for section, names in takers.items():
        yield "`, `".join(names), section


def _section(title: str, model: type[BaseModel]) -> list[str]:
    return ["", f"## {title}", "", inspect.getdoc(model) or "", "", *_table(model)]


def _table(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        described = schema["properties"][name]
        several = any(one.get("type") == "array" for one in described.get("oneOf", []))
        kind = ("keys, or a list of such" if several else "keys") if inner else _kind(described, schema)
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        meaning = field.description or (inspect.getdoc(inner[0]) if inner else None) or ""
        cells = [f"`{name}`", kind, default, " ".join(meaning.split())]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(described: dict[str, Any], schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in described:
        return _kind(schema["$defs"][described["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in described:
        return " or ".join(_kind(one, schema) for one in described["anyOf"])
    if "const" in described or "enum" in described:
        return " or ".join(f"`{value}`" for value in described.get("enum", [described.get("const")]))
    if described.get("type") == "array":
        items = [described["items"]] if "items" in described else described.get("prefixItems", [])
        return f"list of {' and '.join(dict.fromkeys(_kind(item, schema) for item in items))}"
    if described.get("type") == "object":
        return "keys"
    bounds = [f"{sign} {_number(described[key])}" for key, sign in _BOUNDS.items() if key in described]
    return " ".join([_KINDS.get(described.get("type", ""), "any"), ", ".join(bounds)]).strip()


def _number(value: float) -> str:
    return "2⁶³" if value == 2**63 else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{json.dumps(value)}`" if value else ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(refresh(page.read_text(encoding="utf-8")), encoding="utf-8")

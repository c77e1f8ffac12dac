"""The tables of `docs/config.md`, made from the schema: ``python -m rlray.config.reference docs/config.md``.

Everything between the two markers in the file is written anew; a test fails when that has been forgotten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlray.algos.registry import algorithm_names, get_algorithm
from rlray.config.schema import RunConfig

BEGIN = "<!-- begin: made by python -m rlray.config.reference docs/config.md -->"
END = "<!-- end -->"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def tables() -> str:
    """Every key with its type, default and meaning; the bundled algorithms' settings at the end."""
    lines = ["## The run", "", *_table(RunConfig)]
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel) and section is not BaseModel:
            lines += ["", f"## `{name}`", "", _meaning(section.__doc__), "", *_table(section)]
    for name in algorithm_names():
        settings = get_algorithm(name).config
        lines += ["", f"## `hyperparameters` of `{name}`", "", _meaning(settings.__doc__), "", *_table(settings)]
    return "\n".join(lines)


def refresh(text: str) -> str:
    """``text`` with what lies between the markers made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text must hold the markers {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _table(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        described = schema["properties"][name]
        if "$ref" in described or isinstance(field.default, BaseModel):
            inner = field.annotation
            meaning = field.description or (inner.__doc__ if isinstance(inner, type) else None)
            cells = ["keys" if isinstance(inner, type) else _kind(described, schema), "", _meaning(meaning)]
        else:
            default = "required" if name in required else _default(field.get_default(call_default_factory=True))
            cells = [_kind(described, schema), default, _meaning(field.description)]
        yield f"| `{name}` | {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


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
    return f"`{json.dumps(value, default=str)}`" if not isinstance(value, str) else f"`{value}`"


def _meaning(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(refresh(page.read_text(encoding="utf-8")), encoding="utf-8")

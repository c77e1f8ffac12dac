"""Turns what pydantic found wrong into problems that name the key, the value received, and the remedy."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rlray.config.errors import KeyPath, Origins, Problem

Sections = Mapping[KeyPath, type[BaseModel]]
"""Models that the schema itself cannot know, by where they stand: the settings of the chosen algorithm."""

_UNKNOWN = {"extra_forbidden", "invalid_key"}
_NO_SECTION = {"model_type", "model_attributes_type", "dict_type", "mapping_type"}


def problems_of(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], origins: Origins, sections: Sections
) -> list[Problem]:
    """Every problem in ``error``, once per key.

    Args:
        error: what validating ``data`` against ``model`` raised.
        model: the whole configuration's.
        data: what was validated.
        origins: where its values were written.
        sections: models for parts of ``data`` where the schema allows any.
    """
    unmet: dict[KeyPath, list[ErrorDetails]] = {}
    problems = []
    for details in error.errors():
        path = _path_in(data, details["loc"])
        if details["type"] in _UNKNOWN:
            problems.append(Problem(_unknown_key(path, model, sections), origins.of(path)))
        elif details["type"] == "missing":
            path = (*path, details["loc"][-1])
            keys = ", ".join(_valid_keys(path, model, sections))
            holds = f", which holds: {keys}" if keys else ""
            problems.append(Problem(f"missing key {_dotted(path)!r}{holds}", origins.of(path[:-1])))
        else:
            unmet.setdefault(path, []).append(details)
    for path, found in unmet.items():
        problems.append(Problem(_unmet(path, found, model, sections), origins.of(path)))
    return problems


def keys_of(model: type[BaseModel], sections: Sections) -> Iterator[KeyPath]:
    """The path of every key that ``model`` has, sections and what lies in them included."""
    for name, field in model.model_fields.items():
        yield (name,)
        inner = [sections[(name,)]] if (name,) in sections else models_in(field.annotation)
        for section in inner:
            for path in keys_of(section, {}):
                yield (name, *path)


def _path_in(data: Any, location: Sequence[str | int]) -> KeyPath:
    """``location`` without the parts that pydantic adds for the branches of a union."""
    path: KeyPath = ()
    for part in location:
        if isinstance(data, Mapping):
            known = part in data
        else:
            known = isinstance(data, Sequence) and isinstance(part, int) and part < len(data)
        if known:
            path = (*path, part)
            data = data[part]
    return path


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field of this type can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def _valid_keys(section: KeyPath, model: type[BaseModel], sections: Sections) -> list[str]:
    models = [model]
    for end, part in enumerate(section, start=1):
        if section[:end] in sections:
            models = [sections[section[:end]]]
        elif isinstance(part, str):
            fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
            models = [inner for annotation in fields for inner in models_in(annotation)]
    return list(dict.fromkeys(name for m in models for name in m.model_fields))


def _unknown_key(path: KeyPath, model: type[BaseModel], sections: Sections) -> str:
    valid = _valid_keys(path[:-1], model, sections)
    name = str(path[-1])
    elsewhere = [_dotted(key) for key in keys_of(model, sections) if key[-1] == name]
    near = elsewhere or difflib.get_close_matches(name, valid)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown key {_dotted(path)!r}{hint} Valid keys: {', '.join(valid)}"


def _unmet(path: KeyPath, found: list[ErrorDetails], model: type[BaseModel], sections: Sections) -> str:
    name = repr(_dotted(path)) if path else "the configuration"
    received = f"received {_shown(found[0]['input'])}"
    if any(details["type"] in _NO_SECTION for details in found):
        keys = ", ".join(_valid_keys(path, model, sections))
        return f"{name} must hold keys{f' ({keys})' if keys else ''}, {received}"
    own = [details["ctx"]["error"] for details in found if details["type"] == "value_error"]
    if own:
        return f"{name}: {own[0]}"
    expected = dict.fromkeys(re.sub(r"^\w+ should (be )?", "", details["msg"]) for details in found)
    verb = "must be" if " should be " in found[0]["msg"] else "must"
    return f"{name} {verb} {' or '.join(expected)}, {received}"


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _shown(value: Any) -> str:
    """``value`` as one writes it in YAML, with its type where a number and its text look alike."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = reprlib.repr(value)
    return f"{text} (a string)" if isinstance(value, str) else text

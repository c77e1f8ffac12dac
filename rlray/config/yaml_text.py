"""YAML as people mean it, with the line of every key.

The scalars are those of YAML 1.2's core schema, plus ``_`` between digits: ``3e-4`` and ``1e6`` are floats,
``400_000`` is an integer, ``yes``, ``on``, ``12:30`` and ``2024-01-01`` are strings. PyYAML's own rules (YAML 1.1)
read all of these otherwise. A key that stands twice in one mapping, a tag, and a merge key (``<<``) are errors.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import BaseResolver

from rlray.config.errors import KeyPath, Place, Problem

_PREFIX = "tag:yaml.org,2002:"
_SCALARS: list[tuple[str, str, list[str]]] = [  # tag, pattern, possible first characters
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7_]+|0x[0-9a-fA-F_]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]
_TAGS = {_PREFIX + kind for kind in ("str", "seq", "map", *(scalar[0] for scalar in _SCALARS))}


class _Resolver(BaseResolver):
    """Which plain scalar is what; shared, so that what is written is read back as it was."""


for _tag, _pattern, _first in _SCALARS:
    _Resolver.add_implicit_resolver(_PREFIX + _tag, re.compile(rf"^(?:{_pattern})$"), _first)


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, _Resolver):
    """Text to nodes; `_Builder` makes values of them."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        _Resolver.__init__(self)


class _Dumper(yaml.emitter.Emitter, yaml.serializer.Serializer, yaml.representer.SafeRepresenter, _Resolver):
    """Values to text: mappings as blocks, lists in one line."""

    def __init__(self, stream: Any, **options: Any) -> None:
        yaml.emitter.Emitter.__init__(self, stream, allow_unicode=True, width=120)
        yaml.serializer.Serializer.__init__(self)
        yaml.representer.SafeRepresenter.__init__(self, default_flow_style=False, sort_keys=False)
        _Resolver.__init__(self)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: Any, text: str) -> Node:
    """As SafeRepresenter does, but quoted where PyYAML's plain or single-quoted form would read back otherwise."""
    quoted = text == "<<" or re.search("[\x85\u2028\u2029]", text)
    return ScalarNode(_PREFIX + "str", text, style='"' if quoted else None)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence(_PREFIX + "seq", data, flow_style=True))


class Parsed:
    """What a text holds: ``value``, the ``places`` of its keys, and the ``problems`` met.

    Args:
        text: one YAML document.
        source: what errors call it, for instance its path.
    """

    def __init__(self, text: str, source: str) -> None:
        self.value: Any = None
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []
        self._source = source
        self._open: list[Node] = []  # the nodes above the one being built, to find a node within itself
        try:
            node = _Loader(text).get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(filter(None, [error.context, error.problem]))
            self._complain(f"not valid YAML: {reason}", mark)
        except yaml.YAMLError as error:
            self._complain(f"not valid YAML: {' '.join(str(error).split())}", None)
        else:
            if node is not None:
                self.value = self._build(node, ())

    def _complain(self, message: str, mark: Any) -> None:
        self.problems.append(Problem(message, self._place(mark)))

    def _place(self, mark: Any) -> Place:
        return Place(mark.line + 1 if mark else 1, self._source)

    def _build(self, node: Node, path: KeyPath) -> Any:
        if node.tag not in _TAGS:
            return self._complain(f"the tag {node.tag!r} is not supported; write a plain value", node.start_mark)
        if any(node is outer for outer in self._open):
            return self._complain("a value cannot contain itself", node.start_mark)
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        self._open.append(node)
        try:
            if isinstance(node, SequenceNode):
                return [self._item(child, (*path, index)) for index, child in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.pop()

    def _item(self, node: Node, path: KeyPath) -> Any:
        self.places[path] = self._place(node.start_mark)
        return self._build(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[Any, Any]:
        built: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._build(key_node, path)
            if not isinstance(key, Hashable):
                self._complain(f"a key must be a plain word, got {key!r}", key_node.start_mark)
                continue
            inner: Any = (*path, key)
            if key in built:
                first = self.places[inner].line
                self._complain(f"the key {key!r} stands here a second time; first in line {first}", key_node.start_mark)
            elif key == "<<" and key_node.style is None:
                self._complain("merge keys ('<<') are not supported; write the keys out", key_node.start_mark)
            else:
                self.places[inner] = self._place(key_node.start_mark)
                built[key] = self._build(value_node, inner)
        return built

    def _scalar(self, node: ScalarNode) -> Any:
        kind = node.tag.removeprefix(_PREFIX)
        text: str = node.value
        digits = text.replace("_", "")
        try:
            if kind == "int":
                return int(digits, 0 if digits[:2] in ("0o", "0x") else 10)
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", digits.lower()))
        except ValueError as error:  # only with an explicit tag: !!int abc
            return self._complain(str(error), node.start_mark)
        if kind == "bool":
            return text.lower() == "true"
        return None if kind == "null" else text


def dump(value: Any) -> str:
    """``value`` (mappings, lists, strings, numbers, booleans, None) as YAML that `Parsed` reads back as equal."""
    text = yaml.dump(value, Dumper=_Dumper)
    assert isinstance(text, str)
    return text

"""Metrics of a program under Ray's names: `Counter`, `Gauge`, `Histogram`.

Each process keeps its own values (`rlray.core.metrics`), from any thread, in one or two microseconds. A metric that
is made again under the same name, in the same process, goes on with the same values; one that travels to a task or
actor counts there. Exported, counters and histograms of all processes add up, a gauge has one value for each process.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, TypeVar

from rlray.core.inspecting import metrics_text
from rlray.core.metrics import Kind, Tags, Values, registry

__all__ = ["Counter", "Gauge", "Histogram", "prometheus_text"]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_TAG_KEY = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_OURS = "rlray_"

_M = TypeVar("_M", bound="Metric")


class Metric:
    """What the three kinds have in common.

    A name that Prometheus does not allow gives a warning, and the values are dropped, as in Ray.

    Args:
        name: Letters, digits, underscores and colons. Names that begin with ``rlray_`` are the runtime's own.
        description: For people.
        tag_keys: Every value is recorded with a string for each of them, from its ``tags`` or the default ones.

    Raises:
        TypeError: ``tag_keys`` is no tuple of strings.
        ValueError: The name is empty or the runtime's, or is in use in this process for another kind of metric; or a
            tag key is not allowed.
    """

    _kind: ClassVar[Kind]

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        self._make(name, description, tag_keys)

    def _make(
        self, name: str, description: str, tag_keys: tuple[str, ...] | None, boundaries: tuple[float, ...] = ()
    ) -> None:
        self._name, self._description, self._tag_keys = name, description, () if tag_keys is None else tag_keys
        self._default_tags: dict[str, str] = {}
        self._values: Values | None = None
        valid = _is_valid(name)
        self._check_tag_keys()
        self._order = tuple(sorted(set(self._tag_keys)))
        if valid:
            self._values = registry.metric(name, self._kind, description, boundaries)

    def _check_tag_keys(self) -> None:
        if not isinstance(self._tag_keys, tuple):
            raise TypeError(
                f"tag_keys should be a tuple type, got: {type(self._tag_keys)}. "
                'For one key write tag_keys=("key",) with the comma'
            )
        for key in self._tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
            if not _TAG_KEY.fullmatch(key) or (key == "le" and self._kind == "histogram"):
                raise ValueError(
                    f"Tag key {key!r} of metric {self._name!r} is not allowed: use letters, digits and underscores, "
                    "no digit or two underscores first, and not 'le' in a histogram"
                )

    def set_default_tags(self: _M, default_tags: Mapping[str, str]) -> _M:
        """Tags of values that are recorded without them; returns the metric itself.

        Raises: ValueError for a key that is not in ``tag_keys``, TypeError for a value that is no string.
        """
        self._check_tags(default_tags)
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys and default tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _check_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if key not in self._order:
                raise ValueError(
                    f"Unrecognized tag key {key}. Metric {self._name!r} has tag_keys={self._tag_keys!r}; "
                    "name every key there"
                )
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)} for {key!r}; use str(...)")

    def _tags(self, tags: Mapping[str, str] | None) -> Tags:
        """All tags of a value that is recorded."""
        if not tags and not self._order:
            return ()
        if tags:
            self._check_tags(tags)
            tags = {**self._default_tags, **tags}
        else:
            tags = self._default_tags
        if len(tags) < len(self._order):
            missing = ",".join(key for key in self._tag_keys if key not in tags)
            raise ValueError(
                f"Missing value for tag key(s): {missing}. Give it with tags={{...}}, or once with set_default_tags()"
            )
        return tuple([(key, tags[key]) for key in self._order])

    def _arguments(self) -> tuple[Any, ...]:
        """What makes it again in another process."""
        return self._name, self._description, self._tag_keys

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self._arguments(), self._default_tags)


class Counter(Metric):
    """Something that only grows: how many, how much in all. Its exported name ends in ``_total``."""

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add ``value``.

        Raises: TypeError if it is no number or a tag no string; ValueError if it is not above zero, or for tags that
        are missing or unknown.
        """
        value = _as_number(value)
        if not 0 < value < math.inf:
            raise ValueError(f"value must be >0, got {value}; a Counter only grows: use a Gauge for what can shrink")
        tagged = self._tags(tags)
        if self._values is not None:
            self._values.add(tagged, value)


class Gauge(Metric):
    """Something that goes up and down: its last value counts, in each process."""

    _kind = "gauge"

    def set(self, value: float | None, tags: Mapping[str, str] | None = None) -> None:
        """Be ``value`` from now on; None changes nothing.

        Raises: TypeError if it is no number or a tag no string; ValueError for tags that are missing or unknown.
        """
        if value is None:
            return
        value = _as_number(value)
        tagged = self._tags(tags)
        if self._values is not None:
            self._values.set(tagged, value)


class Histogram(Metric):
    """How values are spread: how many lie up to each boundary, how many there are, and their sum.

    Args:
        name: As of every `Metric`.
        description: As of every `Metric`.
        boundaries: Upper ends of the buckets, above zero and ascending. One more bucket takes what is larger.
        tag_keys: As of every `Metric`.

    Raises: ValueError if there are no boundaries or wrong ones, or others in this process under the same name.
    """

    _kind = "histogram"

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        if boundaries is None or len(boundaries) == 0:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class. e.g., "
                'Histogram("name", boundaries=[1.0, 2.0])'
            )
        self.boundaries = boundaries
        for i, boundary in enumerate(boundaries):
            if not 0 < boundary < math.inf:
                raise ValueError(
                    f"Invalid `boundaries` argument at index {i}, {boundaries}. Use positive values for the arguments."
                )
            if i and boundary <= boundaries[i - 1]:
                raise ValueError(
                    f"Invalid `boundaries` argument at index {i}, {boundaries}. Use ascending values, each once."
                )
        self._make(name, description, tag_keys, tuple(float(boundary) for boundary in boundaries))

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Record one value.

        Raises: TypeError if it is no number or a tag no string; ValueError if it is not finite, or for tags that are
        missing or unknown.
        """
        value = _as_number(value)
        if not math.isfinite(value):
            raise ValueError(f"value must be finite, got {value}: the sum of a histogram would be lost for ever")
        tagged = self._tags(tags)
        if self._values is not None:
            self._values.observe(tagged, value)

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag keys, default tags and boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def _arguments(self) -> tuple[Any, ...]:
        return self._name, self._description, self.boundaries, self._tag_keys


def _again(cls: type[_M], arguments: tuple[Any, ...], default_tags: Mapping[str, str]) -> _M:
    return cls(*arguments).set_default_tags(default_tags)


def _is_valid(name: str) -> bool:
    if not isinstance(name, str):
        raise TypeError(f"the name of a metric must be str, got {type(name)}.")
    if not name:
        raise ValueError("Empty name is not allowed. Please provide a metric name.")
    if name.startswith(_OURS):
        raise ValueError(f"metric names that begin with {_OURS!r} are the runtime's own, got {name!r}; use another one")
    if not _NAME.fullmatch(name):
        warnings.warn(
            f"Invalid metric name: {name}. Metric will be discarded and data will not be collected or published. "
            "Metric names can only contain letters, numbers, _, and :. Metric names cannot start with numbers.",
            UserWarning,
            stacklevel=4,
        )
        return False
    return True


def _as_number(value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, Real):  # numpy's scalars too
        return float(value)
    raise TypeError(f"value must be int or float, got {type(value)}.")


def prometheus_text() -> str:
    """The metrics of every process of the run, the runtime's own and the program's, in Prometheus' text format.

    Counters and histograms of all processes add up; gauges have a label ``pid``. ``rlray metrics`` prints the same.

    Raises: RuntimeError if the runtime is not up.
    """
    return metrics_text()

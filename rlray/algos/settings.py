"""What the settings of all algorithms have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(value: Any) -> Any:
    """``1e6`` is a float to YAML, and a whole number to whoever writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _sequence(value: Any) -> Any:
    """YAML has lists, settings are frozen; a single number stands for a list of one."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (_whole(value),)
    return tuple(map(_whole, value)) if isinstance(value, list) else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_sequence)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
Fraction = Annotated[Finite, Field(ge=0, le=1)]


class Settings(BaseModel):
    """No unknown keys, no silent conversions, no changes once made; the text under a field describes it."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )

    def _without_effect(self, as_it_is: str, remedy: str, *names: str) -> None:
        """Refuse what was set to no effect; defaults may be written out, as in the file of a run."""
        for name in names:
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value != default:
                key = as_it_is.partition(":")[0]
                raise ValueError(
                    f"{name} {_shown(value)} has no effect with {as_it_is}: set {key}: {remedy}, or leave {name} out"
                )


def _shown(value: Any) -> str:
    return str(value.model_dump(mode="json")) if isinstance(value, BaseModel) else str(value)

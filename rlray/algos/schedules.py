"""Values that change over a run, as small settings that a YAML file can state."""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Schedule(BaseModel):
    """A piecewise-linear function of the agent steps done; constant before its first point and after its last.

    In YAML: a number (constant), a list of points ``[[0, 1.0], [40000, 0.02]]``, or the long form
    ``{points: [[0, 5.0e-4], [1, 0]], of: run}``. Two points at the same place make a jump, taken at that place.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: tuple[tuple[NonNegative, Finite], ...] = Field(min_length=1)
    """(where, value) pairs, ascending."""
    of: Literal["steps", "run"] = "steps"
    """What ``where`` counts: agent steps, or the part of the run that is done (0 to 1)."""

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"points": [(0, value)]}
        if isinstance(value, (list, tuple)):
            return {"points": value}
        return value

    @model_validator(mode="after")
    def _check_order(self) -> Schedule:
        places = [where for where, _ in self.points]
        if places != sorted(places):
            raise ValueError(f"the points of a schedule must ascend, got them at {places}")
        if self.of == "run" and places[-1] > 1:
            raise ValueError(f"with of: run the points lie within 0 and 1, got them at {places}")
        return self

    def at(self, step: int, total_steps: int | None = None) -> float:
        """The value after ``step`` agent steps; ``of: run`` needs the ``total_steps`` planned."""
        where = float(step)
        if self.of == "run":
            if not total_steps:
                raise ValueError("a schedule with of: run needs total_steps")
            where /= total_steps
        after = bisect_right(self.points, where, key=lambda point: point[0])
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (x0, y0), (x1, y1) = self.points[after - 1], self.points[after]
        return y0 + (y1 - y0) * (where - x0) / (x1 - x0)

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value it ever takes."""
        values = [value for _, value in self.points]
        return min(values), max(values)

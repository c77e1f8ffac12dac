"""What stands beside the core API, under the names that Ray gives it."""

from __future__ import annotations

# Not lazily: `placement_group` is the function here, as in Ray, although a module of that name lies in this package.
# The import system would put the module in its place when that is imported later.
from rlray.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

__all__ = [
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]

"""From what options ask for to a request: with what the one who asks passes on, and without what can never be."""

from __future__ import annotations

from rlray.core.exceptions import RayError
from rlray.core.placement_groups import check_room
from rlray.core.resources import Request, Shape, Wish, describe, fits
from rlray.core.runtime_env import merged


def check_possible(wish: Wish, total: Shape, node_id: str, error: type[RayError], what: str) -> None:
    """Raise ``error`` if a machine that has ``total`` can never give what ``wish`` asks for."""
    if not fits(wish.resources, dict(total)):
        raise error(
            f"{what} asks for {describe(wish.resources)}, but the cluster has {describe(total)} in all; "
            "ask for less, or give init() more"
        )
    if wish.node and wish.node != node_id:
        raise error(
            f"{what} wants to run on node {wish.node}, but the only node is {node_id}; "
            "pass soft=True to run elsewhere then"
        )


def as_request(wish: Wish, parent: Request | None, environment: str, what: str) -> Request:
    """The request of a task or actor that is started by something that runs with ``parent``, in ``environment``.

    Raises: ValueError if it goes into its parent's placement group and fits no bundle there.
    """
    if parent is not None and not parent.capture:
        parent = None
    group, bundles = wish.group or b"", wish.bundles
    if wish.group is None and parent is not None:
        group, bundles = parent.group, parent.capture
        check_room(wish.resources, bundles, -1, what)
    capture = bundles if (parent is not None if wish.capture is None else wish.capture) else ()
    return Request(wish.resources, merged(environment, wish.environment), group, wish.bundle, capture)

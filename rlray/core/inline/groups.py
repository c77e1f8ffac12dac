"""Placement groups of the inline engine: placed at once, because nothing in one process waits for resources."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlray.core.exceptions import RaySystemError, TaskPlacementGroupRemoved
from rlray.core.inline.jobs import running, running_request
from rlray.core.inline.ledger import Grant, Ledger
from rlray.core.placement_groups import PlacementGroup
from rlray.core.pools import Pool, take_together
from rlray.core.refs import ObjectRef
from rlray.core.resources import UNIT, Request, Shape, amounts, describe, fits
from rlray.core.serialization import dumps_error

if TYPE_CHECKING:
    from rlray.core.inline.values import Values

_REMEMBERED = 1_000  # removed groups


class _Group:
    """A placement group and what it has set aside."""

    def __init__(self, bundles: tuple[Shape, ...], strategy: str, name: str, maker: bytes | None) -> None:
        self.bundles, self.strategy, self.name = bundles, strategy, name
        self.maker = maker  # the actor that it ends with
        self.grants: list[Grant] = []
        self.ledgers: list[Ledger] = []  # of the bundles
        self.removed = False


class Groups:
    """All groups of a run. What fits into the machine is placed at once, also where others hold it already."""

    def __init__(
        self,
        values: Values,
        ledger: Ledger,
        gpus: tuple[str, ...],
        node_id: str,
        evict: Callable[[bytes], None],
    ) -> None:
        self._values, self._ledger, self._gpus, self._node_id = values, ledger, gpus, node_id
        self._evict = evict  # ends what runs in a group that was removed
        self._groups: dict[bytes, _Group] = {}
        self._names: dict[str, bytes] = {}
        self._removed: deque[bytes] = deque()

    # -- the GroupTable interface ------------------------------------------------------------------------------------

    def create(self, bundles: tuple[Shape, ...], strategy: str, name: str, detached: bool) -> bytes:
        """Set a group's resources aside; its id. Raises ValueError if this machine can never hold it."""
        total = self._ledger.total
        if take_together(Pool(total, dict.fromkeys(self._gpus, UNIT)), bundles) is None:
            raise ValueError(
                f"the bundles {', '.join(map(describe, bundles))} can never be placed together: the cluster has "
                f"{describe(total)} in all; ask for less, or give init() more"
            )
        job = running.get()
        maker = job.actor.id if job is not None and job.actor is not None and not detached else None
        number, group = self._values.new_id(), _Group(bundles, strategy, name, maker)
        with self._values.lock:
            if name and self._names.setdefault(name, number) != number:
                raise RaySystemError(
                    f"a placement group named {name!r} already exists; choose another name, or remove that group first"
                )
            self._groups[number] = group
        group.grants = [self._ledger.take(bundle) for bundle in bundles]
        group.ledgers = [Ledger(grant.resources, grant.gpus, self._values.lock) for grant in group.grants]
        return number

    def remove(self, group: bytes) -> None:
        """Give the resources back and end what runs with them."""
        with self._values.lock:
            known = self._groups.get(group)
            if known is None or known.removed:
                return
            known.removed = True
            if known.name:
                del self._names[known.name]
            self._removed.append(group)
            if len(self._removed) > _REMEMBERED:
                del self._groups[self._removed.popleft()]
        for grant in known.grants:
            grant.give_back()
        self._evict(group)

    def wait(self, group: bytes, timeout: float | None) -> bool:
        """True: it was placed at once. Raises ValueError if it was removed."""
        if self._is_removed(group):
            raise ValueError(f"placement group {group.hex()} does not exist: it has been removed")
        return True

    def ready(self, handle: PlacementGroup) -> ObjectRef:
        """A reference that has ``handle``, or an error if the group was removed."""
        ref = self._values.own()
        if self._is_removed(handle.id.binary()):
            error = TaskPlacementGroupRemoved("the placement group has been removed")
            self._values.resolve(ref.entry, ("error", dumps_error(error)))
        else:
            self._values.resolve(ref.entry, *self._values.place(handle, "a placement group"))
        return ref

    def find(self, name: str) -> bytes:
        """The living group of that name. Raises ValueError if there is none."""
        found = self._names.get(name)
        if found is None:
            raise ValueError(f"there is no placement group named {name!r}")
        return found

    def table(self, group: bytes | None) -> dict[str, dict[str, Any]]:
        """How the group stands, or all groups, by id."""
        with self._values.lock:
            chosen = [(number, known) for number, known in self._groups.items() if group in (None, number)]
        return {
            number.hex(): {
                "placement_group_id": number.hex(),
                "name": known.name,
                "bundles": {index: amounts(bundle) for index, bundle in enumerate(known.bundles)},
                "bundles_to_node_id": dict.fromkeys(range(len(known.bundles)), self._node_id),
                "strategy": known.strategy,
                "state": "REMOVED" if known.removed else "CREATED",
            }
            for number, known in chosen
        }

    def rows(self) -> list[tuple[bytes, tuple[str, str] | None, list[dict[str, float]], str, str]]:
        """Every group: id, (namespace, name), bundles, strategy, state."""
        return [
            (
                number,
                ("", known.name) if known.name else None,
                [amounts(bundle) for bundle in known.bundles],
                known.strategy,
                "removed" if known.removed else "created",
            )
            for number, known in list(self._groups.items())
        ]

    def bundles(self, group: bytes) -> tuple[Shape, ...]:
        """What the group was asked to set aside. Raises ValueError if nothing is known of it."""
        known = self._groups.get(group)
        if known is None:
            raise ValueError(f"placement group {group.hex()} does not exist: it has been removed")
        return known.bundles

    def current(self) -> bytes:
        """The group that the calling task or actor runs in; empty if none."""
        request = running_request()
        return request.group if request is not None else b""

    # -- for tasks and actors ----------------------------------------------------------------------------------------

    def take(self, request: Request) -> Grant:
        """Grant a request, from its group if it names one. Raises TaskPlacementGroupRemoved if that was removed."""
        if not request.group:
            return self._ledger.take(request.resources)
        known = self._groups.get(request.group)
        if known is None or known.removed:
            raise TaskPlacementGroupRemoved
        ledgers = known.ledgers
        if request.bundle >= 0:
            return ledgers[request.bundle].take(request.resources)
        able = [ledger for ledger in ledgers if fits(request.resources, dict(ledger.total))]
        free = [ledger for ledger in able if ledger.has_room(request.resources)]
        return (free or able)[0].take(request.resources)

    def actor_gone(self, actor: bytes) -> None:
        """The groups that an actor has made end with it."""
        with self._values.lock:
            made = [number for number, known in self._groups.items() if known.maker == actor and not known.removed]
        for number in made:
            self.remove(number)

    def _is_removed(self, group: bytes) -> bool:
        known = self._groups.get(group)
        return known is None or known.removed

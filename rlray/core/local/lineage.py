"""How large results were made, so that one that is lost can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlray.core.local.references import Entry
from rlray.core.local.tasks import Task

if TYPE_CHECKING:
    from rlray.core.local.client import Client

_DEEPEST = 100  # results that were made from one another and are remembered: a loop must not remember for ever


class Lineage:
    """A task that has ended, without what would keep its arguments, or its results, alive."""

    __slots__ = ("dependencies", "depth", "results", "task")

    def __init__(self, task: Task, depth: int) -> None:
        self.task = task
        self.results = [entry.id for entry in task.entries]  # not the entries, which have this
        self.dependencies: list[Entry] = [ref.entry for ref in task.dependencies]  # type: ignore[attr-defined]
        self.depth = depth
        task.dependencies = task.entries = ()


def remember(task: Task) -> None:
    """A task has ended: keep what is needed to run it again if one of its results should be lost.

    That is a task that may be retried, whose arguments travelled inside its message. Its references among the arguments
    are not kept alive: what they stood for is made again too, if need be.
    """
    if task.spec.max_retries == 0 or task.actor is not None or task.refs or task.arguments[0] == "stored":
        return
    before = [ref.entry.lineage for ref in task.dependencies]  # type: ignore[attr-defined]
    depth = 1 + max((one.depth for one in before if one is not None), default=0)
    if depth <= _DEEPEST:
        entries = task.entries
        lineage = Lineage(task, depth)
        for entry in entries:
            entry.lineage = lineage


def make_again(client: Client, entry: Entry) -> bool:
    """Run the task again that made a lost value; False if that cannot be. Call under the loop's lock."""
    needed: list[Entry] = []
    if not _can(client, entry, needed):
        return False
    for lost in needed:
        client.references.revive(lost)
    for lineage in {id(lost.lineage): lost.lineage for lost in needed}.values():  # one may have made several of them
        _run(client, lineage)
    return True


def _can(client: Client, entry: Entry, needed: list[Entry]) -> bool:
    """Whether a lost value can be made; ``needed`` gets it and all that must be made again before it."""
    if entry in needed:
        return True
    if entry.lineage is None:
        return False
    lost = [one for one in entry.lineage.dependencies if client.references.entries.get(one.id) is not one]
    if not all(_can(client, one, needed) for one in lost):
        return False
    needed.append(entry)
    return True


def _run(client: Client, lineage: Lineage) -> None:
    old, references = lineage.task, client.references
    task = Task(references.new_task_id(), old.spec, old.arguments)
    task.slots, task.lane = old.slots, old.lane
    task.dependencies = [references.adopt(one.id) for one in lineage.dependencies]
    for one in lineage.results:
        if one not in references.entries:  # nobody wants this one of the results: it goes as soon as it comes
            references.revive(Entry(one, True))
    task.entries = [references.entries[one] for one in lineage.results]
    for entry in task.entries:
        if entry.payload is None:
            entry.task = task
    client.run_again(task)

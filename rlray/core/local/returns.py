"""What calls return, put where their callers can read it, and handed over to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rlray.core.calls import results_of
from rlray.core.local.jobs import Answer, Answers, Job, Odd
from rlray.core.local.references import Payload
from rlray.core.refs import ObjectRef
from rlray.core.serialization import IMMUTABLE

if TYPE_CHECKING:
    from rlray.core.local.client import Client

_SHORT_TYPES = IMMUTABLE - {str, bytes}
_LONG = 10_000  # characters or bytes: longer ones do not travel among the others of a message

Placed = tuple[Payload, list[ObjectRef]]
"""A result where it can be read from, and the references inside."""

ItemFailed = Callable[[Job, BaseException], tuple[Payload, list[bytes], bool]]
"""What an item of a chunk has raised, as it stands among the odd ones."""


class Returns:
    """The results of one worker. What cannot be sent after all leaves nothing behind."""

    def __init__(self, client: Client, answers: Answers) -> None:
        self._client, self._answers = client, answers

    def answer(self, job: Job, result: Any) -> Answer:
        """What a job has returned, ready to travel."""
        count = job.spec.num_returns
        if count == 1 and _travels_as_it_is(result):
            return (job.id, result)
        placed: list[Placed] = []
        try:
            for value in results_of(job.spec.name, count, result):
                placed.append(self._place(job, value))  # noqa: PERF401
        except BaseException:
            self._take_away(placed)
            raise
        self._keep(job, placed)
        return (job.id, self._hand_over(job, placed), None, False)

    def chunk(self, job: Job, values: list[Any], odd: Odd, seconds: float, failed: ItemFailed) -> Answer:
        """The results of a chunk, ready to travel: those that are immutable as they are, the ``odd`` ones apart."""
        placed: dict[int, Placed] = {}
        if not set(map(type, values)) <= _SHORT_TYPES:
            try:
                for index, value in enumerate(values):
                    if not _travels_as_it_is(value):
                        values[index] = None
                        try:
                            placed[index] = self._place(job, value)
                        except BaseException as error:
                            odd[index] = failed(job, error)
            except BaseException:
                self._take_away(placed.values())
                raise
        self._keep(job, placed.values())
        for index, (payload, inner) in zip(placed, self._hand_over(job, placed.values()), strict=True):
            odd[index] = payload, inner, False
        return (job.id, (values, odd, seconds), None, False)

    def yielded(self, job: Job, value: Any) -> tuple[Payload, list[bytes], list[ObjectRef]]:
        """A value of a generator, as it travels, and the references inside, which must live until it has left."""
        placed = self._place(job, value)
        [(payload, inner)] = self._hand_over(job, [placed])
        return payload, inner, placed[1]

    def _keep(self, job: Job, placed: Iterable[Placed]) -> None:
        for _, refs in placed:
            self._answers.keep(job.id, refs)

    def _place(self, job: Job, value: Any) -> Placed:
        return self._client.values.place(value, f"the result of {job.spec.name}")

    def _take_away(self, placed: Iterable[Placed]) -> None:
        with self._client.loop.lock:
            for payload, _ in placed:
                self._client.values.free(payload)

    def _hand_over(self, job: Job, placed: Iterable[Placed]) -> list[tuple[Payload, list[bytes]]]:
        """Results as they travel; from here on they are the caller's."""
        values, references = self._client.values, self._client.references
        with self._client.loop.lock:
            for payload, _ in placed:
                values.lend(payload, job.caller)
            return [(payload, references.grant(refs, job.caller)) for payload, refs in placed]


def _travels_as_it_is(value: Any) -> bool:
    return type(value) in IMMUTABLE and not (isinstance(value, str | bytes) and len(value) > _LONG)

"""The list of named actors."""

from __future__ import annotations

import pytest

import rlray
from rlray.util import list_named_actors
from tests import support

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.every_engine]


@rlray.remote
class Actor:
    def ready(self) -> bool:
        return True


def test_named_actors_are_listed_while_they_live() -> None:
    assert list_named_actors() == []
    unnamed, here, elsewhere = (
        Actor.remote(),
        Actor.options(name="here").remote(),
        Actor.options(name="there", namespace="elsewhere").remote(),
    )
    rlray.get([actor.ready.remote() for actor in (unnamed, here, elsewhere)])
    namespace = rlray.get_runtime_context().namespace
    assert list_named_actors() == ["here"]
    assert list_named_actors(all_namespaces=True) == sorted(
        [{"name": "here", "namespace": namespace}, {"name": "there", "namespace": "elsewhere"}],
        key=lambda entry: entry["namespace"],
    )
    assert rlray.get(rlray.remote(list_named_actors).remote()) == ["here"]
    rlray.kill(here)
    assert support.wait_until(lambda: list_named_actors() == [], 30)

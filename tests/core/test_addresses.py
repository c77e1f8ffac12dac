"""Every address that a program may give, tried on a cluster that was started as a person starts one, with a token."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.conftest import NO_RAY, STORE
from tests.support import REPOSITORY, Driver, run_driver, wait_until
from tests.train.conftest import toy_config

pytestmark = [NO_RAY, pytest.mark.timeout(300)]


@dataclass
class Head:
    """A cluster of one node: where it is, and what the environment of those who join it must have."""

    address: str
    client: str
    environment: dict[str, str]

    def at(self, kind: str) -> str:
        """The address of that kind."""
        return {"host:port": self.address, "ray://host:port": self.client}.get(kind, kind)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """``ray start --head`` with two CPUs."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": ""}
    client = free_port()
    options = [
        "--head", "--block", "--port=0", "--num-cpus=2", f"--object-store-memory={STORE['ray']}",
        f"--ray-client-server-port={client}", "--include-dashboard=false", "--disable-usage-stats",
    ]  # fmt: skip
    with Driver("ray.scripts.scripts", "start", *options, python=("-m",), **environment) as driver:
        assert wait_until(lambda: "block forever" in driver.output, 60), driver.output
        found = re.search(r"address='(([\d.]+):\d+)'", driver.output)
        assert found, driver.output
        yield Head(found[1], f"ray://{found[2]}:{client}", {**environment, "TMPDIR": str(driver.folder)})


KINDS = ("auto", "host:port", "ray://host:port", "local-ray")
"""What `docs/cluster.md` lists."""
every_address = pytest.mark.parametrize("kind", KINDS)

PROGRAM = """
import sys
import numpy as np
import rlray as ray
from rlray.exceptions import ActorDiedError, GetTimeoutError
from rlray.util.placement_group import placement_group, remove_placement_group
from rlray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

ray.init(address=sys.argv[1])

@ray.remote
def add(a, b=1):
    return a + b

@ray.remote(num_returns=2)
def both(a, b):
    return a, b

@ray.remote
def total(array, boxed):
    return float(array.sum() + ray.get(boxed["array"]).sum())

@ray.remote
def fail():
    raise KeyError("no")

@ray.remote
def nap():
    import time
    time.sleep(60)

@ray.remote
class Counter:
    def __init__(self, start):
        self.count = start

    def add(self, by):
        self.count += by
        return self.count

    def group(self):
        return ray.get_runtime_context().get_placement_group_id()

assert ray.cluster_resources()["CPU"] >= 1 and len(ray.nodes()) == 1
assert ray.get([add.remote(add.remote(i), b=2) for i in range(20)]) == [i + 3 for i in range(20)]
assert ray.get(both.remote(1, "x")) == [1, "x"]
assert ray.get(list(add.map(range(50)))) == list(range(1, 51))
array = np.arange(3_000_000, dtype=np.float64)
ref = ray.put(array)
assert np.array_equal(ray.get(ref), array) and ray.get(ref).dtype == array.dtype
assert ray.get(total.remote(ref, {"array": ref})) == 2 * array.sum()
slow = nap.remote()
ready, rest = ray.wait([slow, add.remote(1)], num_returns=1, timeout=30)
assert ray.get(ready) == [2] and rest == [slow]
try:
    ray.get(slow, timeout=0.2)
    raise SystemExit("no timeout")
except GetTimeoutError as late:
    assert "still missing 1 of 1 values: nap" in str(late), late
ray.cancel(slow, force=True)
try:
    ray.get(fail.remote())
    raise SystemExit("no error")
except KeyError as error:
    assert isinstance(error, ray.exceptions.RayTaskError), type(error)
counter = Counter.options(name="counter").remote(5)
assert ray.get([counter.add.remote(1) for _ in range(5)]) == [6, 7, 8, 9, 10]
assert ray.get(ray.get_actor("counter").add.remote(1)) == 11
assert ray.get(ray.remote(lambda handle: ray.get(handle.add.remote(1))).remote(counter)) == 12
group = placement_group([{"CPU": 1}])
assert group.wait(30)
inside = Counter.options(num_cpus=1, scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote(0)
assert ray.get(inside.group.remote()) == group.id.hex()
remove_placement_group(group)
ray.kill(counter)
try:
    while True:  # one more call may be in time
        ray.get(counter.add.remote(1), timeout=30)
except ActorDiedError:
    pass
assert ray.get(ref)[-1] == 2_999_999
context = ray.get_runtime_context()
assert context.get_job_id() and context.get_node_id()
ray.shutdown()
assert not ray.is_initialized()
print("all of it")
"""


@every_address
def test_a_program_runs_at_every_address(head: Head, kind: str) -> None:
    assert "all of it" in run_driver(PROGRAM, head.at(kind), timeout=120, **head.environment)


CONFIG = toy_config(
    stop={"steps": 200},
    simulators={"count": 1, "envs": 4, "fragment_length": 10, "num_cpus": 0.5},
    learner={"num_cpus": 0.5},
    eval={"every": None, "episodes": 1, "final_episodes": 2},
)


@every_address
@pytest.mark.parametrize("said", ["in the file", "on the command line"])
def test_a_run_trains_at_every_address(head: Head, kind: str, said: str, tmp_path: Path) -> None:
    """From ``engine: {kind: ray, address: …}``, and from ``--engine ray --address …``."""
    arguments = ["train", "--config", "toy.yaml"]
    config = dict(CONFIG)
    if said == "in the file":
        config["engine"] = {"kind": "ray", "address": head.at(kind)}
    else:
        arguments += ["--engine", "ray", "--address", head.at(kind)]
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    with Driver("rlray.cli", *arguments, python=("-m",), cwd=tmp_path, **head.environment, PYTHONPATH=path) as driver:
        out = driver.finish(120)
    assert driver.process.returncode == 0, out
    assert "stopped by steps at step 200" in out
    assert "1.00 ± 0.00" in out


ONLY_ON_THE_CLUSTER = """
import sys
import numpy as np
import rlray as ray

ray.init(address=sys.argv[1])

@ray.remote(num_returns="streaming")
def generator():
    yield 1

@ray.remote(concurrency_groups={"io": 2})
class Actor:
    @ray.method(concurrency_group="io")
    def read(self):
        return 1

actor = Actor.remote()
for call in (generator.remote, actor.read.remote):
    try:
        call()
        raise SystemExit("that should not go")
    except NotImplementedError as error:
        print("told:", error)
"""

THROUGH_THE_CLIENT = """
import asyncio, sys
import rlray as ray
from rlray.exceptions import ActorAlreadyExistsError
from rlray.util.multiprocessing import Pool
from rlray.util.queue import Queue

ray.init(address=sys.argv[1])
box = ray.put([ray.put(b"inside" * 100_000)])
[inner] = ray.get(box)
del box
assert ray.get(inner, timeout=20) == b"inside" * 100_000, "a reference inside a value"

@ray.remote
class Actor:
    def number(self):
        return 7

@ray.remote
def make():
    return [Actor.remote(), ray.put(8)]

actor, ref = ray.get(make.remote())
assert ray.get(actor.number.remote()) == 7 and ray.get(ref) == 8, "handles and references that come back"
with Pool(2) as pool:
    assert pool.map(lambda x: 2 * x, range(10)) == [2 * x for x in range(10)], "futures whose callbacks make calls"

async def main():
    return await make.remote()

assert ray.get(asyncio.run(main())[1]) == 8
queue = Queue()
queue.put(1)
assert queue.get(timeout=20) == 1
named = Actor.options(name="one").remote()
try:
    Actor.options(name="one").remote()
    raise SystemExit("the name was taken")
except ActorAlreadyExistsError:
    pass
print("all of it")
"""


def test_what_rays_client_can_do(head: Head) -> None:
    assert "all of it" in run_driver(THROUGH_THE_CLIENT, head.client, timeout=120, **head.environment)


def test_what_rays_client_cannot_do_is_refused_at_once(head: Head) -> None:
    out = run_driver(ONLY_ON_THE_CLUSTER, head.client, timeout=120, **head.environment)
    assert re.search(r"told: generator is a generator.*ray://.*ray job submit", out)
    assert re.search(r"told: Actor.read names a concurrency group.*ray job submit", out)


@pytest.mark.parametrize("kind", ["host:port", "ray://host:port"])
def test_who_has_another_token_is_not_let_in(head: Head, kind: str) -> None:
    out = run_driver(REFUSED, head.at(kind), timeout=120, **{**head.environment, "RAY_AUTH_TOKEN": "0" * 64})
    assert re.search(rf"told: .*{re.escape(head.at(kind))}.*the token", out), out


REFUSED = """
import sys
import rlray
try:
    rlray.init(address=sys.argv[1])
except ConnectionError as error:
    print("told:", str(error).replace(chr(10), " "))
assert not rlray.is_initialized()
"""


@pytest.mark.parametrize("kind", ["host:port", "ray://host:port", "auto", "auto from the environment"])
def test_where_no_cluster_is_the_error_says_so(kind: str, tmp_path: Path) -> None:
    port = free_port()
    where = f"127.0.0.1:{port}"
    address = {"host:port": where, "ray://host:port": f"ray://{where}"}.get(kind, "auto")
    environment = {"RAY_ADDRESS": where if "environment" in kind else "", "RAY_AUTH_MODE": "token"}
    out = run_driver(REFUSED, address, TMPDIR=str(tmp_path), **environment)
    assert re.search(rf"told: .*address='{re.escape(address)}'.*ray start --head", out), out
    assert kind == "auto" or str(port) in out

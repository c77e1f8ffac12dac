"""A full store: idle values go to disk and are read from there, values in use stay, and nothing is ever lost.

The store of these tests holds 80 MB, so a dozen blocks of 8 MB do not fit.
"""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.exceptions import ObjectLostError, ObjectStoreFullError
from tests.support import Driver, run_driver, wait_until

MB = 1_000_000
CAPACITY = 80 * 1024 * 1024


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where values are spilled to; the runtime is up."""
    folder = tmp_path_factory.mktemp("disk")
    rlray.init(num_cpus=4, object_store_memory=CAPACITY, object_spilling_directory=folder)
    yield folder
    rlray.shutdown()
    assert list(folder.iterdir()) == [], "files were left behind"


@pytest.fixture(autouse=True)
def _nothing_spilled_is_left(disk: Path) -> Iterator[None]:
    """The file of a value goes with its last reference."""
    yield
    gc.collect()
    assert wait_until(lambda: not files(disk)), f"left on disk: {files(disk)}"


def files(disk: Path) -> list[Path]:
    return [path for path in disk.rglob("*") if path.is_file()]


def block(i: int, size: int = 8 * MB) -> np.ndarray[Any, Any]:
    return np.full(size, i % 251, dtype=np.uint8)


def holds(array: Any, i: int) -> bool:
    return bool((array == i % 251).all())


@rlray.remote
class Holder:
    def __init__(self) -> None:
        self.kept: Any = None

    def keep(self, value: Any) -> int:
        self.kept = value
        return os.getpid()

    def first_byte(self) -> int:
        value = rlray.get(self.kept[0]) if isinstance(self.kept, list) else self.kept
        return int(value[0])


def test_more_than_fits_is_put_and_read_back(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(30)]
    assert len(files(disk)) >= 15
    assert sum(path.stat().st_size for path in files(disk)) >= 150 * MB
    assert all(holds(rlray.get(ref), i) for i, ref in enumerate(refs))
    assert [holds(array, i) for i, array in enumerate(rlray.get(refs))] == [True] * 30  # all of them at once


def test_only_this_user_can_read_what_is_on_disk(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(12)]
    [folder] = disk.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(disk)} == {0o600}
    del refs


def test_results_of_tasks_are_spilled_by_the_driver_that_owns_them(disk: Path) -> None:
    make = rlray.remote(block)
    refs = [make.remote(i) for i in range(30)]
    rlray.wait(refs, num_returns=30)
    assert len(files(disk)) >= 15
    assert [holds(rlray.get(ref), i) for i, ref in enumerate(refs)] == [True] * 30


def test_spilled_values_are_arguments_like_others(disk: Path) -> None:
    refs = [rlray.put({"array": block(i), "text": "x" * 200_000, "few": np.arange(3)}) for i in range(20)]
    assert files(disk)
    look = rlray.remote(lambda v: (int(v["array"][-1]), len(v["text"]), v["few"].tolist(), v["array"].flags.writeable))
    assert rlray.get([look.remote(ref) for ref in refs]) == [(i, 200_000, [0, 1, 2], False) for i in range(20)]
    fetch = rlray.remote(lambda box: int(rlray.get(box[0])["array"][-1]))
    assert rlray.get([fetch.remote([ref]) for ref in refs]) == list(range(20))


def test_references_inside_spilled_values_keep_what_they_name(disk: Path) -> None:
    refs = [rlray.put([block(i), rlray.put(f"inner {i}")]) for i in range(20)]
    assert files(disk)
    assert [rlray.get(rlray.get(ref)[1]) for ref in refs] == [f"inner {i}" for i in range(20)]


def test_arrays_that_are_read_stay_where_they_are(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(6)]
    arrays = rlray.get(refs)
    places = [array.__array_interface__["data"][0] for array in arrays]
    more = [rlray.put(block(i)) for i in range(6, 24)]
    assert all(holds(array, i) for i, array in enumerate(arrays))
    again = rlray.get(refs)
    assert [array.__array_interface__["data"][0] for array in again] == places, "a value moved under its readers"
    assert all(holds(rlray.get(ref), i) for i, ref in enumerate(more, 6))


def test_an_array_from_disk_outlives_its_reference_and_its_file(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(20)]
    [path, *_] = files(disk)
    arrays = rlray.get(refs)
    del refs
    gc.collect()
    assert wait_until(lambda: not path.exists())
    assert all(holds(array, i) for i, array in enumerate(arrays))


def test_values_that_others_hold_stay_and_come_free_later(disk: Path) -> None:
    holder = Holder.remote()
    refs = [rlray.put(block(i, 20 * MB)) for i in range(3)]
    rlray.get(holder.keep.remote(list(refs)))
    more = [rlray.put(block(i)) for i in range(3, 10)]
    assert holds(rlray.get(refs[0]), 0)
    assert rlray.get(holder.first_byte.remote()) == 0
    assert all(holds(rlray.get(ref), i) for i, ref in enumerate(more, 3))
    rlray.get(holder.keep.remote(None))
    assert [holds(rlray.get(ref), i) for i, ref in enumerate(refs)] == [True] * 3


def test_large_arguments_of_calls_that_wait_are_whole_when_they_run(disk: Path) -> None:
    gate = rlray.remote(lambda: time.sleep(1.0)).remote()
    look = rlray.remote(lambda _, array: (int(array[0]), int(array[-1])))
    calls = [look.remote(gate, block(i)) for i in range(4)]
    churn = [rlray.put(block(i)) for i in range(20)]
    assert rlray.get(calls) == [(i, i) for i in range(4)]
    assert all(holds(rlray.get(ref), i) for i, ref in enumerate(churn))


def test_workers_spill_what_they_own(disk: Path) -> None:
    """An actor's own puts fill the store; then the driver needs room."""

    @rlray.remote
    class Owner:
        def __init__(self) -> None:
            self.refs = [rlray.put(block(i)) for i in range(8)]

        def check(self) -> bool:
            return all(holds(rlray.get(ref), i) for i, ref in enumerate(self.refs))

    owner = Owner.remote()
    assert rlray.get(owner.check.remote())
    refs = [rlray.put(block(i)) for i in range(8)]
    assert rlray.get(owner.check.remote())
    assert all(holds(rlray.get(ref), i) for i, ref in enumerate(refs))


def test_a_full_store_says_who_keeps_it_full(disk: Path) -> None:
    holder = Holder.remote()
    refs = [rlray.put(block(i, 20 * MB)) for i in range(2)]
    rlray.get(holder.keep.remote(list(refs)))
    read = rlray.get(rlray.put(block(9, 25 * MB)))
    array = rlray.empty(5 * MB, np.uint8)
    array[:] = 1
    with pytest.raises(ObjectStoreFullError) as caught:
        rlray.put(block(1, 40 * MB))
    text = str(caught.value)
    assert re.search(r"no room for 40\.0 MB .*: 70\.0 MB of 83\.9 MB are taken and cannot go to disk", text)
    holders = re.search(r"Largest holders: (.*?); (.*?)\. Largest values: (.*?); (.*?); (.*?)\. Drop", text)
    assert holders is not None, text
    assert re.fullmatch(r"actor Holder \(pid \d+\): 40\.0 MB behind references that it holds", holders[1])
    me = rf"the driver \(pid {os.getpid()}\)"
    assert re.fullmatch(me + r": 25\.0 MB in arrays that it has read, 5\.0 MB in arrays of empty\(\)", holders[2])
    assert re.fullmatch(rf"25\.0 MB put at .*/test_spilling\.py:\d+ \(kept by {me}\)", holders[3])
    assert re.fullmatch(r"20\.0 MB put at .*/test_spilling\.py:\d+ \(kept by actor Holder \(pid \d+\)\)", holders[4])
    assert "object_store_memory" in text
    assert holds(read, 9)
    del read, array
    gc.collect()
    assert holds(rlray.get(rlray.put(block(1, 40 * MB))), 1)


def test_a_waiting_put_goes_on_when_a_reader_lets_go(disk: Path) -> None:
    arrays = [rlray.get(rlray.put(block(9, 70 * MB)))]
    threading.Timer(0.5, arrays.clear).start()
    assert holds(rlray.get(rlray.put(block(1, 40 * MB))), 1)


def test_a_run_that_ends_while_it_spills_leaves_nothing(tmp_path: Path) -> None:
    code = """
import sys, numpy as np, rlray
from rlray.core.engine import current
for _ in range(5):
    rlray.init(num_cpus=1, object_store_memory=80 << 20, object_spilling_directory=sys.argv[1])
    refs = [rlray.put(np.full(8_000_000, i, np.uint8)) for i in range(8)]
    current().values.make_room(60_000_000, lambda moved, kept: None)
    rlray.shutdown()
print("over")
"""
    folder = tmp_path / "spilled"
    folder.mkdir()
    assert run_driver(code, str(folder)).strip() == "over"
    assert list(folder.iterdir()) == []


def test_a_lost_file_is_named(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(20)]
    for path in files(disk):
        path.unlink()
    lost = [ref for ref in refs if not readable(ref)]
    assert len(lost) >= 5
    with pytest.raises(ObjectLostError, match=str(disk)):
        rlray.get(lost[0])
    with pytest.raises(ObjectLostError, match=str(disk)):
        rlray.get(rlray.remote(lambda array: array[0]).remote(lost[0]))


def test_a_lost_result_is_made_again_by_its_task(disk: Path) -> None:
    make, look = rlray.remote(block), rlray.remote(lambda array: int(array[0]))
    refs = [make.remote(i) for i in range(20)]
    rlray.wait(refs, num_returns=20)
    assert files(disk)
    for path in files(disk):
        path.unlink()
    assert rlray.get([look.remote(ref) for ref in refs]) == list(range(20))  # lost in the eyes of others
    for path in files(disk):
        path.unlink()
    assert all(holds(rlray.get(ref), i) for i, ref in enumerate(refs))


def test_who_can_make_a_lost_value_again_is_asked_to(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlray.core.engine import current

    client: Any = current()
    refs = [rlray.put(block(i)) for i in range(20)]
    for path in files(disk):
        path.unlink()
    lost = [ref for ref in refs if not readable(ref)]
    asked = []

    def recover(ref: Any) -> bool:
        asked.append(ref)
        if ref == lost[0]:
            client.references.entry(ref).payload, _ = client.values.place(block(99))
        return bool(ref == lost[0])

    monkeypatch.setattr(client.values, "recover", recover)
    assert holds(rlray.get(lost[0]), 99)
    with pytest.raises(ObjectLostError, match=str(disk)):
        rlray.get(lost[1])
    assert asked == lost[:2]


def readable(ref: Any) -> bool:
    try:
        rlray.get(ref)
    except ObjectLostError:
        return False
    return True


def test_a_changed_file_is_not_read(disk: Path) -> None:
    refs = [rlray.put(block(i)) for i in range(20)]
    for path in files(disk):
        os.truncate(path, 1000)
    lost = [ref for ref in refs if not readable(ref)]
    with pytest.raises(ObjectLostError, match="changed"):
        rlray.get(lost[0])


def test_values_on_disk_outlive_the_death_of_readers(disk: Path) -> None:
    @rlray.remote(max_retries=0)
    def die_reading(array: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    refs = [rlray.put(block(i)) for i in range(20)]
    with pytest.raises(rlray.exceptions.WorkerCrashedError):
        rlray.get(die_reading.remote(refs[0]))
    assert holds(rlray.get(refs[0]), 0)


def test_values_on_disk_outlive_their_owner_as_long_as_somebody_refers_to_them(disk: Path) -> None:
    @rlray.remote
    class Owner:
        def __init__(self) -> None:
            self.refs = [rlray.put(block(i)) for i in range(20)]

        def give(self) -> Any:
            return self.refs[:5], os.getpid()

    owner = Owner.remote()
    refs, pid = rlray.get(owner.give.remote())
    rlray.wait(refs, num_returns=5)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(rlray.exceptions.RayActorError):
        rlray.get(owner.give.remote())
    assert wait_until(lambda: len(files(disk)) == 5), "the others have no reader left"
    assert all(holds(rlray.get(ref), i) for i, ref in enumerate(refs))


def test_a_dead_worker_takes_no_result_with_it(disk: Path) -> None:
    """Results lie where the worker wrote them, also after its death; then they are spilled like others."""

    @rlray.remote
    class Maker:
        def make(self, i: int) -> Any:
            return block(i)

        def pid(self) -> int:
            return os.getpid()

    maker = Maker.remote()
    refs = [maker.make.remote(i) for i in range(6)]
    rlray.wait(refs, num_returns=6)
    first = rlray.get(refs[0])
    os.kill(rlray.get(maker.pid.remote()), signal.SIGKILL)
    with pytest.raises(rlray.exceptions.RayActorError):
        rlray.get(maker.pid.remote())
    more = [rlray.put(block(i)) for i in range(6, 20)]
    assert holds(first, 0)
    assert len(files(disk)) >= 8
    assert [holds(rlray.get(ref), i) for i, ref in enumerate([*refs, *more])] == [True] * 20


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_lives_in_a_store_that_is_always_too_small(disk: Path, seed: int) -> None:
    """Seeded puts, results, drops, copies through actors and held arrays; a dictionary says what must be read."""
    rng = random.Random(seed)
    make = rlray.remote(lambda step, size: (step, block(step, size)))
    holders = [Holder.remote() for _ in range(2)]
    live: dict[int, Any] = {}
    held: dict[int, Any] = {}
    kept: dict[int, int] = {}
    for step in range(120):
        action = rng.choice(["put", "make", "make", "drop", "keep", "hold", "release", "check"])
        size = rng.choice([150_000, 3 * MB, 5 * MB, 9 * MB])
        if action == "put":
            live[step] = rlray.put((step, block(step, size)))
        elif action == "make":
            live[step] = make.remote(step, size)
        elif action == "drop" and len(live) > 25:
            del live[rng.choice(list(live))]
        elif action == "keep" and live:
            which, index = rng.choice(list(live)), rng.randrange(2)
            rlray.get(holders[index].keep.remote([live[which]]))
            kept[index] = which
        elif action == "hold" and live and len(held) < 3:
            number, array = rlray.get(live[rng.choice(list(live))])
            held[number] = array
            del array
        elif action == "release" and held:
            del held[rng.choice(list(held))]
        for number in rng.sample(list(live), min(4, len(live))):
            there, array = rlray.get(live[number])
            assert there == number
            assert holds(array, number)
            del array
        assert all(holds(array, number) for number, array in held.items())
    for number, ref in live.items():
        assert holds(rlray.get(ref)[1], number)


FULL_DISK = """
import os, resource, numpy as np, rlray
rlray.init(num_cpus=1, object_store_memory=80 * 1024 * 1024)
refs = [rlray.put(np.full(8_000_000, i, np.uint8)) for i in range(8)]
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))  # as if the disk was full
from rlray.core.local import allocation; allocation._PATIENCE = 1.0
try:
    rlray.put(np.full(30_000_000, 9, np.uint8))
except rlray.exceptions.ObjectStoreFullError as error:
    print("ERROR", error)
print("WHOLE", all((rlray.get(ref) == i).all() for i, ref in enumerate(refs)))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("AFTER", rlray.get(rlray.put(np.full(30_000_000, 9, np.uint8)))[-1])
print("WHOLE", all((rlray.get(ref) == i).all() for i, ref in enumerate(refs)))
"""

KILLED = """
import sys, time, numpy as np, rlray
rlray.init(num_cpus=1, object_store_memory=80 * 1024 * 1024, object_spilling_directory=sys.argv[1])
refs = [rlray.put(np.full(8_000_000, i, np.uint8)) for i in range(20)]
print("FULL")
time.sleep(60)
"""


def test_a_place_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path) -> None:
    program = (
        "import sys, rlray\n"
        "try: rlray.init(object_spilling_directory=sys.argv[1])\n"
        "except ValueError as error: print('REFUSED', error)\n"
    )
    (tmp_path / "file").write_text("in the way")
    output = run_driver(program, str(tmp_path / "file"))
    assert "REFUSED object_spilling_directory" in output
    assert str(tmp_path / "file") in output


def test_a_full_disk_is_an_error_and_loses_nothing() -> None:
    output = run_driver(FULL_DISK)
    assert "Spilling to" in output
    assert "File too large" in output
    assert output.count("WHOLE True") == 2
    assert "AFTER 9" in output


def test_a_killed_driver_leaves_nothing_on_disk(tmp_path: Path) -> None:
    with Driver(KILLED, str(tmp_path)) as driver:
        driver.expect("FULL")
        assert files(tmp_path)
        os.kill(driver.pid, signal.SIGKILL)
        assert wait_until(lambda: not list(tmp_path.iterdir()), 5.0), list(tmp_path.iterdir())

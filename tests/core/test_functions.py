"""How code reaches the workers: closures, lambdas, redefinitions, `__main__`, modules beside the script."""

from __future__ import annotations

import functools
import gc
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rlray
from tests.support import Driver, run_driver

SCALE = 10


@rlray.remote
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self) -> int:
        self.value += 1
        return self.value


def scaled(value: int) -> int:
    return value * SCALE


@pytest.mark.every_engine
@pytest.mark.usefixtures("cluster")
class TestInOneProgram:
    def test_lambda_and_closure(self) -> None:
        offset = 5
        assert rlray.get(rlray.remote(lambda x: x + offset).remote(1)) == 6

    def test_closures_of_a_loop_are_told_apart(self) -> None:
        def make(i: int) -> Callable[[], int]:
            def give() -> int:
                return i

            return give

        refs = [rlray.remote(make(i)).remote() for i in range(30)]
        assert rlray.get(refs) == list(range(30))

    def test_a_redefined_function_runs_in_its_new_form(self) -> None:
        @rlray.remote
        def version() -> str:
            return "old"

        old = version
        first = version.remote()

        @rlray.remote  # type: ignore[no-redef]
        def version() -> str:
            return "new"

        assert rlray.get([first, version.remote(), old.remote()]) == ["old", "new", "old"]

    def test_a_redefined_class_runs_in_its_new_form(self) -> None:
        answers = []
        for text in ("old", "new"):

            @rlray.remote
            class Version:
                said = text

                def say(self) -> str:
                    return self.said

            actor = Version.remote()
            answers.append(rlray.get(actor.say.remote()))
        assert answers == ["old", "new"]

    def test_module_functions_see_their_globals(self) -> None:
        assert rlray.get(rlray.remote(scaled).remote(4)) == 40

    def test_a_plain_function_can_be_an_argument(self) -> None:
        apply = rlray.remote(lambda function, value: function(value))
        assert rlray.get(apply.remote(scaled, 2)) == 20
        assert rlray.get(apply.remote(lambda x: -x, 2)) == -2
        assert rlray.get(apply.remote(functools.partial(max, 7), 2)) == 7

    def test_a_remote_function_can_be_an_argument_and_a_global_of_another(self) -> None:
        inner = rlray.remote(scaled)
        call = rlray.remote(lambda function, value: rlray.get(function.remote(value)))
        assert rlray.get(call.remote(inner, 3)) == 30
        assert rlray.get(rlray.remote(lambda: rlray.get(inner.remote(9))).remote()) == 90

    def test_one_function_that_calls_itself_by_its_remote_name(self) -> None:
        @rlray.remote
        def countdown(n: int) -> list[int]:
            return [n, *rlray.get(countdown.remote(n - 1))] if n else [0]

        assert rlray.get(countdown.remote(3)) == [3, 2, 1, 0]

    def test_a_function_that_calls_itself_without_the_arguments_that_have_defaults(self) -> None:
        @rlray.remote
        def down(n: int, last: str = "end", *, mark: str = "!") -> str:
            return rlray.get(down.remote(n - 1)) if n else last + mark

        assert rlray.get(down.remote(2, "other")) == "end!"

    def test_an_actor_that_creates_actors_of_its_own_class(self) -> None:
        @rlray.remote
        class Node:
            def __init__(self, depth: int = 0) -> None:
                self.children = [Node.remote(depth - 1)] if depth else []

            def height(self) -> int:
                return 1 + max([rlray.get(child.height.remote()) for child in self.children], default=0)

        assert rlray.get(Node.remote(2).height.remote()) == 3

    def test_captured_references_and_handles(self) -> None:
        """What a function captures lives as long as it does, wherever the function goes."""
        array, counter = rlray.put(np.arange(100_000)), Counter.remote()

        @rlray.remote
        def total() -> int:
            rlray.get(counter.add.remote())
            return int(rlray.get(array).sum())

        @rlray.remote
        class Nested:
            def total(self) -> int:
                return int(rlray.get(total.remote()))

        @rlray.remote
        def nested() -> int:
            return int(rlray.get(total.remote()))

        refs = [total.remote() for _ in range(4)] + [nested.remote(), Nested.remote().total.remote()]
        assert rlray.get(refs, timeout=20) == [4_999_950_000] * 6
        assert rlray.get(counter.add.remote(), timeout=20) == 7

    def test_only_the_function_holds_what_it_captures(self) -> None:
        def make() -> Callable[..., rlray.ObjectRef]:
            array = rlray.put(np.arange(100_000))
            return rlray.remote(lambda: int(rlray.get(array)[-1])).remote

        last = make()
        gc.collect()
        assert rlray.get([last() for _ in range(4)], timeout=20) == [99_999] * 4

    def test_chunks_of_map_have_what_is_captured_too(self) -> None:
        offset = rlray.put(5)
        add = rlray.remote(lambda x: x + rlray.get(offset))
        assert list(add.map(range(100)).results()) == list(range(5, 105))

    def test_the_wrapped_function_keeps_its_name_and_docstring(self) -> None:
        @rlray.remote
        def documented() -> None:
            """Says what it does."""

        assert documented.__name__ == "documented"
        assert documented.__doc__ == "Says what it does."


PROGRAM = """
import rlray as ray, sys
TABLE = {"a": 1}
class Pair:
    def __init__(self, left, right):
        self.left, self.right = left, right
def helper(key):
    return TABLE[key]
@ray.remote
def swap(pair):
    return Pair(pair.right, helper("a"))
@ray.remote
class Keeper:
    def __init__(self):
        self.pair = Pair(0, 0)
    def put(self, pair):
        assert type(pair) is Pair, type(pair)
        self.pair = pair
        return self.pair
ray.init(num_cpus=2)
out = ray.get(swap.remote(Pair(1, 2)))
assert type(out) is Pair and (out.left, out.right) == (2, 1)
kept = ray.get(Keeper.remote().put.remote(out))
assert type(kept) is Pair and kept.left == 2
print("DONE", __name__)
"""


def test_classes_and_globals_of_a_program_given_by_c() -> None:
    assert "DONE __main__" in run_driver(PROGRAM)


def test_classes_and_globals_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with Driver(str(script), python=()) as driver:
        driver.expect("DONE")
        driver.finish()


def test_a_script_without_a_main_guard_does_not_run_again_in_workers(tmp_path: Path) -> None:
    marker = tmp_path / "runs"
    script = tmp_path / "unguarded.py"
    script.write_text(f"open({str(marker)!r}, 'a').write('x')\n" + PROGRAM)
    with Driver(str(script), python=()) as driver:
        driver.finish()
    assert marker.read_text() == "x"


def test_modules_beside_the_script_are_found_by_workers(tmp_path: Path) -> None:
    (tmp_path / "beside_the_script.py").write_text("WORD = 'found'\ndef word():\n    return WORD\n")
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import rlray as ray
            import beside_the_script
            ray.init(num_cpus=1)
            print("DIRECT", ray.get(ray.remote(beside_the_script.word).remote()))
            @ray.remote
            def inside():
                import beside_the_script as module
                return module.word()
            print("INSIDE", ray.get(inside.remote()))
            """
        )
    )
    with Driver(str(script), python=()) as driver:
        assert driver.expect("DIRECT") == "found"
        assert driver.expect("INSIDE") == "found"


def test_workers_share_the_drivers_folder_and_environment(tmp_path: Path) -> None:
    run_driver(
        "import os, sys, rlray; os.chdir(sys.argv[1]); os.environ['LATE'] = 'set before init'; rlray.init(num_cpus=1);"
        "look = rlray.remote(lambda: (os.getcwd(), os.environ['GIVEN'], os.environ['LATE']));"
        "assert rlray.get(look.remote()) == (os.getcwd(), 'by the parent', 'set before init')",
        str(tmp_path),
        GIVEN="by the parent",
    )

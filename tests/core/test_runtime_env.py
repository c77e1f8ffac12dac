"""Runtime environments: what workers are set up with before user code runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rlray
from rlray.runtime_env import RuntimeEnv
from tests.support import run_driver, wait_until


@pytest.fixture(autouse=True, scope="module")
def _cluster() -> Iterator[None]:
    rlray.init(num_cpus=4, runtime_env={"env_vars": {"A": "init", "B": "init"}})
    yield
    rlray.shutdown()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with data, a module and a package beside it."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "data.txt").write_text("data of the project")
    (project / "only_here.py").write_text("VALUE = 41")
    package = tmp_path / "elsewhere" / "only_packaged"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VALUE = 1")
    return project


@rlray.remote
def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names or ("A", "B", "C")]


@rlray.remote
def place() -> tuple[str, str, int]:
    return os.getcwd(), sys.path[0], os.getpid()


@rlray.remote
def child(**options: Any) -> Any:
    """What a child with these options sees, and what it is told."""
    told = rlray.remote(lambda: rlray.get_runtime_context().runtime_env)
    return rlray.get([variables.options(**options).remote(), told.options(**options).remote()])


@rlray.remote(runtime_env={"env_vars": {"B": "class"}})
class Member:
    def variables(self) -> Any:
        return variables._function()

    def child(self) -> Any:
        return rlray.get(variables.remote())

    def cwd(self) -> str:
        return os.getcwd()


def environment(**variables: str) -> dict[str, Any]:
    return {"runtime_env": {"env_vars": variables}}


# -- variables -------------------------------------------------------------------------------------------------------


def test_everybody_gets_what_init_was_given() -> None:
    assert rlray.get(variables.remote()) == ["init", "init", None]
    assert rlray.get(variables.options(runtime_env={}).remote()) == ["init", "init", None]
    assert "A" not in os.environ, "but not the driver"


def test_variables_of_a_task_are_added_and_win() -> None:
    assert rlray.get(variables.options(**environment(B="task", C="task")).remote()) == ["init", "task", "task"]
    assert rlray.get(variables.remote()) == ["init", "init", None], "nothing of it stays"


def test_children_inherit() -> None:
    outer = child.options(**environment(B="outer"))
    assert rlray.get(outer.remote()) == [["init", "outer", None], {"env_vars": {"A": "init", "B": "outer"}}]
    seen, told = rlray.get(outer.remote(**environment(A="inner", C="inner")))
    assert seen == ["inner", "outer", "inner"]
    assert told == {"env_vars": {"A": "inner", "B": "outer", "C": "inner"}}


def test_actors_have_environments_too() -> None:
    actor = Member.remote()
    assert rlray.get([actor.variables.remote(), actor.child.remote()]) == [["init", "class", None]] * 2
    other = Member.options(**environment(C="options")).remote()
    assert rlray.get([other.variables.remote(), other.child.remote()]) == [["init", "init", "options"]] * 2


def test_a_restarted_actor_has_its_environment_again() -> None:
    actor = Member.options(max_restarts=1, max_task_retries=1).remote()
    assert rlray.get(actor.variables.remote()) == ["init", "class", None]
    rlray.kill(actor, no_restart=False)
    assert rlray.get(actor.variables.remote(), timeout=20) == ["init", "class", None]


def test_a_value_may_mention_other_variables() -> None:
    wish = environment(PATH="/first:${PATH}", C="${NO_SUCH_VARIABLE}")
    path, odd = rlray.get(variables.options(**wish).remote("PATH", "C"))
    assert path.startswith("/first:/")
    assert odd == "${NO_SUCH_VARIABLE}"


def test_pythonpath_counts(project: Path) -> None:
    @rlray.remote(**environment(PYTHONPATH=f"{project}:{project.parent}"))
    def use() -> int:
        import only_here

        return int(only_here.VALUE)

    assert rlray.get(use.remote()) == 41


def test_a_worker_serves_one_environment_and_is_used_again_for_it() -> None:
    red, blue = (place.options(**environment(C=name)) for name in ("red", "blue"))
    pids: dict[str, set[int]] = {"red": set(), "blue": set(), "none": set()}
    for _ in range(5):
        for name, task in (("red", red), ("blue", blue), ("none", place)):
            pids[name].add(rlray.get(task.remote())[2])
    assert not pids["red"] & pids["blue"]
    assert not pids["none"] & (pids["red"] | pids["blue"])
    again = {rlray.get(red.remote())[2] for _ in range(3)}
    assert len(pids["red"] | again) < 5, "workers are not used again"


def test_equal_environments_are_one_however_they_are_written() -> None:
    first = place.options(runtime_env=RuntimeEnv(env_vars={"C": "1", "D": "2"}))
    second = place.options(runtime_env={"env_vars": {"D": "2", "C": "1"}})
    assert rlray.get(first.remote())[2] == rlray.get(second.remote())[2]


def test_many_environments_at_once() -> None:
    refs = [variables.options(**environment(C=str(i % 7))).remote("C") for i in range(70)]
    assert rlray.get(refs, timeout=120) == [[str(i % 7)] for i in range(70)]


# -- directories -----------------------------------------------------------------------------------------------------


def test_the_working_directory_is_entered_and_importable(project: Path) -> None:
    @rlray.remote(runtime_env={"working_dir": str(project)})
    def look() -> Any:
        import only_here

        return only_here.VALUE, Path("data.txt").read_text(), os.getcwd(), sys.path[0]

    assert rlray.get(look.remote()) == (41, "data of the project", str(project), str(project))
    assert rlray.get(place.remote())[0] == os.getcwd()
    (project / "data.txt").write_text("edited")
    assert rlray.get(look.remote())[1] == "edited", "the directory itself is used"


def test_a_relative_directory_is_meant_where_it_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    actor = Member.options(runtime_env={"working_dir": "project"}).remote()
    monkeypatch.chdir("/")
    assert rlray.get(actor.cwd.remote()) == str(project)


def test_modules_can_be_directories_files_and_modules(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    import only_here  # type: ignore[import-not-found]

    @rlray.remote
    def use() -> int:
        import only_here
        import only_packaged  # type: ignore[import-not-found]

        return int(only_here.VALUE + only_packaged.VALUE)

    package = project.parent / "elsewhere" / "only_packaged"
    for modules in ([str(package), str(project / "only_here.py")], [package, only_here]):
        assert rlray.get(use.options(runtime_env={"py_modules": modules}).remote()) == 42
    with pytest.raises(ModuleNotFoundError):
        rlray.get(use.remote())


def test_children_inherit_directories_and_replace_them(project: Path) -> None:
    @rlray.remote(runtime_env={"working_dir": str(project), "env_vars": {"C": "outer"}})
    def outer() -> Any:
        other = {"working_dir": str(project.parent)}
        return rlray.get([place.remote(), place.options(runtime_env=other).remote(), variables.remote("C")])

    inherited, replaced, seen = rlray.get(outer.remote())
    assert (inherited[0], replaced[0], seen) == (str(project), str(project.parent), ["outer"])


def test_a_directory_that_is_gone_when_it_is_needed(project: Path) -> None:
    """Known good when it was submitted, it goes while the arguments are waited for."""

    class Late:
        def __init__(self, argument: None) -> None:
            pass

        def call(self) -> None:
            pass

    wish = {"runtime_env": {"working_dir": str(project)}}
    argument = rlray.remote(lambda: shutil.rmtree(project)).remote()
    task = rlray.remote(**wish)(lambda argument: None).remote(argument)
    actor = rlray.remote(**wish)(Late).remote(argument)
    for ref in (task, actor.call.remote()):
        with pytest.raises(rlray.exceptions.RuntimeEnvSetupError, match="project"):
            rlray.get(ref, timeout=20)
    assert wait_until(lambda: rlray.available_resources()["CPU"] == 4.0, 10)


def test_a_variable_that_the_system_does_not_take() -> None:
    with pytest.raises(rlray.exceptions.RuntimeEnvSetupError, match="surrogates not allowed"):
        rlray.get(variables.options(**environment(C="\ud800")).remote(), timeout=20)


# -- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"pip": ["torch"]}, ValueError, "'pip'.*env_vars, working_dir, py_modules"),
        ({"env_vars": ["A"]}, TypeError, "env_vars.*list"),
        ({"env_vars": {"A": 1}}, TypeError, "env_vars.*'A': 1"),
        ({"env_vars": {"A=B": "1"}}, ValueError, "A=B"),
        ({"working_dir": 3}, TypeError, "working_dir.*int 3"),
        ({"working_dir": "/no/such/directory"}, ValueError, "working_dir.*'/no/such/directory'"),
        ({"working_dir": __file__}, ValueError, "working_dir.*directory"),
        ({"py_modules": "module"}, TypeError, "py_modules.*list"),
        ({"py_modules": [3]}, TypeError, "py_modules.*int 3"),
        ({"py_modules": ["/no/such/module"]}, ValueError, "py_modules.*'/no/such/module'"),
        ({"py_modules": [ModuleType("made_up")]}, ValueError, "made_up"),
        (["A"], TypeError, "runtime_env"),
    ],
    ids=str,
)
def test_errors_name_the_field_before_anything_is_submitted(given: Any, error: type[Exception], text: str) -> None:
    for decorated in (variables, Member):
        with pytest.raises(error, match=text):
            decorated.options(runtime_env=given)  # type: ignore[attr-defined]
    if isinstance(given, dict):
        with pytest.raises(error, match=text):
            RuntimeEnv(**given)


def test_init_checks_too() -> None:
    code = """
import rlray
try:
    rlray.init(num_cpus=1, runtime_env={"conda": "base"})
except ValueError as error:
    print(error, rlray.is_initialized())
"""
    assert "'conda'" in run_driver(code)


def test_a_runtime_env_is_a_dict() -> None:
    env = RuntimeEnv(env_vars={"A": "1"})
    assert env == {"env_vars": {"A": "1"}}
    assert env.to_dict() == dict(env)
    assert rlray.get(rlray.put(env)) == env
    assert isinstance(rlray.get(rlray.put(env)), RuntimeEnv)


def test_the_context_tells_the_environment() -> None:
    context = rlray.get_runtime_context()
    assert context.runtime_env == {"env_vars": {"A": "init", "B": "init"}}
    assert json.loads(context.get_runtime_env_string()) == context.runtime_env
    assert isinstance(context.runtime_env, RuntimeEnv)

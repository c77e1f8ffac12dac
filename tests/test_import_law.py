"""Who may import whom, read from the sources; and what `import rlray` loads, seen in a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PACKAGE_PARENT, REPOSITORY

PACKAGE = REPOSITORY / "rlray"
ROOMS = ("core", "util", "envs", "algos", "config", "train", "cli")

# Room -> what its files may import of rlray besides the room itself. "rlray" is the public surface: names of the core.
ALLOWED: dict[str, tuple[str, ...]] = {
    "core": (),
    "util": (
        "rlray",
        "rlray.exceptions",
        "rlray.core.api",
        "rlray.core.inspecting",
        "rlray.core.metrics",
        "rlray.core.placement_groups",
        "rlray.core.progress",
        "rlray.core.scheduling_strategies",
        "rlray.core.state",
    ),
    "envs": (),
    "algos": ("rlray", "rlray.exceptions", "rlray.envs.types"),
    "config": ("rlray.algos", "rlray.envs"),
    "train": ("rlray", "rlray.exceptions", "rlray.core", "rlray.envs", "rlray.algos", "rlray.config"),
    "cli": ("rlray", "rlray.exceptions", "rlray.core", "rlray.envs", "rlray.algos", "rlray.config", "rlray.train"),
}
CORE_IS_GENERAL = ("torch", "gymnasium", "ale_py", "tensorboard", "pydantic", "yaml", "rich")
KNOWS = {"core/tensors.py": ("torch",)}  # how tensors travel; used where a tensor is there, so torch is there already
LIGHT = ("torch", "gymnasium", "zmq", "numpy", "ale_py", "tensorboard", "pydantic", "rich")


def room_of(file: Path) -> str:
    """The room that ``file`` belongs to; "" for `rlray/__init__.py` and `rlray/exceptions.py`."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return first if first in ROOMS else ""


def module_of(file: Path) -> list[str]:
    parts = list(file.relative_to(REPOSITORY).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports_of(file: Path) -> list[tuple[int, str]]:
    """(line, module) of each import; `from a import b` counts as ``a.b`` where that is a module of ours."""
    found: list[tuple[int, str]] = []
    package = module_of(file) if file.name == "__init__.py" else module_of(file)[:-1]
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*outer, *filter(None, [node.module])])
            for alias in node.names:
                inner = REPOSITORY.joinpath(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                found.append((node.lineno, f"{base}.{alias.name}" if is_module else base))
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called == "import_module" and node.args and isinstance(node.args[0], ast.Constant):
                found.append((node.lineno, str(node.args[0].value)))
    return found


def is_within(module: str, allowed: str) -> bool:
    return module == allowed or (allowed != "rlray" and module.startswith(allowed + "."))


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(file: Path) -> None:
    room = room_of(file)
    if not room:
        return
    may = (f"rlray.{room}", *ALLOWED[room])
    broken = [
        f"{file.relative_to(REPOSITORY)}:{line} imports {module}"
        for line, module in imports_of(file)
        if module.split(".")[0] == "rlray" and not any(is_within(module, allowed) for allowed in may)
    ]
    assert not broken, f"{room} may import {may or 'nothing of rlray'}: {broken}"


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_the_core_knows_nothing_of_learning(file: Path) -> None:
    may = KNOWS.get(str(file.relative_to(PACKAGE)), ())
    found = [(line, module.split(".")[0]) for line, module in imports_of(file)]
    broken = [(line, module) for line, module in found if module in CORE_IS_GENERAL and module not in may]
    assert not broken, f"{file.name}: {broken}"


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_engines_know_nothing_of_each_other(file: Path) -> None:
    """Nor does the rest of the core know them, but for `init`, which starts one."""
    engines = {
        f"rlray.core.{path.name}" for path in (PACKAGE / "core").iterdir() if path.is_dir() and any(path.glob("*.py"))
    }
    assert engines == {"rlray.core.inline", "rlray.core.local", "rlray.core.ray"}
    own = ".".join(module_of(file)[:3])
    others = [] if file.name == "starting.py" else engines - {own}
    broken = [(line, module) for line, module in imports_of(file) if any(is_within(module, one) for one in others)]
    assert not broken, f"{file.name}: {broken}"


@pytest.mark.parametrize("file", sorted((REPOSITORY / "scripts").glob("*.py")), ids=lambda file: file.name)
def test_scripts_stand_on_the_command_line_and_on_train(file: Path) -> None:
    ours = [module for _, module in imports_of(file) if module.split(".")[0] == "rlray"]
    assert all(is_within(module, "rlray.cli") or is_within(module, "rlray.train") for module in ours), ours


def test_every_room_is_there_and_known() -> None:
    """A new folder in rlray/ must get a law of its own."""
    present = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert present == set(ROOMS)
    assert set(ALLOWED) == set(ROOMS)


def test_the_law_can_be_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the ways to write an import are seen."""
    package = tmp_path / "rlray" / "core"
    package.mkdir(parents=True)
    (tmp_path / "rlray" / "train.py").touch()
    file = package / "bad.py"
    file.write_text(
        "import rlray.train\nfrom rlray import train\nfrom rlray.train import x\nfrom .. import train\n"
        "def later():\n    from ..train import y\n    import importlib\n    importlib.import_module('rlray.train')\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    seen = [line for line, module in imports_of(file) if module.startswith("rlray.train")]
    assert seen == [1, 2, 3, 4, 6, 8]


def loaded_by(code: str) -> set[str]:
    """Top-level packages in `sys.modules` after ``code`` in a fresh process."""
    code = f"""
import sys
sys.path.insert(0, {str(PACKAGE_PARENT)!r})
{code}
print(*{{module.split(".")[0] for module in sys.modules}})
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(answer.stdout.split())


def test_import_rlray_loads_nothing_heavy() -> None:
    before = loaded_by("pass")
    assert not (loaded_by("import rlray") - before) & set(LIGHT)


def test_the_core_loads_no_learning() -> None:
    code = "import rlray; rlray.init(num_cpus=1); rlray.get(rlray.remote(lambda: 1).remote()); rlray.shutdown()"
    assert not (loaded_by(code) - loaded_by("pass")) & set(CORE_IS_GENERAL)


def test_reading_a_configuration_loads_no_torch() -> None:
    assert "torch" not in loaded_by("import rlray.config, rlray.algos, rlray.cli")

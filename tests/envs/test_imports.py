"""What importing this room costs, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import rlray.envs
heavy = [name for name in ("torch", "ale_py", "Box2D", "pygame") if name in sys.modules]
assert not heavy, heavy
import gymnasium
assert gymnasium.make("rlray/Pong-v0").observation_space.shape == (10,)
assert [name for name in rlray.envs.__all__ if not hasattr(rlray.envs, name)] == []
assert rlray.envs.make_vec("rlray/Pong-v0", 2).spec.id == "rlray/Pong-v0"
heavy = [name for name in ("torch", "Box2D", "pygame") if name in sys.modules]
assert not heavy, heavy
assert "ale_py" not in sys.modules
try:
    rlray.envs.make_vecs
except AttributeError as error:
    assert "has no attribute 'make_vecs'" in str(error), error
else:
    raise AssertionError("an unknown name was found")
"""


def test_importing_the_room_loads_no_emulator_and_no_torch() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

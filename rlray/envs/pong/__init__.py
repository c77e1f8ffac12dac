"""``rlray/Pong-v0``: Pong in numpy, thousands of games in one call, no emulator needed."""

from rlray.envs.pong.observe import PONG_ID, PongSettings
from rlray.envs.pong.single import PongEnv
from rlray.envs.pong.vector import PongVec

__all__ = ["PONG_ID", "PongEnv", "PongSettings", "PongVec"]

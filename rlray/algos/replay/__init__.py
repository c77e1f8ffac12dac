"""A replay that stores each frame once, and draws n-step transitions uniformly or by priority."""

from rlray.algos.replay.drawing import Priorities
from rlray.algos.replay.nstep import NStepReplay
from rlray.algos.replay.slots import Batch, replay_bytes
from rlray.algos.replay.sum_tree import SumTree

__all__ = ["Batch", "NStepReplay", "Priorities", "SumTree", "replay_bytes"]

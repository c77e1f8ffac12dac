"""Runtime environments under the name that Ray gives them: ``rlray.runtime_env.RuntimeEnv``."""

from rlray.core.runtime_env import RuntimeEnv

__all__ = ["RuntimeEnv"]

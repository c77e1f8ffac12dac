"""What is raised when an environment itself fails."""

from __future__ import annotations


class EnvError(RuntimeError):
    """An environment raised while it was made, reset, stepped or drawn.

    Guarantees: what the environment raised is the ``__cause__``, with its own traceback; the message names the
    environment, which copy it was, its seed, the step and the original error, so that it still tells them all where
    only the text travels on. Pickles whole but for the cause, as any exception does.

    Attributes:
        env_id: what was given to `make_vec`.
        index: which of the copies it was, from 0; None where all are stepped in one call.
        seed: what that copy was last seeded with; None where it never was.
        steps: steps of that copy since it was made.
    """

    def __init__(
        self, message: str, env_id: str = "", index: int | None = None, seed: int | None = None, steps: int = 0
    ) -> None:
        super().__init__(message, env_id, index, seed, steps)
        self.env_id, self.index, self.seed, self.steps = env_id, index, seed, steps

    def __str__(self) -> str:
        return str(self.args[0])

    @classmethod
    def during(
        cls,
        doing: str,
        error: BaseException,
        *,
        env_id: str,
        index: int | None,
        num_envs: int,
        seed: int | None,
        steps: int,
    ) -> EnvError:
        """The error to raise from ``error``; ``doing`` is "making", "reset", "step" or "render"."""
        which = f"one of its {num_envs} copies" if index is None else f"copy {index} of {num_envs}"
        seeded = "not seeded" if seed is None else f"seed {seed}"
        at = f"step {steps}" if doing == "step" else f"{doing}, after {steps} steps"
        text = f"environment {env_id!r} ({which}, {seeded}) raised {type(error).__name__} in {at}: {error}"
        return cls(text, env_id, index, seed, steps)

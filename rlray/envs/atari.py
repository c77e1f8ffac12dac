"""Atari games, stepped and preprocessed by ale-py's own C++ vector environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlray.envs.checks import check_discrete
from rlray.envs.registry import unknown
from rlray.envs.seeding import SeedOnce, env_seeds
from rlray.envs.settings import read_settings, setting
from rlray.envs.types import EnvSpec, VecStep


@dataclass(frozen=True)
class AtariSettings:
    """The preprocessing of the DQN papers (Mnih et al., Nature 2015), and what may be changed about it.

    Rewards are raw: an algorithm that learns from clipped ones clips them itself.
    """

    img_height: int = setting(84, low=1)
    img_width: int = setting(84, low=1)
    grayscale: bool = True  # False: a frame is [height, width, 3]
    frame_skip: int = setting(4, low=1)  # emulator frames that an action is held for: one agent step
    max_pool: bool = True  # a frame is the maximum over the last two emulator frames, which hides flicker
    frame_stack: int = setting(4, low=1)
    noop_max: int = setting(30, low=0)  # an episode starts after 0 to noop_max emulator frames without an action
    fire_reset: bool = True  # the first of them presses FIRE in games that have it; Pong serves without it, too
    max_frames: int = setting(108_000, low=1)  # emulator frames after which an episode is truncated: 30 minutes
    repeat_action_probability: float = setting(0.0, low=0.0, high=1.0)  # sticky actions: 0.25 in Machado et al., 2018
    full_action_space: bool = False  # all 18 actions, not only those of the game
    episodic_life: bool = False  # the loss of a life ends the episode, and the next one is a new game


class AtariVec:
    """``num_envs`` copies of one Atari game.

    Guarantees: the same seed, number and actions give the same frames, whatever ``num_threads``; observations are
    fresh arrays, uint8 [B, frame_stack, height, width], zero where the stack reaches back before the episode; ended
    games start anew in the same step.

    The last frame of an ended episode is the emulator library's: it leaves out screens after the end, and so may show
    the previous one.

    Args:
        env_id: ``ALE/Name-v5``.
        num_envs: how many copies.
        seed: for the first reset that gets none.
        num_threads: threads that step them; at most one per processor is used.
        render: also run the first copy a second time, in colour, for `render`.
        settings: see `AtariSettings`.

    Raises: ImportError without ale-py; ValueError for an unknown game; as `read_settings` for wrong settings.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        seed: int | None = None,
        num_threads: int = 1,
        render: bool = False,
        **settings: Any,
    ) -> None:
        chosen = read_settings(AtariSettings, settings, env_id)
        rom = _rom(env_id)
        self._id = env_id
        self._env: Any = _make(rom, num_envs, num_threads, chosen)
        self._screen = _Screen(rom, chosen) if render else None
        self.num_envs = num_envs
        self.spec = EnvSpec(
            env_id,
            self._env.single_observation_space,
            self._env.single_action_space,
            frame_stack=chosen.frame_stack,
            pad="zero",
        )
        self._actions = int(self._env.single_action_space.n)
        self._seed = SeedOnce(seed)
        self._started = False
        self._valid = np.ones(num_envs, np.bool_)

    def reset(self, seed: int | None = None) -> NDArray[np.uint8]:
        """Start every game anew; every copy gets a seed of its own, derived from ``seed``."""
        self._check_open()
        seed, seeded = self._seed.take(seed)
        seeds = np.array(env_seeds(seed, self.num_envs)) if seeded else None
        obs, _ = self._env.reset(seed=seeds)
        if self._screen:
            self._screen.reset(seeds)
        self._started = True
        return obs  # type: ignore[no-any-return]

    def step(self, actions: NDArray[Any]) -> VecStep:
        """Hold each of ``actions`` [B] for ``frame_skip`` emulator frames.

        Raises: ValueError or TypeError for actions of another shape, range or type; RuntimeError before `reset`.
        """
        self._check_open()
        if not self._started:
            raise RuntimeError(f"environment {self._id!r}: call reset() before step()")
        # The emulator's threads would wait for ever on an action that the game does not have.
        actions = check_discrete(actions, self.num_envs, self._actions, self._id)
        obs, reward, terminated, truncated, info = self._env.step(actions)
        if self._screen:
            self._screen.step(actions)
        answer = VecStep(obs, reward.astype(np.float32), terminated, truncated, self._valid)
        ended = np.flatnonzero(terminated | truncated)
        if ended.size:
            answer.final_index, answer.final_obs = ended, info["final_obs"][ended]
        return answer

    def render(self) -> NDArray[np.uint8]:
        """The screen of the first copy, [rows, columns, 3]: 210 by 160 pixels for nearly all games."""
        self._check_open()
        if not self._screen:
            raise RuntimeError(f"environment {self._id!r} was made without pictures: use make_vec(..., render=True)")
        return self._screen.picture

    def close(self) -> None:
        """End the emulator's threads."""
        self._env = self._screen = None

    def _check_open(self) -> None:
        if self._env is None:
            raise RuntimeError(f"environment {self._id!r} is closed")


class _Screen:
    """A twin of the first copy that sees the last emulator frame of each step in colour and full size.

    What is seen does not touch the emulation: with the same seed and the same actions it plays the same game.
    """

    def __init__(self, rom: str, settings: AtariSettings) -> None:
        import ale_py
        from ale_py import roms

        console = ale_py.ALEInterface()
        console.loadROM(roms.get_rom_path(rom))  # type: ignore[arg-type]
        rows, columns = console.getScreenDims()
        seen = replace(settings, img_height=rows, img_width=columns, grayscale=False, max_pool=False, frame_stack=1)
        self._env: Any = _make(rom, 1, 1, seen)
        self.picture: NDArray[np.uint8] = np.zeros((rows, columns, 3), np.uint8)

    def reset(self, seeds: NDArray[np.int64] | None) -> None:
        self.picture = self._env.reset(seed=seeds if seeds is None else seeds[:1])[0][0, 0]

    def step(self, actions: NDArray[np.int64]) -> None:
        self.picture = self._env.step(actions[:1])[0][0, 0]


def _rom(env_id: str) -> str:
    """The name of the game's ROM, such as "ms_pacman"."""
    try:
        import ale_py  # registers its games with gymnasium  # noqa: F401
        from ale_py.vector_env import AtariVectorEnv  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'environment {env_id!r} needs ale-py, an extra under the GPL-2.0 licence: pip install "rlray[atari]"'
        ) from error
    if env_id not in gymnasium.registry:
        raise unknown(env_id)
    return str(gymnasium.registry[env_id].kwargs["game"])


def _make(rom: str, num_envs: int, num_threads: int, settings: AtariSettings) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        rom,
        num_envs,
        num_threads=num_threads,
        autoreset_mode=AutoresetMode.SAME_STEP,
        img_height=settings.img_height,
        img_width=settings.img_width,
        grayscale=settings.grayscale,
        stack_num=settings.frame_stack,
        frameskip=settings.frame_skip,
        maxpool=settings.max_pool,
        noop_max=settings.noop_max + 1,  # the library draws from 0 to one less
        use_fire_reset=settings.fire_reset,
        episodic_life=settings.episodic_life,
        life_loss_info=False,  # would end episodes without a reset
        reward_clipping=False,
        max_num_frames_per_episode=settings.max_frames,
        repeat_action_probability=settings.repeat_action_probability,
        full_action_space=settings.full_action_space,
    )

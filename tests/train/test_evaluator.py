"""Episodes that measure: exactly as many as asked for, none of them preferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray.train import evaluator
from rlray.train.evaluator import MAX_ENVS, Evaluator, EvaluatorSetup, assign
from rlray.train.failures import EnvironmentFailed, TrainingError
from rlray.train.sources import AlgorithmSource, EnvSource
from tests.train.toys import WARM_UNTIL, CountingSettings

WEIGHTS = {"count": np.array(0)}


def make(env: str, algorithm: str = "ALGORITHM", **settings: Any) -> Evaluator:
    toy = AlgorithmSource(f"tests.train.toys:{algorithm}", CountingSettings())
    return Evaluator(EvaluatorSetup(EnvSource.of(f"tests.train.toys:{env}", settings), toy, 1))


@pytest.mark.parametrize("episodes", [*range(1, 70), 100, 1000])
def test_every_episode_is_assigned_once_and_evenly(episodes: int) -> None:
    envs, quota = assign(episodes)
    assert len(quota) == envs <= MAX_ENVS
    assert sum(quota) == episodes
    assert max(quota) - min(quota) <= 1
    assert min(quota) >= 1


def test_short_episodes_are_not_preferred() -> None:
    """Half of the episodes are forty times as long; the first N that end would nearly all be short ones."""
    result = make("ShortOrLong").evaluate(WEIGHTS, 300, seed=3)
    assert len(result.returns) == len(result.lengths) == 300
    assert set(zip(result.returns, result.lengths, strict=True)) == {(0.0, 1), (1.0, 40)}
    assert abs(result.mean - 0.5) < 4 * 0.5 / 300**0.5


@pytest.mark.parametrize("episodes", [1, 7, 20])
def test_exactly_so_many_complete_episodes_of_the_greedy_policy(episodes: int) -> None:
    result = make("Corridor", length=6).evaluate(WEIGHTS, episodes, seed=0)
    assert result.returns == [1.0] * episodes
    assert result.lengths == [6] * episodes
    assert str(result) == f"1.00 ± 0.00 (raw return, mean ± std over {episodes} episodes)"


def test_episodes_that_explore_as_training_does() -> None:
    """Right half of the time: longer walks than the greedy one's, which depend on the seed and on nothing else."""
    toy = AlgorithmSource("tests.train.toys:ALGORITHM", CountingSettings())
    source = EnvSource.of("tests.train.toys:Corridor", {"length": 6, "limit": 50})
    one, same, other = (
        Evaluator(EvaluatorSetup(source, toy, 1, explore=True)).evaluate(WEIGHTS, 40, seed) for seed in (1, 1, 2)
    )
    assert one.lengths == same.lengths != other.lengths
    assert 6 < np.mean(one.lengths) < 20, "twelve steps are expected"
    assert str(one) == "1.00 ± 0.00 (raw return, mean ± std over 40 episodes, exploring)"


def test_exploring_is_told_the_step_of_the_run() -> None:
    toy = AlgorithmSource("tests.train.toys:WARMING", CountingSettings())
    setup = EvaluatorSetup(EnvSource.of("tests.train.toys:Corridor", {"length": 6}), toy, 1, explore=True)
    assert Evaluator(setup).evaluate(WEIGHTS, 2, seed=0, step=WARM_UNTIL - 1).lengths == [20, 20]
    assert Evaluator(setup).evaluate(WEIGHTS, 2, seed=0, step=WARM_UNTIL).lengths == [6, 6]


def test_truncated_episodes_are_complete() -> None:
    result = make("Corridor", length=6, limit=4).evaluate(WEIGHTS, 3, seed=0)
    assert (result.returns, result.lengths) == ([0.0] * 3, [4] * 3)


@pytest.mark.parametrize("env", ["Corridor", "Together"])
def test_a_policy_that_remembers_is_told_where_episodes_begin(env: str) -> None:
    result = make(env, "AGEING", length=6).evaluate(WEIGHTS, 40, seed=0)
    assert result.lengths == [6] * 40


def test_the_seed_decides() -> None:
    one, same, other = (make("ShortOrLong").evaluate(WEIGHTS, 40, seed) for seed in (1, 1, 2))
    assert one == same
    assert one.returns != other.returns


def test_mean_and_standard_deviation() -> None:
    result = evaluator.EvalResult([1.0, 2.0, 6.0], [1, 1, 1])
    assert (result.mean, result.std) == (3.0, pytest.approx((14 / 3) ** 0.5))


def test_the_video_shows_the_first_episode(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "first.mp4"
    result = make("Corridor", length=9).evaluate(WEIGHTS, 20, seed=0, video_path=str(path))  # two in each environment
    assert result.video == str(path)
    assert result.lengths == [9] * 20
    frames, _ = ffmpeg.count_frames_and_secs(str(path))
    assert frames == 9


def test_real_pong_is_recorded_as_it_is_played(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    toy = AlgorithmSource("tests.train.toys:ALGORITHM", CountingSettings())
    source = EnvSource.of("ALE/Pong-v5", {"max_frames": 400})
    path = tmp_path / "pong.mp4"
    result = Evaluator(EvaluatorSetup(source, toy, 1)).evaluate(WEIGHTS, 2, seed=0, video_path=str(path))
    frames, _ = ffmpeg.count_frames_and_secs(str(path))
    assert frames == result.lengths[0] > 80
    assert all(value <= 0 for value in result.returns), "a paddle that stands still does not win"


def test_an_environment_that_raises() -> None:
    with pytest.raises(EnvironmentFailed, match=r"evaluator: .*'tests.train.toys:Corridor'.*fell in at step"):
        make("Corridor", fail="step", fail_at=2).evaluate(WEIGHTS, 1, seed=0)


def test_an_episode_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "MAX_EPISODE_STEPS", 50)
    with pytest.raises(TrainingError, match="did not end within 50 steps; give the environment a time limit"):
        make("Corridor", length=1000, limit=1000).evaluate(WEIGHTS, 1, seed=0)


@pytest.mark.parametrize("episodes", [0, -1])
def test_at_least_one_episode(episodes: int) -> None:
    with pytest.raises(ValueError, match="episodes must be at least 1, got"):
        make("Corridor").evaluate(WEIGHTS, episodes, seed=0)

"""The task that plays trials, without a runtime around it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlray.algos.es import ESConfig
from rlray.algos.types import Outcomes
from rlray.train.failures import EnvironmentFailed, NotFiniteFound
from rlray.train.sources import AlgorithmSource, EnvSource
from rlray.train.trials import CACHE, EnvCache, Part, TrialSetup, make_shared, play_trials
from tests.train.toys import Corridor

CORRIDOR = "tests.train.toys:Corridor"
SETTINGS: dict[str, Any] = {"hidden": (4,), "population": 12, "episodes": 2, "noise_size": 1000}


def setup(env: str = CORRIDOR, settings: dict[str, Any] | None = None, **changes: Any) -> TrialSetup:
    values: dict[str, Any] = {"run": "one", "seed": 1, "envs": 3, **changes}
    config = ESConfig(**{**SETTINGS, **values.pop("config", {})})
    source = EnvSource.of(env, settings or {})
    return TrialSetup(env=source, spec=source.spec(), algorithm=AlgorithmSource("es", config), **values)


def play(told: TrialSetup, first: int = 0, count: int = 12, round_: int = 0, attempt: int = 0) -> Outcomes:
    inputs, outputs = 3, 2
    theta = 0.3 * np.random.default_rng(7).standard_normal((inputs + 1) * 4 + 5 * outputs).astype(np.float32)
    weights = {"theta": theta, "mean": np.zeros(inputs, np.float32), "std": np.ones(inputs, np.float32)}
    outcomes, stats = play_trials(told, make_shared(told), weights, 7, Part(4, round_, first, count, attempt))
    assert (stats.simulator, stats.stream, stats.version, stats.steps) == (4, round_, 7, outcomes.steps)
    assert stats.returns == outcomes.returns.ravel().tolist()
    assert stats.lengths == outcomes.lengths.ravel().tolist()
    return pickle.loads(pickle.dumps(outcomes))


def same(one: Outcomes, other: Outcomes) -> bool:
    return str(vars(one)) == str(vars(other))


def test_every_episode_is_played_to_its_end() -> None:
    outcomes = play(setup())
    assert outcomes.trial.tolist() == list(range(12))
    assert outcomes.returns.shape == outcomes.lengths.shape == (12, 2)
    reached = outcomes.returns == 1.0
    assert reached.any()
    assert not reached.all()
    assert (outcomes.lengths[reached] >= 5).all()
    assert (outcomes.lengths[~reached] == 20).all(), "truncated"


@pytest.mark.parametrize("same_episodes", ["pair", "generation"])
@pytest.mark.parametrize("envs", [1, 2, 5, 40])
def test_neither_the_cut_into_parts_nor_the_environments_beside_each_other_matter(
    envs: int, same_episodes: str
) -> None:
    config = {"same_episodes": same_episodes}
    whole = play(setup(config=config))
    parts = [play(setup(envs=envs, config=config), first, count) for first, count in ((0, 4), (4, 2), (6, 6))]
    for name in ("trial", "returns", "lengths"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name), err_msg=name)
    offsets = np.concatenate([part.extras["offset"] for part in parts])
    np.testing.assert_array_equal(offsets, whole.extras["offset"])


def seeds_shown(told: TrialSetup, **part: Any) -> list[list[float]]:
    """What each trial's episodes drew at their reset, by the mean of the observations: `Corridor` shows it."""
    outcomes = play(told, **part)
    drawn = outcomes.extras["obs_total"][:, 2] / outcomes.extras["obs_count"]
    return np.round(drawn, 6).tolist()


def test_who_plays_the_same_episodes() -> None:
    """With one episode each, what is shown is a constant of the episode."""
    config = {"episodes": 1, "normalize_obs": True}
    by_pair = seeds_shown(setup(config=config))
    assert by_pair[0::2] == by_pair[1::2]
    assert len(set(by_pair)) == 6
    assert len(set(seeds_shown(setup(config={**config, "same_episodes": "generation"})))) == 1
    assert not set(seeds_shown(setup(config=config), round_=1)) & set(by_pair)
    assert not set(seeds_shown(setup(config=config), attempt=1)) & set(by_pair)
    assert not set(seeds_shown(setup(config=config, seed=2))) & set(by_pair)


def test_episodes_are_cut_off_where_that_is_wanted() -> None:
    outcomes = play(setup(config={"max_steps": 4}))
    assert (outcomes.lengths == 4).all()
    assert (outcomes.returns == 0).all()


class Open(Corridor):
    """Counts those that are open."""

    count = 0

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        Open.count += 1

    def close(self) -> None:
        Open.count -= 1


def test_an_environment_that_raises_is_told_with_its_seed_and_not_used_again() -> None:
    told = setup("tests.train.test_trials:Open", {"fail": "step", "fail_at": 30}, run="raises")
    assert Open.count == 0
    with pytest.raises(EnvironmentFailed, match=r"task 4 of round 0: .*Open.*seed \d+.*the corridor fell in at step"):
        play(told)
    assert (Open.count, CACHE._kept) == (0, {})
    with pytest.raises(EnvironmentFailed, match=r"the device is busy"):
        play_trials(
            TrialSetup("busy", EnvSource.of("tests.train.toys:Impossible", {}), told.spec, told.algorithm, 1, 3),
            *(None, {}, 0, Part(0, 0, 0, 2)),
        )


@pytest.mark.parametrize(("fail", "words"), [("reward", "a reward"), ("obs", "an observation")])
def test_numbers_that_are_none_are_an_error(fail: str, words: str, tmp_path: Path) -> None:
    told = setup(settings={"fail": fail, "fail_at": 9}, failures=str(tmp_path / "failures"))
    with pytest.raises(NotFiniteFound, match=rf"\(seed \d+\) gave {words} that is infinite or not a number"):
        play(told)
    assert len(list((tmp_path / "failures").iterdir())) == 1


class Closing:
    """Counts what is open."""

    open = 0

    def __init__(self) -> None:
        Closing.open += 1

    def close(self) -> None:
        Closing.open -= 1


def test_environments_are_made_once_and_closed_when_another_run_comes() -> None:
    cache, make = EnvCache(), Closing
    taken: Any = cache.take("one", make, 2)  # type: ignore[arg-type]
    beside: Any = cache.take("one", make, 2)  # type: ignore[arg-type]
    assert Closing.open == 4, "who takes them has them for itself"
    cache.give_back("one", taken)
    assert cache.take("one", make, 1) is taken  # type: ignore[arg-type]
    cache.give_back("one", taken)
    cache.give_back("one", beside)
    assert Closing.open == 2, "no more than one set stays"
    more = cache.take("one", make, 3)  # type: ignore[arg-type]
    assert (len(more), Closing.open) == (3, 3)
    cache.give_back("one", more)
    cache.give_back("two", cache.take("two", make, 1))  # type: ignore[arg-type]
    assert Closing.open == 1
    cache.clear()
    assert Closing.open == 0


def test_an_environment_that_cannot_be_made_leaves_none_behind() -> None:
    def fails() -> Any:
        if Closing.open == 2:
            raise OSError("no more of them")
        return Closing()

    with pytest.raises(OSError, match="no more"):
        EnvCache().take("one", fails, 3)
    assert Closing.open == 0

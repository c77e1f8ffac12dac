"""Distributions over actions, against torch's own and against frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlray.algos.distributions import Categorical, Gaussian, distribution_for


def test_categorical_is_torchs() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = Categorical(spaces.Discrete(4, start=2)), torch.distributions.Categorical(logits=logits)
    actions = torch.tensor([2, 3, 4, 5, 2, 3])
    torch.testing.assert_close(ours.log_prob(logits, actions), theirs.log_prob(actions - 2))
    torch.testing.assert_close(ours.entropy(logits), theirs.entropy())
    assert ours.best(logits.numpy()).tolist() == (logits.argmax(dim=1) + 2).tolist()


def test_samples_are_as_frequent_as_the_logits_say() -> None:
    probabilities = np.array([0.1, 0.2, 0.3, 0.4])
    drawn = Categorical(spaces.Discrete(4, start=1)).sample(
        np.log(probabilities)[None].repeat(40_000, axis=0), np.random.default_rng(0)
    )
    found = np.bincount(drawn, minlength=5)[1:] / len(drawn)
    np.testing.assert_allclose(found, probabilities, atol=0.01)


def test_gaussian_is_torchs_and_clips_for_the_environment_only() -> None:
    space = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ours = Gaussian(space)
    mean, log_std = outputs.chunk(2, dim=1)
    theirs = torch.distributions.Normal(mean, log_std.exp())
    actions = ours.sample(outputs.numpy() + np.float32(3), np.random.default_rng(0))
    assert actions.dtype == np.float32
    assert np.abs(actions).max() > 2, "samples have no bounds"
    assert (np.abs(ours.for_env(actions)) <= space.high).all()
    taken = torch.from_numpy(actions)
    torch.testing.assert_close(ours.log_prob(outputs, taken), theirs.log_prob(taken).sum(dim=1))
    torch.testing.assert_close(ours.entropy(outputs), theirs.entropy().sum(dim=1))


def test_other_spaces_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"ppo takes Discrete actions or a Box of floats, but Odd-v0 has MultiBinary"):
        distribution_for(spaces.MultiBinary(3), "ppo", "Odd-v0")

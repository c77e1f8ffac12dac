from __future__ import annotations

import torch
from torch import nn

from rlray.algos.targets import Target


def test_a_target_moves_when_told_and_takes_no_gradients() -> None:
    followed = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    target = Target(followed)
    begin = {name: tensor.clone() for name, tensor in followed.state_dict().items()}
    followed(torch.randn(8, 2))  # counts the batch, a whole number, and moves its averages
    with torch.no_grad():
        followed[0].weight.add_(1)  # type: ignore[operator, union-attr]
    assert all(torch.equal(tensor, begin[name]) for name, tensor in target.network.state_dict().items())
    target.move(0.25)
    for name, tensor in target.network.state_dict().items():
        online = followed.state_dict()[name]
        expected = 0.75 * begin[name] + 0.25 * online if tensor.is_floating_point() else online
        torch.testing.assert_close(tensor, expected)
    assert not any(parameter.requires_grad for parameter in target.network.parameters())
    assert all(parameter.requires_grad for parameter in followed.parameters())

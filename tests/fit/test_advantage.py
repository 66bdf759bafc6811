"""The advantage: the share of a random network's probe error that pretraining removes."""

from __future__ import annotations

import pytest

from nbt.fit.advantage import advantage


@pytest.mark.parametrize(
    ("pretrained", "random", "expected"),
    [(0.9, 0.9, 0.0), (1.0, 0.5, 1.0), (0.4, 0.5, -0.2), (0.7, 0.4, 0.5), (1.0, 1.0, 0.0), (0.9992, 0.9995, -0.3)],
)
def test_the_share_of_the_random_networks_errors(pretrained: float, random: float, expected: float) -> None:
    assert advantage(pretrained, random) == pytest.approx(expected)

"""The advantage: the share of a random network's probe error that pretraining removes."""

from __future__ import annotations

import pytest

from nbt.fit.advantage import advantage, is_clear_advantage, is_no_advantage


@pytest.mark.parametrize(
    ("pretrained", "random", "expected"),
    [(0.9, 0.9, 0.0), (1.0, 0.5, 1.0), (0.4, 0.5, -0.2), (0.7, 0.4, 0.5), (1.0, 1.0, 0.0), (0.9992, 0.9995, -0.3)],
)
def test_the_share_of_the_random_networks_errors(pretrained: float, random: float, expected: float) -> None:
    assert advantage(pretrained, random) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pretrained", "random", "images", "is_clear"),
    [
        # One standard error of the difference is 2.9 points with 600 images, 9 with 60.
        (0.56, 0.50, 600, True),
        (0.55, 0.50, 600, False),
        (0.60, 0.50, 60, False),
        (0.70, 0.50, 60, True),
        (0.50, 0.60, 600, False),
        (1.0, 1.0, 600, False),
        (1.0, 0.999, 600, False),
    ],
)
def test_a_clear_advantage_exceeds_two_standard_errors(
    pretrained: float, random: float, images: int, is_clear: bool
) -> None:
    assert is_clear_advantage(pretrained, random, images) is is_clear


@pytest.mark.parametrize(
    ("pretrained", "random", "images", "is_none"),
    [
        (0.50, 0.60, 600, True),
        (0.50, 0.50, 600, True),
        (0.52, 0.50, 600, True),
        (0.535, 0.50, 600, False),
        (0.56, 0.50, 60, True),
        (0.60, 0.50, 60, False),
        (1.0, 1.0, 600, True),
    ],
)
def test_no_advantage_is_at_most_one_standard_error(
    pretrained: float, random: float, images: int, is_none: bool
) -> None:
    assert is_no_advantage(pretrained, random, images) is is_none
    assert not (is_none and is_clear_advantage(pretrained, random, images))

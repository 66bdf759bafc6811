"""Incremental ridge regression: equal to one regression on all images, in any order."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge

from nbt.fit.ridge import STRENGTHS
from nbt.training.continual.incremental_ridge import IncrementalRidge


def make_data(n: int = 50, dim: int = 7, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(n, dim, generator=rng, dtype=torch.float64) * 2.0 + 5.0
    targets = torch.eye(classes, dtype=torch.float64)[torch.randint(classes, (n,), generator=rng)]
    return features, targets


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("n", [50, 4])
def test_equals_a_regression_on_all_images(n: int, intercept: bool) -> None:
    features, targets = make_data(n)
    ridge = IncrementalRidge(7, 3)
    for rows in torch.randperm(n, generator=torch.Generator().manual_seed(1)).split(9):
        ridge.add(features[rows], targets[rows])
    weight, bias = ridge.solve(0.01, intercept=intercept)
    centred = features - features.mean(dim=0) if intercept else features
    joint = Ridge(alpha=0.01 * float(centred.square().sum()), fit_intercept=intercept)
    joint.fit(features.numpy(), targets.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(joint.coef_), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(bias, torch.as_tensor(joint.intercept_).double().expand(3), rtol=1e-9, atol=1e-11)
    assert ridge.n == n


def test_constant_features_give_the_mean_target() -> None:
    targets = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 0, 1, 2])]
    ridge = IncrementalRidge(2, 3)
    ridge.add(torch.full((4, 2), 0.1), targets)
    weight, bias = ridge.solve(1e-7)
    assert not weight.any()
    assert bias.tolist() == [0.5, 0.25, 0.25]


def test_without_images_all_weights_are_zero() -> None:
    weight, bias = IncrementalRidge(2, 3).solve(0.1)
    assert not weight.any() and not bias.any()


def test_the_strength_is_the_best_on_validation_images() -> None:
    features, targets = make_data(200)
    noise = torch.randn(200, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    features = torch.cat([features + targets @ torch.ones(3, 7).double().triu(), noise], dim=1)
    ridge = IncrementalRidge(47, 3)
    ridge.add(features[:60], targets[:60])
    chosen = ridge.choose_strength(features[60:], targets[60:])

    def error(share: float) -> float:
        weight, bias = ridge.solve(share)
        return float((features[60:] @ weight.T + bias - targets[60:]).square().mean())

    assert chosen == min(STRENGTHS, key=error)
    assert STRENGTHS[0] < chosen < STRENGTHS[-1], "not at the ends of the range"


def test_the_state_dict_restores_a_regression() -> None:
    features, targets = make_data()
    saved, loaded = IncrementalRidge(7, 3), IncrementalRidge(7, 3)
    saved.add(features, targets)
    loaded.load_state_dict(saved.state_dict())
    saved.add(features[:5], targets[:5])
    assert loaded.n == 50, "the loaded sums are a copy"
    loaded.add(features[:5], targets[:5])
    assert torch.equal(saved.solve(0.1)[0], loaded.solve(0.1)[0])

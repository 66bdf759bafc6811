"""Augmentation policies and their operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt.settings import AUGMENTATIONS
from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise, draw_augmentation_plan

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])
NEUTRAL = (torch.zeros(3), torch.ones(3))  # keeps values in 0 ... 1


def images(n: int = 16, size: int = 24) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    return (255 * smooth).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def plan(policy: str, n: int = 16, seed: int = 1, mirror: bool = True) -> AugmentationPlan:
    return draw_augmentation_plan(policy, n, torch.Generator().manual_seed(seed), mirror=mirror)


def test_without_augmentation_images_are_only_normalised() -> None:
    batch = images()
    expected = (batch.permute(0, 3, 1, 2).double() / 255 - MEAN.view(1, 3, 1, 1)) / STD.view(1, 3, 1, 1)
    result = augment_and_normalise(batch, plan("none"), MEAN, STD)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("policy", AUGMENTATIONS[1:])
def test_every_policy_changes_images_stays_in_range_and_depends_on_its_seed(policy: str) -> None:
    batch = images()
    result = augment_and_normalise(batch, plan(policy), *NEUTRAL)
    assert result.shape == (16, 3, 24, 24)
    assert result.isfinite().all()
    assert result.min() >= -1e-5
    assert result.max() <= 1 + 1e-5
    assert not torch.allclose(result, augment_and_normalise(batch, plan("none"), *NEUTRAL), atol=0.05)
    assert torch.equal(result, augment_and_normalise(batch, plan(policy), *NEUTRAL))
    assert not torch.equal(result, augment_and_normalise(batch, plan(policy, seed=2), *NEUTRAL))


@pytest.mark.parametrize("policy", AUGMENTATIONS)
def test_an_augmented_image_does_not_depend_on_its_batch(policy: str) -> None:
    batch, drawn = images(), plan(policy)
    rows = torch.tensor([9, 2, 5])
    alone = augment_and_normalise(batch[rows], drawn.rows(rows), *NEUTRAL)
    torch.testing.assert_close(alone, augment_and_normalise(batch, drawn, *NEUTRAL)[rows])


def test_about_half_of_the_images_are_flipped() -> None:
    signs = plan("crop", 4000).affine[:, 0, 0].sign()
    assert abs(signs.mean().item()) < 0.06
    batch = images(1)
    flip = AugmentationPlan(affine=torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]]))
    expected = augment_and_normalise(batch, AugmentationPlan(), *NEUTRAL).flip(3)
    torch.testing.assert_close(augment_and_normalise(batch, flip, *NEUTRAL), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("policy", AUGMENTATIONS[1:3])
def test_images_of_characters_are_never_flipped(policy: str) -> None:
    assert (plan(policy, 500, mirror=False).affine[:, 0, 0] > 0).all()


def test_crops_lie_inside_the_image_and_cover_at_least_half() -> None:
    affine = plan("crop", 2000).affine
    width, height = affine[:, 0, 0].abs(), affine[:, 1, 1]
    assert ((width + affine[:, 0, 2].abs()) <= 1 + 1e-6).all()
    assert ((height + affine[:, 1, 2].abs()) <= 1 + 1e-6).all()
    area = (width * height).numpy()
    assert area.min() > 0.4, "half of the area, less what an elongated crop loses at the border"
    assert np.quantile(area, 0.99) > 0.9


def test_color_factors_of_one_change_nothing_and_grey_images_stay_grey() -> None:
    batch = images()
    same = AugmentationPlan(color=torch.ones(16, 3))
    torch.testing.assert_close(
        augment_and_normalise(batch, same, *NEUTRAL), augment_and_normalise(batch, AugmentationPlan(), *NEUTRAL)
    )
    grey = batch[..., :1].expand(-1, -1, -1, 3).contiguous()
    result = augment_and_normalise(grey, AugmentationPlan(color=plan("color").color), *NEUTRAL)
    torch.testing.assert_close(result[:, 0], result[:, 1], atol=1e-4, rtol=0)


def test_saturation_zero_is_grey_and_contrast_zero_is_flat() -> None:
    batch = images(2)
    grey = augment_and_normalise(batch, AugmentationPlan(color=torch.tensor([[1.0, 1.0, 0.0]] * 2)), *NEUTRAL)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-4, rtol=0)
    flat = augment_and_normalise(batch, AugmentationPlan(color=torch.tensor([[1.0, 0.0, 0.0]] * 2)), *NEUTRAL)
    assert flat[0].std() < 1e-4


def test_tone_operations() -> None:
    batch = images(3)
    solarized, posterized, stretched = augment_and_normalise(
        batch, AugmentationPlan(tone=torch.tensor([[0.5, 256.0, 0.0], [1.0, 8.0, 0.0], [1.0, 256.0, 1.0]])), *NEUTRAL
    ).unbind()
    assert solarized.max() <= 0.5 + 1e-3
    assert len(posterized.unique()) <= 8
    assert stretched.amax(dim=(1, 2)).tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    assert stretched.amin(dim=(1, 2)).tolist() == pytest.approx([0.0] * 3, abs=1e-3)


def test_rand_draws_two_operations_per_image() -> None:
    drawn = plan("rand", 300)
    crop = plan("crop", 300)
    tone = torch.stack([drawn.tone[:, 0] < 1, drawn.tone[:, 1] < 256, drawn.tone[:, 2] > 0]).sum(dim=0)
    geometry = ((drawn.affine - crop.affine).abs().amax(dim=(1, 2)) > 1e-4).int()
    assert int(tone.max()) <= 2
    assert ((tone + geometry) >= 1).all()
    assert 0.6 < tone.float().mean() < 1.4, "three of six operations change the tone: one of two on average"

"""BatchNorm shifts against hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nbt.fit.batch_norm_shift import MAX_IMAGES, BatchNormShiftRecorder, RunningMoments


@pytest.mark.parametrize("shape", [(7, 3), (10, 3, 5), (40, 3, 6, 6)])
def test_moments_over_batches_equal_those_of_all_data(shape: tuple[int, ...]) -> None:
    values = 1000 + torch.randn(shape, generator=torch.Generator().manual_seed(0))
    moments = RunningMoments()
    for part in values.split(4):
        moments.update(part)
    dims = [0, *range(2, values.ndim)]
    torch.testing.assert_close(moments.mean, values.double().mean(dims), rtol=1e-7, atol=1e-4)
    torch.testing.assert_close(moments.variance, values.double().var(dims, correction=0), rtol=1e-3, atol=1e-6)


def make_units() -> list[nn.Module]:
    norm = nn.BatchNorm2d(2, eps=0.0)
    norm.running_mean = torch.tensor([1.0, 0.0])
    norm.running_var = torch.tensor([4.0, 1.0])
    return [nn.Sequential(norm), nn.InstanceNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)]


def record_shifts(units: list[nn.Module], images: torch.Tensor) -> BatchNormShiftRecorder:
    with BatchNormShiftRecorder(units) as recorder:
        for batch in images.split(2):
            for unit in units:
                unit.eval()(batch)
    return recorder


def test_shifts_are_in_standard_deviations_of_the_source() -> None:
    # Channel 0: mean 3, variance 4: shifted by 2 / sqrt(4). Channel 1: mean 0, variance 9: by ln(9) / 2 in variance.
    images = torch.tensor([[5.0, 3.0], [1.0, -3.0]]).view(2, 2, 1, 1).repeat(3, 1, 2, 2)
    first, *others = record_shifts(make_units(), images).shifts()
    assert first.mean == pytest.approx((1.0 + 0.0) / 2)
    assert first.variance == pytest.approx((0.0 + math.log(9) / 2) / 2)
    assert all(math.isnan(value) for shift in others for value in shift)


def test_the_data_of_the_running_statistics_have_no_shift() -> None:
    images = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm2d(2, momentum=None)
    norm.train()(images)
    shift = record_shifts([norm], images).shifts()[0]
    assert shift.mean < 1e-4
    assert shift.variance < 1e-2


def test_hooks_are_removed_and_the_model_is_unchanged() -> None:
    units = make_units()
    before = {name: tensor.clone() for name, tensor in units[0].state_dict().items()}
    record_shifts(units, torch.randn(4, 2, 3, 3))
    assert all(torch.equal(before[name], tensor) for name, tensor in units[0].state_dict().items())
    assert not any(module._forward_pre_hooks for unit in units for module in unit.modules())


def test_only_the_first_images_are_recorded() -> None:
    norm = nn.BatchNorm2d(1)
    images = torch.cat([torch.zeros(MAX_IMAGES, 1, 1, 1), torch.full((50, 1, 1, 1), 1e6)])
    assert record_shifts([norm], images).shifts()[0].mean == 0.0

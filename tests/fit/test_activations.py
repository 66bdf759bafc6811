"""Activations of one forward pass, pooled equally for all kinds of outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt import devices
from nbt.fit.activations import (
    BATCH_SIZE,
    MAX_QUARTERED_FEATURES,
    channels_first,
    collect_activations,
    compute_features,
    iter_image_batches,
    pool_activations,
)
from nbt.models.batch_norm import estimate_statistics
from nbt.task.task import Task
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.worker.context import WorkerContext

CPU = torch.device("cpu")


def test_images_are_normalised_as_in_evaluation(normed: Task) -> None:
    index = normed.split.train[: BATCH_SIZE + 5]
    batches = list(iter_image_batches(normed, index, CPU))
    assert [len(batch) for batch in batches] == [BATCH_SIZE, 5]
    expected = WorkerContext(normed, device="cpu").load_images(torch.from_numpy(index), AugmentationPlan())
    assert torch.equal(torch.cat(batches), expected)


def test_activations_agree_with_the_model(normed: Task) -> None:
    model, index = normed.build_model(), normed.split.train[:70]
    activations = collect_activations(model, normed, index, CPU)
    with torch.no_grad():
        images = torch.cat(list(iter_image_batches(normed, index, CPU)))
        outputs = [model.forward_units(images, 0, stop + 1) for stop in range(model.n_units)]
        features = model.features(images)
    for collected, output in zip(activations.units[:-1], outputs, strict=False):
        torch.testing.assert_close(torch.from_numpy(collected), pool_activations(output), rtol=1e-3, atol=1e-5)
    assert activations.channels == tuple(output.shape[1] for output in outputs)
    torch.testing.assert_close(torch.from_numpy(activations.features), features, rtol=1e-3, atol=1e-5)
    assert np.array_equal(activations.features, compute_features(model, normed, index, CPU))
    assert activations.logits is None


def test_activations_are_float32_on_a_device_that_trains_in_bf16(normed: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    model, index = normed.build_model(), normed.split.train[:40]
    expected, features = collect_activations(model, normed, index, CPU), compute_features(model, normed, index, CPU)
    monkeypatch.setattr(devices, "precision", lambda device: "bf16")
    with devices.autocast(CPU), torch.no_grad():
        assert model.features(next(iter_image_batches(normed, index, CPU))).dtype == torch.bfloat16, (
            "the device trains in bf16"
        )
    activations = collect_activations(model, normed, index, CPU)
    assert all(
        np.array_equal(collected, other) for collected, other in zip(activations.units, expected.units, strict=True)
    )
    assert np.array_equal(compute_features(model, normed, index, CPU), features)


def test_activations_include_source_logits(pretrained: Task) -> None:
    model = pretrained.build_model()
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(model.feature_dim, 4))
    activations = collect_activations(model, pretrained, pretrained.split.train[:9], CPU, source_head=head)
    expected = head[1](torch.from_numpy(activations.features)).detach()
    assert activations.logits is not None
    torch.testing.assert_close(torch.from_numpy(activations.logits), expected)


@pytest.mark.parametrize(
    ("shape", "width"),
    [
        ((5, 7), 7),
        ((5, 9, 7), 7),
        ((5, 7, 4, 4), 28),
        ((5, 7, 1, 1), 7),
        ((5, 4, 4, 7), 28),
        ((5, MAX_QUARTERED_FEATURES // 4, 2, 2), MAX_QUARTERED_FEATURES),
        ((5, MAX_QUARTERED_FEATURES // 4 + 1, 2, 2), MAX_QUARTERED_FEATURES // 4 + 1),
    ],
)
def test_pooling_keeps_channels_and_the_mean(shape: tuple[int, ...], width: int) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    first = channels_first(hidden)
    pooled = pool_activations(first)
    assert pooled.shape == (5, width)
    mean = first.flatten(2).mean(2) if first.ndim > 2 else first
    torch.testing.assert_close(pooled.view(5, first.shape[1], -1).mean(2), mean)


def test_dead_channels_have_a_single_value(encoder: Task) -> None:
    model = encoder.build_model()
    with torch.no_grad():
        convolution, norm = model.units[1][0], model.units[1][1]
        norm.weight[2], norm.bias[2] = 0.0, 0.7  # constant 0.7
        norm.weight[5], norm.bias[5] = 1.0, -1e3  # always 0 after the ReLU
        assert convolution.out_channels == 8
    activations = collect_activations(model, encoder, encoder.split.train[:80], CPU)
    assert activations.dead_channels == (0, 2, 0)


def test_a_channel_that_is_active_only_for_the_last_image_is_not_dead(encoder: Task) -> None:
    class LateActivation(torch.nn.Module):
        calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            out = torch.zeros(len(images), 3, 2, 2)
            if self.calls == 2:
                out[-1, 1, 1, 1] = 1.0
            return out

    model = encoder.build_model()
    model.units = torch.nn.ModuleList([LateActivation()])
    activations = collect_activations(model, encoder, encoder.split.train[: 2 * BATCH_SIZE], CPU)
    assert activations.dead_channels == (2,)


def test_batch_norm_of_random_networks_is_recalibrated(normed: Task) -> None:
    model = normed.build_model(seed=1)
    images = next(iter_image_batches(normed, normed.split.train, CPU, 64))
    spread = [float(model.features(images).detach().std())]
    momenta = [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    estimate_statistics(model, [images])
    spread.append(float(model.features(images).detach().std()))
    assert spread[1] > 0.05 > spread[0]
    assert momenta == [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(module.training for module in model.modules())
    norm = model.units[0][1]
    with torch.no_grad():
        before = model.units[0][0](images)
    torch.testing.assert_close(norm.running_mean, before.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)

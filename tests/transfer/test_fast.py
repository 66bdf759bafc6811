from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nbt.errors import UsageError
from nbt.transfer.fast import FeatureNorm, make_feature_norm, scale_head, stalled
from tests.tiny import TinyNet, unit_state_dict

DIM = 6


def features(n: int = 32, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    scales = torch.tensor([0.01, 0.1, 1.0, 1.0, 10.0, 100.0])
    return torch.randn(n, DIM, generator=rng) * scales + 5 * scales


def images(n: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 12, 12, generator=rng), torch.arange(n) % 3


def net(head_scale: float) -> TinyNet:
    torch.manual_seed(0)
    model = TinyNet().train()
    scale_head(model.head, head_scale)
    return model


class TestFeatureNorm:
    @pytest.mark.parametrize("mode", ["batch", "target"])
    def test_every_feature_gets_mean_0_and_variance_1(self, mode: str) -> None:
        norm = FeatureNorm(mode, DIM, eps=1e-12)
        if mode == "target":
            norm.fit(features())
        normed = norm(features())
        torch.testing.assert_close(normed.mean(dim=0), torch.zeros(DIM), atol=1e-4, rtol=0)
        torch.testing.assert_close(normed.std(dim=0, correction=0), torch.ones(DIM), atol=1e-3, rtol=0)

    def test_a_nearly_constant_feature_is_not_amplified(self) -> None:
        values = features()
        values[:, 0] = 1e-6 * torch.randn(32, generator=torch.Generator().manual_seed(1))
        assert FeatureNorm("batch", DIM)(values)[:, 0].abs().max() < 1e-2

    def test_evaluation_uses_the_running_statistics(self) -> None:
        norm = FeatureNorm("batch", DIM, eps=1e-8)
        for seed in range(40):
            norm(features(64, seed))
        norm.eval()
        single = norm(features(1, 99))
        together = norm(features(64, 99))
        torch.testing.assert_close(single, norm(features(1, 99)))
        assert together.mean().abs() < 0.2
        assert together.std() == pytest.approx(1.0, abs=0.1)

    def test_running_statistics_are_a_plain_mean_first_and_exponential_later(self) -> None:
        norm = FeatureNorm("batch", DIM, momentum=0.25)
        means, variances = [], []
        for seed in range(4):
            batch = features(16, seed)
            norm(batch)
            means.append(batch.mean(dim=0))
            variances.append(batch.var(dim=0))
        torch.testing.assert_close(norm.mean, torch.stack(means).mean(dim=0))
        torch.testing.assert_close(norm.var, torch.stack(variances).mean(dim=0))
        before, last = norm.mean.clone(), features(16, 5)
        norm(last)
        torch.testing.assert_close(norm.mean, 0.75 * before + 0.25 * last.mean(dim=0))

    def test_fit_is_the_mean_and_variance_of_all_batches(self) -> None:
        values = features(50) + 1e4
        norm = FeatureNorm("target", DIM).fit(values.split(7))
        torch.testing.assert_close(norm.mean, values.double().mean(dim=0).float())
        torch.testing.assert_close(norm.var, values.double().var(dim=0, correction=0).float(), rtol=1e-4, atol=0)

    def test_target_statistics_are_constant(self) -> None:
        norm = FeatureNorm("target", DIM).fit(features()).train()
        before = norm.mean.clone()
        torch.testing.assert_close(norm(features(8, 3)), norm.eval()(features(8, 3)))
        assert torch.equal(norm.mean, before)

    @pytest.mark.parametrize("dead", [[0], [2, 3], list(range(DIM))])
    @pytest.mark.parametrize("mode", ["batch", "target"])
    def test_dead_features_become_0_with_finite_gradients(self, mode: str, dead: list[int]) -> None:
        values = features()
        values[:, dead] = 0.0
        values.requires_grad_(True)
        norm = FeatureNorm(mode, DIM)
        if mode == "target":
            norm.fit(values.detach())
        normed = norm(values)
        normed.square().sum().backward()
        assert values.grad is not None
        assert torch.isfinite(normed).all()
        assert torch.isfinite(values.grad).all()
        assert normed[:, dead].abs().max() == 0.0
        norm.eval()
        changed = values.detach().clone()
        changed[:, dead] = 3.0
        assert norm(changed)[:, dead].abs().max() == 0.0, "features that were constant in training stay 0"

    def test_a_batch_of_one_is_an_error_in_training_only(self) -> None:
        norm = FeatureNorm("batch", DIM)
        with pytest.raises(UsageError, match="batch of 1 image"):
            norm(features(1))
        norm(features(2))
        assert torch.isfinite(norm.eval()(features(1))).all()
        assert torch.isfinite(FeatureNorm("target", DIM).fit(features()).train()(features(1))).all()

    def test_target_has_to_be_fitted_or_loaded(self) -> None:
        norm = FeatureNorm("target", DIM)
        with pytest.raises(UsageError, match="call fit"):
            norm(features())
        fitted = FeatureNorm("target", DIM).fit(features())
        norm.load_state_dict(fitted.state_dict())
        assert torch.equal(norm(features()), fitted(features()))

    def test_invalid_use_raises(self) -> None:
        with pytest.raises(UsageError, match="'layer' is not one of batch, target"):
            FeatureNorm("layer", DIM)
        with pytest.raises(UsageError, match="1 images have no variance"):
            FeatureNorm("target", DIM).fit(features(1))
        with pytest.raises(UsageError, match="fit is for mode target"):
            FeatureNorm("batch", DIM).fit(features())

    def test_feature_norm_has_no_parameters_and_none_is_the_identity(self) -> None:
        assert list(FeatureNorm("batch", DIM).parameters()) == []
        assert isinstance(make_feature_norm("none", DIM), nn.Identity)
        assert isinstance(make_feature_norm("target", DIM), FeatureNorm)


class TestHead:
    @pytest.mark.parametrize("classes", [2, 3, 10, 1000])
    def test_a_zero_head_is_maximally_uncertain(self, classes: int) -> None:
        head = nn.Linear(DIM, classes)
        scale_head(head, 0.0)
        loss = F.cross_entropy(head(features()), torch.arange(32) % classes)
        assert loss.item() == pytest.approx(math.log(classes), rel=1e-6)
        assert not head.bias.any()
        assert not torch.signbit(head.weight).any()

    def test_the_scale_multiplies_the_initialisation(self) -> None:
        torch.manual_seed(1)
        plain = nn.Linear(DIM, 3)
        torch.manual_seed(1)
        scaled, same = nn.Linear(DIM, 3), nn.Linear(DIM, 3)
        same.load_state_dict(plain.state_dict())
        scale_head(scaled, 1e-3)
        scale_head(same, 1.0)
        torch.testing.assert_close(scaled.weight, 1e-3 * plain.weight)
        torch.testing.assert_close(scaled.bias, 1e-3 * plain.bias)
        assert torch.equal(same.weight, plain.weight)
        with pytest.raises(UsageError, match="negative"):
            scale_head(scaled, -1.0)

    @pytest.mark.parametrize("mode", ["none", "batch", "target"])
    def test_a_zero_head_passes_no_gradient_in_the_first_step(self, mode: str) -> None:
        def gradients(head_scale: float) -> list[torch.Tensor]:
            model, (inputs, truth) = net(head_scale), images()
            norm = make_feature_norm(mode, DIM)
            if isinstance(norm, FeatureNorm) and mode == "target":
                norm.fit(torch.randn(20, DIM))
            hidden = inputs
            for unit in model.units:
                hidden = unit(hidden)
            F.cross_entropy(model.head(norm(model.neck(hidden))), truth).backward()
            return [p.grad for p in model.units.parameters() if p.grad is not None]

        assert all(gradient.abs().max() == 0.0 for gradient in gradients(0.0))
        assert max(gradient.abs().max() for gradient in gradients(1e-3)) > 0.0

    def test_the_first_step_gives_a_nearest_class_mean_classifier(self) -> None:
        rng = torch.Generator().manual_seed(3)
        truth = torch.arange(60) % 3
        values = torch.randn(60, DIM, generator=rng) + 2 * torch.randn(3, DIM, generator=rng)[truth] + 40.0
        normed = FeatureNorm("batch", DIM)(values)
        means = torch.stack([normed[truth == c].mean(dim=0) for c in range(3)])
        head = nn.Linear(DIM, 3)
        scale_head(head, 0.0)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.3)
        F.cross_entropy(head(normed), truth).backward()
        optimizer.step()
        torch.testing.assert_close(head.weight.detach(), 0.3 / 3 * (means - means.mean(dim=0)), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(means.mean(dim=0), torch.zeros(DIM), atol=1e-5, rtol=0)
        assert torch.equal(head(normed).argmax(dim=1), (normed @ means.T).argmax(dim=1))

    def test_without_normalisation_the_rows_are_still_class_mean_differences(self) -> None:
        truth = torch.arange(30) % 3
        values = features(30)
        head = nn.Linear(DIM, 3)
        scale_head(head, 0.0)
        F.cross_entropy(head(values), truth).backward()
        assert head.weight.grad is not None
        means = torch.stack([values[truth == c].mean(dim=0) for c in range(3)])
        torch.testing.assert_close(-3 * head.weight.grad, means - values.mean(dim=0), atol=1e-3, rtol=1e-3)


Optimizer = Callable[[TinyNet], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1),
    "adam fused": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=0.1),
}


def take_step(model: TinyNet, optimizer: torch.optim.Optimizer) -> None:
    inputs, truth = images()
    optimizer.zero_grad()
    F.cross_entropy(model(inputs), truth).backward()
    optimizer.step()


class TestStall:
    def test_only_a_stall_keeps_adam_from_moving_the_backbone(self) -> None:
        for head_scale, moves in ((1e-4, True), (0.0, False)):
            model = net(head_scale)
            before = unit_state_dict(model)["units.0.0.weight"]
            take_step(model, torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-12))
            moved = (unit_state_dict(model)["units.0.0.weight"] - before).abs().median().item()
            assert moved == pytest.approx(1e-3 if moves else 0.0, rel=1e-2)

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_stalled_backbone_buffers_and_optimiser_state_are_unchanged(self, name: str) -> None:
        model = net(1.0)
        optimizer = OPTIMIZERS[name](model)
        before, head = unit_state_dict(model), model.head.weight.detach().clone()
        with stalled(model.units):
            for _ in range(5):
                take_step(model, optimizer)
        assert all(torch.equal(tensor, before[name]) for name, tensor in unit_state_dict(model).items())
        assert not torch.equal(model.head.weight, head)
        assert set(optimizer.state) == set(model.head.parameters())

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_moments_from_before_a_stall_are_kept(self, name: str) -> None:
        model = net(1.0)
        optimizer = OPTIMIZERS[name](model)
        take_step(model, optimizer)
        weight = model.units[0][0].weight
        before = {key: value.clone() for key, value in optimizer.state[weight].items()}
        with stalled(model.units):
            take_step(model, optimizer)
        assert all(torch.equal(value, before[key]) for key, value in optimizer.state[weight].items())

    def test_everything_trains_again_afterwards(self) -> None:
        model = net(1.0)
        optimizer = OPTIMIZERS["adamw"](model)
        with stalled(model.units):
            take_step(model, optimizer)
        before = unit_state_dict(model)
        take_step(model, optimizer)
        changed = [name for name, tensor in unit_state_dict(model).items() if not torch.equal(tensor, before[name])]
        assert len(changed) == len(before)

    def test_frozen_parameters_and_modes_are_restored_even_after_an_error(self) -> None:
        model = net(1.0)
        model.units[0].requires_grad_(False)
        model.units[0].eval()
        with pytest.raises(RuntimeError, match="stop"), stalled(*model.units):
            assert not any(part.training for part in model.units.modules() if part is not model.units)
            raise RuntimeError("stop")
        assert not any(p.requires_grad for p in model.units[0].parameters())
        assert all(p.requires_grad for p in model.units[1].parameters())
        assert [unit.training for unit in model.units] == [False, True, True, True]

    def test_no_graph_of_the_backbone_is_built(self) -> None:
        model = net(1.0)
        with stalled(model.units):
            assert not model.units[0](images()[0]).requires_grad
            assert model(images()[0]).requires_grad

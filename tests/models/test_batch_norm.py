"""Running statistics of BatchNorm layers: re-estimation, and the recognition of those of new layers."""

from __future__ import annotations

import pytest
import torch

from nbt.errors import UsageError
from nbt.models.batch_norm import estimate_statistics, initial_statistics
from tests.tiny import TinyNet


def perturbed(model: TinyNet) -> TinyNet:
    """Changes all parameters and buffers, so that none has its initial value."""
    rng = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        tensor.add_(torch.rand(tensor.shape, generator=rng) if tensor.is_floating_point() else 3)
    return model.eval()


def state(model: TinyNet) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


class TestStatistics:
    def batches(self, n: int = 3) -> list[torch.Tensor]:
        rng = torch.Generator().manual_seed(0)
        return [2 * torch.randn(4, 3, 12, 12, generator=rng) + i for i in range(n)]

    def test_statistics_are_the_mean_over_the_batches(self) -> None:
        model = perturbed(TinyNet())
        outputs = [model.units[0][0](images) for images in self.batches()]
        estimate_statistics(model, self.batches())
        norm = model.units[0][1]
        torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in outputs]).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in outputs]).mean(0))
        assert norm.num_batches_tracked == 3

    def test_only_the_named_layers_change(self) -> None:
        model = perturbed(TinyNet()).train()
        model.units[1].eval()
        before, modes = state(model), [module.training for module in model.modules()]
        estimate_statistics(model, self.batches(), ["units.1.1"])
        changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
        assert changed == {f"units.1.1.{role}" for role in ("running_mean", "running_var")}
        assert [module.training for module in model.modules()] == modes
        assert model.units[1][1].momentum == 0.1

    def test_without_a_batch_nothing_changes(self) -> None:
        model = perturbed(TinyNet())
        before = state(model)
        with pytest.raises(UsageError, match="without a batch"):
            estimate_statistics(model, [])
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
        estimate_statistics(model, [], [])


def test_statistics_of_new_layers_are_recognised() -> None:
    model = TinyNet()
    assert initial_statistics(model.state_dict()) == ("units.0.1", "units.1.1", "units.3.1")
    model.units[1][1].running_mean[2] = 0.1
    model.units[3][1].running_var[0] = 2.0
    assert initial_statistics(model.state_dict()) == ("units.0.1",)

"""The training loss, compared with PyTorch and with values computed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nbt.settings import TransferSettings
from nbt.training.recipe.loss import TrainingLoss

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 3.0], [0.0, 1.0, -2.0, 4.0]])
TRUTH = torch.tensor([2, 1])
ACTIVE = torch.tensor([False, True, True, False])


def test_a_target_scale_of_zero_is_cross_entropy() -> None:
    loss = TrainingLoss(TransferSettings(label_smoothing=0.1))(LOGITS, TRUTH)
    assert float(loss) == pytest.approx(float(F.cross_entropy(LOGITS, TRUTH, label_smoothing=0.1)))


def test_squared_error() -> None:
    loss = TrainingLoss(TransferSettings(target_scale=5.0))(LOGITS, TRUTH)
    first = (4 + 1 + 4.5**2 + 9) / 2
    second = (0 + 16 + 4 + 16) / 2
    assert float(loss) == pytest.approx((first + second) / 2)


def test_smoothed_targets_are_spread_over_all_classes() -> None:
    smoothed = TrainingLoss(TransferSettings(target_scale=2.0, label_smoothing=0.4))
    perfect = torch.tensor([[0.2, 0.2, 1.4, 0.2]])
    assert float(smoothed(perfect, TRUTH[:1])) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_inactive_outputs_have_no_effect(scale: float) -> None:
    settings = TransferSettings(target_scale=scale, label_smoothing=0.2)
    loss = TrainingLoss(settings, ACTIVE)(LOGITS, TRUTH)
    alone = TrainingLoss(settings)(LOGITS[:, 1:3], TRUTH - 1)
    assert float(loss) == pytest.approx(float(alone))
    logits = LOGITS.clone().requires_grad_()
    TrainingLoss(settings, ACTIVE)(logits, TRUTH).backward()
    assert not logits.grad[:, [0, 3]].any()
    assert logits.grad[:, 1:3].all()


def test_inactive_outputs_are_never_predicted() -> None:
    loss_fn = TrainingLoss(TransferSettings(), ACTIVE)
    assert loss_fn.mask_logits(LOGITS).argmax(dim=1).tolist() == [2, 1]
    assert TrainingLoss(TransferSettings()).mask_logits(LOGITS) is LOGITS


class TestClassWeights:
    LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])

    @pytest.mark.parametrize("changes", [{}, {"target_scale": 5.0}, {"label_smoothing": 0.1}])
    def test_balanced_weights_equal_a_training_set_with_equal_classes(self, changes: dict[str, float]) -> None:
        """On the whole training set, the loss is that of images repeated until all classes have the same number."""
        settings = TransferSettings(**changes)
        logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
        balanced = TrainingLoss(settings.replace(class_weights="balanced"), labels=self.LABELS)
        repeated = torch.cat([torch.arange(6), torch.arange(6, 9).repeat(2), torch.full((6,), 9)])
        expected = TrainingLoss(settings)(logits[repeated], self.LABELS[repeated])
        torch.testing.assert_close(balanced(logits, self.LABELS), expected)
        assert not torch.isclose(expected, TrainingLoss(settings)(logits, self.LABELS))

    def test_only_the_outputs_of_a_stage_take_part(self) -> None:
        settings = TransferSettings(class_weights="balanced")
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        labels = torch.tensor([1, 1, 1, 2])
        masked = TrainingLoss(settings, torch.tensor([False, True, True]), labels)(logits, labels)
        alone = TrainingLoss(settings, labels=labels - 1)(logits[:, 1:], labels - 1)
        torch.testing.assert_close(masked, alone)

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

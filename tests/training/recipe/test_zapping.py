"""The epochs and the rows of zaps, and zaps within a trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nbt.errors import UsageError
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.fine_tune import fine_tune
from nbt.training.recipe.zapping import Zapping, ZapWarmup
from nbt.training.worker.context import WorkerContext
from nbt.transfer.technique import TrainingRun

SETTINGS = TransferSettings(epochs=7, zap_period=2, zap_fraction=0.4)
ONLY_ZAPS = SETTINGS.replace(head_lr=1e-12, body_lr=1e-12, decay_strength=0.0, batch_size=32)


def zap_head(head: nn.Linear, settings: TransferSettings, seed: int, epoch: int) -> None:
    model = nn.Module()
    model.head = head
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    Zapping(TrainingRun(settings, seed, model, 0, optimizer, 1)).before_epoch(epoch)


def zapped(head: nn.Linear, settings: TransferSettings, seed: int, epoch: int) -> tuple[list[int], torch.Tensor]:
    before, bias = head.weight.detach().clone(), head.bias.detach().clone()
    zap_head(head, settings, seed, epoch)
    assert torch.equal(head.bias, bias)
    return [row for row in range(len(before)) if not torch.equal(before[row], head.weight[row])], head.weight.detach()


@pytest.mark.parametrize(
    ("period", "epochs"), [(0, []), (1, [2, 3, 4, 5, 6, 7]), (2, [3, 5, 7]), (3, [4, 7]), (6, [7])]
)
def test_epochs_with_zaps(period: int, epochs: list[int]) -> None:
    settings = SETTINGS.replace(zap_period=period)
    assert [epoch for epoch in range(1, 8) if settings.is_zap_due(epoch)] == epochs


@pytest.mark.parametrize(("fraction", "rows"), [(1.0, 5), (0.4, 2), (0.5, 2), (0.1, 1), (0.01, 1)])
def test_a_share_of_the_rows_and_at_least_one_is_drawn(fraction: float, rows: int) -> None:
    drawn, _ = zapped(nn.Linear(8, 5), SETTINGS.replace(zap_fraction=fraction), 0, 3)
    assert len(drawn) == rows


def test_rows_and_weights_depend_on_seed_and_epoch() -> None:
    def drawn(seed: int, epoch: int) -> tuple[list[int], torch.Tensor]:
        rows, weight = zapped(nn.Linear(8, 20), SETTINGS, seed, epoch)
        return rows, weight[rows]

    rows, values = drawn(3, 5)
    again, same = drawn(3, 5)
    assert rows == again
    assert torch.equal(values, same)
    assert drawn(3, 7)[0] != rows
    assert drawn(4, 5)[0] != rows


@pytest.mark.parametrize(("scale", "deviation"), [("per_row", (2 / 400) ** 0.5), ("as_released", (2 / 8000) ** 0.5)])
def test_the_scale_is_that_of_the_settings(scale: str, deviation: float) -> None:
    settings = SETTINGS.replace(zap_fraction=1.0, zap_scale=scale)
    _, weight = zapped(nn.Linear(400, 20), settings, 0, 3)
    assert weight.std().item() == pytest.approx(deviation, rel=0.05)


def test_a_trial_zaps_the_expected_rows_in_the_expected_epochs(digits: Task) -> None:
    """At learning rates of 1e-12, only zaps change the head."""
    context = WorkerContext(digits)
    expected = [context.prepare_model(ONLY_ZAPS, 9)[0].head.weight.detach().clone()]
    head = nn.Linear(expected[0].shape[1], 5)
    for epoch in range(1, 8):
        head.weight.data.copy_(expected[-1])
        zap_head(head, ONLY_ZAPS, 9, epoch)
        expected.append(head.weight.detach().clone())
    observed = [context.model.head.weight.detach().clone() for _ in fine_tune(digits, ONLY_ZAPS, 9, context=context)]
    for epoch, weight in enumerate(observed, start=1):
        torch.testing.assert_close(weight, expected[epoch], atol=1e-6, rtol=0)
        changed = (expected[epoch] - expected[epoch - 1]).abs().amax(dim=1) > 1e-3
        assert int(changed.sum()) == (2 if epoch in (3, 5, 7) else 0)


def test_zapped_trials_resume_bit_for_bit(digits: Task, tmp_path: Path) -> None:
    settings = SETTINGS.replace(head_lr=0.1, epochs=5)
    path = tmp_path / "trial.pt"
    trial = fine_tune(digits, settings, checkpoint=path, checkpoint_seconds=0)
    next(trial), next(trial)
    trial.close()
    context, other = WorkerContext(digits), WorkerContext(digits)
    resumed = [e.train_loss for e in fine_tune(digits, settings, context=context, checkpoint=path)]
    whole = [e.train_loss for e in fine_tune(digits, settings, context=other)]
    assert resumed == whole[2:]
    assert torch.equal(context.model.head.weight, other.model.head.weight)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_head_recovers_only_if_zaps_end_before_the_rates_fall(digits: Task, seed: int) -> None:
    settings = TransferSettings(epochs=8, head_lr=0.1, body_lr=0.05, batch_size=16, zap_period=1)
    context = WorkerContext(digits)

    def last_accuracy(settings: TransferSettings) -> float:
        return [epoch.val_accuracy or 0.0 for epoch in fine_tune(digits, settings, seed, context=context)][-1]

    assert last_accuracy(settings) < 0.5, "five classes: chance is .2"
    assert last_accuracy(settings.replace(zap_until=0.6)) > 0.75


@pytest.mark.parametrize(("until", "epochs"), [(1.0, [2, 3, 4]), (0.75, [2, 3, 4]), (0.74, [2, 3]), (0.25, [2])])
def test_no_zap_comes_after_its_share_of_the_steps(until: float, epochs: list[int]) -> None:
    settings = TransferSettings(epochs=4, zap_period=1, zap_until=until)
    assert [epoch for epoch in range(1, 5) if settings.is_zap_due(epoch)] == epochs


def test_a_share_before_the_first_zap_is_refused(digits: Task) -> None:
    with pytest.raises(UsageError, match=r"zap_until: the first zap, after 2 of 7 epochs, .* share 0\.2"):
        next(fine_tune(digits, SETTINGS.replace(zap_until=0.2)))


class TestWarmup:
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_steps_of_zapped_rows_rise_linearly_and_others_are_unchanged(self, optimizer: str) -> None:
        settings = TransferSettings(epochs=4, zap_period=2, zap_fraction=0.4, zap_warmup=0.5, optimizer=optimizer)
        model = nn.Module()
        model.head = nn.Linear(3, 5)
        weight = model.head.weight
        run = TrainingRun(settings, 0, model, 0, torch.optim.SGD(model.parameters(), lr=1.0), steps_per_epoch=3)
        zapping = Zapping(run)
        warmup = ZapWarmup(run, zapping)
        rows = list(zapping.zapped_rows(3))
        others = [row for row in range(5) if row not in rows]
        for step in range(12):
            if step % 3 == 0:
                warmup.before_epoch(step // 3 + 1)
            before = weight.detach().clone()
            warmup.before_step(step)
            weight.data += 1.0
            warmup.after_step()
            # Half of the period of 6 steps, after the zap at step 6.
            share = {6: 0.25, 7: 0.5, 8: 0.75}.get(step, 1.0)
            torch.testing.assert_close(weight.data[rows], before[rows] + share)
            assert torch.equal(weight.data[others], before[others] + 1.0)

    def test_it_slows_the_head_after_a_zap_and_resumes_bit_for_bit(self, digits: Task, tmp_path: Path) -> None:
        settings = SETTINGS.replace(epochs=5, head_lr=0.1, zap_period=3, zap_warmup=0.6)
        path = tmp_path / "trial.pt"
        trial = fine_tune(digits, settings, checkpoint=path, checkpoint_seconds=0)
        for _ in range(4):  # the warm-up of the zap in epoch 4 goes on in epoch 5
            next(trial)
        trial.close()
        resumed = [epoch.train_loss for epoch in fine_tune(digits, settings, checkpoint=path)]
        whole = [epoch.train_loss for epoch in fine_tune(digits, settings)]
        without = [epoch.train_loss for epoch in fine_tune(digits, settings.replace(zap_warmup=0.0))]
        assert resumed == whole[4:]
        assert whole[:3] == without[:3] and whole[3] > without[3]


def test_a_zap_period_beyond_the_training_is_refused_before_training(digits: Task) -> None:
    with pytest.raises(UsageError, match="zap_period: 7"):
        next(fine_tune(digits, SETTINGS.replace(zap_period=7)))

"""`fine_tune`: reproducibility, resuming, the effect of each setting, and the kept weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbt.settings import TransferSettings, repair
from nbt.task.task import Task
from nbt.training.evaluation import evaluate_model
from nbt.training.fine_tune import fine_tune
from nbt.training.metrics import OTHER_METRICS
from nbt.training.worker.context import WorkerContext
from tests.training.runs import losses, run, weights

QUICK = TransferSettings(epochs=4, head_lr=0.1, body_lr=0.05, batch_size=16)
EVERYTHING = QUICK.replace(
    frozen_depth=0.34, transfer_depth=0.67, sp_mix=0.5, decay_strength=0.01, ema=0.9, mixup=0.2, label_smoothing=0.1,
    augmentation="rand", layer_lr_shape=(-1.0, 0.0, 0.5),
)  # fmt: skip


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_yields_one_result_per_epoch_and_learns(digits: Task) -> None:
    curve = list(fine_tune(digits, QUICK.replace(epochs=12)))
    assert [result.epoch for result in curve] == list(range(1, 13))
    assert curve[-1].train_loss < 0.5 * curve[0].train_loss
    assert max(result.val_accuracy or 0 for result in curve) > 0.7, "five classes: chance is .2"
    assert all(result.seconds > 0 for result in curve)


def test_golden_curve(digits: Task) -> None:
    """The losses of a fixed seed. A change here changes the results of all users and has to be intended."""
    # The operations of "rand" round to whole pixel values and so differ between processors; "color" agrees to 1e-6.
    tuned = run(digits, EVERYTHING.replace(frozen_depth=0.0, augmentation="color"))
    golden = [1.4060, 1.1046, 0.9331, 0.8156]
    assert [loss for loss, _, _ in losses(tuned)] == pytest.approx(golden, abs=1e-3)


@pytest.mark.parametrize("settings", [QUICK, EVERYTHING, QUICK.replace(optimizer="adamw", head_lr=0.01, body_lr=0.01)])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(digits: Task, settings: TransferSettings) -> None:
    first, second, other = run(digits, settings), run(digits, settings), run(digits, settings, seed=1)
    assert losses(first) == losses(second)
    assert same(weights(first), weights(second))
    assert losses(first) != losses(other)


@pytest.mark.parametrize("killed_after", [1, 3])
@pytest.mark.parametrize(
    "settings", [QUICK, EVERYTHING, QUICK.replace(frozen_depth=1.0), QUICK.replace(optimizer="adamw", ema=0.8)]
)
def test_a_resumed_trial_equals_an_uninterrupted_one_bit_for_bit(
    digits: Task, tmp_path: Path, settings: TransferSettings, killed_after: int
) -> None:
    path = tmp_path / "trial.pt"
    trial = fine_tune(digits, settings, 3, checkpoint=path, checkpoint_seconds=0)
    for _ in range(killed_after):
        next(trial)
    trial.close()
    new_epochs = list(fine_tune(digits, settings, 3, checkpoint=path, checkpoint_seconds=0))
    assert [result.epoch for result in new_epochs] == list(range(killed_after + 1, 5))
    resumed = run(digits, settings, 3, checkpoint=path)
    whole = run(digits, settings, 3)
    assert losses(resumed) == losses(whole)
    assert same(weights(resumed), weights(whole))


def test_resume_with_batchnorm_and_dropout(digits_batchnorm: Task, tmp_path: Path) -> None:
    path = tmp_path / "trial.pt"
    settings = QUICK.replace(epochs=3, frozen_depth=0.5)
    trial = fine_tune(digits_batchnorm, settings, checkpoint=path, checkpoint_seconds=0)
    next(trial)
    trial.close()
    resumed = run(digits_batchnorm, settings, checkpoint=path)
    whole = run(digits_batchnorm, settings)
    assert whole.model.dropout.p > 0
    assert same(weights(resumed), weights(whole))


def test_a_checkpoint_of_other_weights_is_not_continued(
    digits: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that was killed with one weights file and resumed with another must not mix the two."""
    path = tmp_path / "trial.pt"
    settings = QUICK.replace(sp_mix=1.0, decay_strength=1.0)
    trial = fine_tune(digits, settings, checkpoint=path, checkpoint_seconds=0)
    next(trial)
    trial.close()
    other = dataclasses.replace(digits, w0={name: tensor + 0.01 for name, tensor in digits.w0.items()})
    assert same(weights(run(other, settings, checkpoint=path)), weights(run(other, settings)))
    assert "other weights: the training starts over" in caplog.text
    assert same(weights(run(digits, settings, checkpoint=path)), weights(run(digits, settings)))


def test_a_checkpoint_of_another_training_version_is_not_continued(
    digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trial.pt"
    trial = fine_tune(digits, QUICK, checkpoint=path, checkpoint_seconds=0)
    next(trial)
    trial.close()
    monkeypatch.setattr("nbt.training.checkpoint.TRAINING_VERSION", 2)
    assert [result.epoch for result in fine_tune(digits, QUICK, checkpoint=path)] == [1, 2, 3, 4]
    assert "other training version: the training starts over" in caplog.text


def test_a_checkpoint_of_other_settings_is_not_used(digits: Task, tmp_path: Path) -> None:
    path = tmp_path / "trial.pt"
    trial = fine_tune(digits, QUICK, checkpoint=path, checkpoint_seconds=0)
    next(trial)
    trial.close()
    other = QUICK.replace(head_lr=0.2)
    assert losses(run(digits, other, checkpoint=path)) == losses(run(digits, other))


@pytest.mark.parametrize("frozen", [0.34, 0.67, 1.0])
@pytest.mark.parametrize("spilled", [False, True])
def test_the_feature_cache_does_not_change_the_result_without_augmentation(
    digits: Task, frozen: float, spilled: bool
) -> None:
    settings = QUICK.replace(frozen_depth=frozen, augmentation="none", mixup=0.3)
    cached = run(digits, settings, context=WorkerContext(digits, cache_bytes=0 if spilled else 2**30))
    uncached = run(digits, settings, context=WorkerContext(digits, cache_frozen_features=False))
    for name, tensor in weights(cached).items():
        torch.testing.assert_close(tensor, weights(uncached)[name], atol=1e-4, rtol=1e-4, msg=name)


def test_the_feature_cache_with_batchnorm(digits_batchnorm: Task) -> None:
    settings = QUICK.replace(frozen_depth=0.5, augmentation="none", epochs=2, body_lr=1e-5, head_lr=1e-3)
    cached = run(digits_batchnorm, settings, context=WorkerContext(digits_batchnorm))
    uncached = run(digits_batchnorm, settings, context=WorkerContext(digits_batchnorm, cache_frozen_features=False))
    assert cached.curve[-1].train_loss == pytest.approx(uncached.curve[-1].train_loss, rel=1e-3)


@pytest.mark.parametrize("changes", [{"frozen_depth": 0.67}, {"frozen_depth": 1.0, "mixup": 0.2, "batch_size": 13}])
def test_results_do_not_depend_on_free_memory(
    digits: Task, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views that the cache cannot hold are computed again, not replaced by fresh augmentation."""
    from nbt.training.worker.feature_cache import FrozenFeatureCache

    settings = QUICK.replace(augmentation="color", views=2, epochs=3, **changes)
    cached = run(digits, settings)
    expected, expected_weights = losses(cached), weights(cached)
    monkeypatch.setattr(FrozenFeatureCache, "_allocate_file", lambda *_: (None, None))
    without = run(digits, settings, context=WorkerContext(digits, cache_bytes=0))
    assert losses(without) == expected
    assert same(weights(without), expected_weights)


def test_a_cached_view_does_not_depend_on_earlier_trials(digits: Task) -> None:
    settings = QUICK.replace(frozen_depth=0.67, views=2)
    context = WorkerContext(digits)
    run(digits.with_split_seed(7), settings, 5, context=context)
    run(digits, EVERYTHING, 6, context=context)
    assert same(weights(run(digits, settings, context=context)), weights(run(digits, settings)))


def test_a_used_context_gives_the_same_result_as_a_new_one(digits_batchnorm: Task) -> None:
    settings = QUICK.replace(epochs=1, transfer_depth=0.5)
    context = WorkerContext(digits_batchnorm)
    run(digits_batchnorm, QUICK.replace(epochs=1, body_lr=1.0), 9, context=context)
    assert same(weights(run(digits_batchnorm, settings, context=context)), weights(run(digits_batchnorm, settings)))


def test_frozen_units_keep_w0_bit_for_bit_and_the_others_change(digits_batchnorm: Task) -> None:
    tuned = run(digits_batchnorm, QUICK.replace(frozen_depth=0.5, epochs=1))
    after = weights(tuned)
    for name, tensor in digits_batchnorm.w0.items():
        frozen = int(name.split(".")[1]) < 10
        if frozen:
            assert torch.equal(after[name], tensor), name
    changed = [name for name, tensor in digits_batchnorm.w0.items() if not torch.equal(after[name], tensor)]
    assert {int(name.split(".")[1]) for name in changed} == set(range(10, 19))


def test_w0_is_never_changed(digits: Task) -> None:
    before = {name: tensor.clone() for name, tensor in digits.w0.items()}
    context = WorkerContext(digits)
    run(digits, EVERYTHING, context=context)
    assert all(torch.equal(before[name], tensor) for name, tensor in digits.w0.items())
    assert all(torch.equal(before[name], context.w0[name]) for name in before)


@pytest.mark.parametrize(("depth", "kept"), [(0.0, 0), (0.34, 1), (0.67, 2), (1.0, 3)])
def test_units_below_the_transfer_depth_start_from_w0_and_the_others_are_new(
    digits: Task, depth: float, kept: int
) -> None:
    context = WorkerContext(digits)
    model, _ = context.prepare_model(TransferSettings(transfer_depth=depth), seed=4)
    for name, tensor in model.unit_state_dict().items():
        same_as_w0 = torch.equal(tensor, digits.w0[name])
        constant = tensor.float().std().item() == 0 if tensor.numel() > 1 else True
        assert same_as_w0 == (int(name.split(".")[1]) < kept) or constant, name
    again, _ = context.prepare_model(TransferSettings(transfer_depth=depth), seed=5)
    if kept < 3:
        assert not torch.equal(again.units[2][0].weight, WorkerContext(digits).prepare_model(
            TransferSettings(transfer_depth=depth), seed=4)[0].units[2][0].weight)  # fmt: skip


def test_strong_l2sp_keeps_the_weights_close_to_w0(digits: Task) -> None:
    settings = QUICK.replace(sp_mix=1.0, decay_strength=15.0, epochs=2, momentum=0.0)
    regularised = weights(run(digits, settings))
    free = weights(run(digits, settings.replace(decay_strength=0.0)))
    name = "units.2.0.weight"
    distance = (regularised[name] - digits.w0[name]).norm()
    assert distance < 0.3 * (free[name] - digits.w0[name]).norm()


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"linearized": True}, {"frozen_depth": 1.0}])
def test_the_result_has_the_weights_of_the_last_epoch(digits: Task, changes: dict[str, Any]) -> None:
    settings = QUICK.replace(body_lr=0.3, head_lr=0.5, epochs=8, warmup=0.0, **changes)
    context = WorkerContext(digits)
    tuned = run(digits, settings, context=context)
    last = tuned.curve[-1]
    if not changes:
        assert (last.val_loss or 0.0) > min(result.val_loss or 0.0 for result in tuned.curve), "not the best epoch"
    evaluation = evaluate_model(context, tuned.model, digits.split.val)
    assert evaluation.accuracy == pytest.approx(last.val_accuracy)
    assert evaluation.loss == pytest.approx(last.val_loss, rel=1e-4)


def test_the_moving_average_is_validated(digits: Task) -> None:
    tuned = run(digits, QUICK.replace(ema=0.98, epochs=3))
    assert losses(tuned)[0][0] == losses(run(digits, QUICK.replace(epochs=3)))[0][0], "training itself is the same"
    assert losses(tuned)[1][1] != losses(run(digits, QUICK.replace(epochs=3)))[1][1]


def test_without_validation_images_epochs_have_no_validation(digits: Task) -> None:
    last = run(digits.train_on_all(), QUICK).curve[-1]
    assert (last.val_accuracy, last.val_loss) == (None, None)


def test_a_diverged_trial_has_the_worst_accuracy(digits_batchnorm: Task) -> None:
    broken = dataclasses.replace(
        digits_batchnorm, w0={n: t * math.nan if n.endswith("0.weight") else t for n, t in digits_batchnorm.w0.items()}
    )
    tuned = run(broken, QUICK)
    assert len(tuned.curve) == 1
    assert tuned.curve[0].diverged
    assert tuned.curve[0].val_accuracy == 0.0
    assert tuned.curve[0].to_dict()["train_loss"] is None


def test_sending_true_ends_the_trial_with_its_epochs_so_far(digits: Task) -> None:
    trial = fine_tune(digits, QUICK)
    next(trial)
    trial.send(False)
    with pytest.raises(StopIteration) as end:
        trial.send(True)
    assert len(end.value.value.curve) == 2


def test_settings_are_repaired_first(digits: Task) -> None:
    tuned = run(digits, QUICK.replace(transfer_depth=0.34, frozen_depth=1.0, epochs=1))
    assert tuned.settings.frozen_depth == 0.34


def test_the_global_generator_is_restored_after_every_epoch(digits: Task) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    trial = fine_tune(digits, QUICK)
    next(trial)
    next(trial)
    assert torch.equal(torch.rand(3), expected)


def test_batch_sizes_differ_by_at_most_one(digits: Task) -> None:
    """BatchNorm would have no statistics for a last batch of one image."""
    n = len(digits.split.train)
    settings = QUICK.replace(batch_size=n - 1, epochs=1)
    assert run(digits, settings).curve[0].train_loss > 0
    sizes = [len(part) for part in torch.arange(n).tensor_split(math.ceil(n / (n - 1)))]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.gpu
def test_learns_on_a_gpu(digits: Task) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    tuned = run(digits, QUICK.replace(epochs=12, frozen_depth=0.34), context=WorkerContext(digits, device="cuda"))
    assert max(result.val_accuracy or 0 for result in tuned.curve) > 0.7
    assert tuned.model.head.weight.device.type == "cuda"


def test_memory_mapped_images_give_the_same_result(digits: Task, tmp_path: Path) -> None:
    from nbt.data.image_store import ImageStore

    path = tmp_path / "images.npy"
    np.save(path, np.asarray(digits.images.array))
    mapped = dataclasses.replace(digits, images=ImageStore(np.load(path, mmap_mode="r")))
    assert losses(run(mapped, QUICK)) == losses(run(digits, QUICK))


@pytest.mark.parametrize("settings", [QUICK, EVERYTHING])
def test_monitored_images_are_evaluated_and_do_not_change_the_result(digits: Task, settings: TransferSettings) -> None:
    monitored_task = dataclasses.replace(digits, watched=digits.split.test)
    plain, monitored = run(digits, settings), run(monitored_task, settings)
    assert losses(plain) == losses(monitored)
    assert same(weights(plain), weights(monitored))
    assert all(result.watched_accuracy is None for result in plain.curve)
    kept = monitored.curve[-1]
    evaluation = evaluate_model(WorkerContext(monitored_task), monitored.model, digits.split.test)
    assert kept.watched_accuracy == pytest.approx(evaluation.accuracy, abs=1e-6)
    assert kept.watched_metrics == pytest.approx({**evaluation.metrics, "log_loss": evaluation.loss}, rel=1e-4)


def test_every_epoch_has_all_metrics_on_the_validation_images(digits: Task) -> None:
    tuned = run(digits, QUICK)
    assert all(result.metrics.keys() == set(OTHER_METRICS) for result in tuned.curve)
    assert all(0.0 <= (value or 0.0) <= 1.0 for result in tuned.curve for value in result.metrics.values())
    without = dataclasses.replace(digits, split=dataclasses.replace(digits.split, val=digits.split.val[:0]))
    assert all(result.metrics == {} for result in run(without, QUICK).curve)


class TestFrozenTop:
    def trained_units(self, task: Task, **changes: Any) -> list[int]:
        """Returns the units whose state, BatchNorm statistics included, differs after two epochs."""
        context = WorkerContext(task, device="cpu")
        settings = QUICK.replace(epochs=2, **changes)
        start = {
            name: tensor.clone() for name, tensor in context.prepare_model(repair(settings), 0)[0].state_dict().items()
        }
        after = weights(run(task, settings, context=context))
        changed = {name for name in start if not torch.equal(start[name], after[name])}
        assert any(name.startswith("head.") for name in changed)
        return sorted({int(name.split(".")[1]) for name in changed if name.startswith("units.")})

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_only_the_window_between_the_frozen_parts_trains(self, digits_batchnorm: Task, optimizer: str) -> None:
        settings = {
            "frozen_depth": 0.3,
            "frozen_top": 0.5,
            "sp_mix": 0.5,
            "decay_strength": 0.1,
            "optimizer": optimizer,
        }
        assert self.trained_units(digits_batchnorm, **settings) == [6, 7, 8]  # of 19 units, 6 and 10 are frozen

    def test_the_first_units_alone(self, digits_batchnorm: Task) -> None:
        assert self.trained_units(digits_batchnorm, frozen_top=0.9, stall=0.2, ema=0.5) == [0, 1]

    def test_re_initialised_units_always_train(self, digits: Task) -> None:
        assert self.trained_units(digits, frozen_top=0.67, transfer_depth=0.67) == [0, 2]

    def test_with_only_the_head_left_it_is_a_linear_probe_and_says_so(
        self, digits: Task, caplog: pytest.LogCaptureFixture
    ) -> None:
        tuned = run(digits, QUICK.replace(frozen_depth=0.5, frozen_top=0.5))
        assert losses(tuned) == losses(run(digits, QUICK.replace(frozen_depth=1.0)))
        assert "frozen_depth 0.5 and frozen_top 0.5 leave only the head to train" in caplog.text

    @pytest.mark.parametrize("linearized", [False, True])
    def test_features_of_the_frozen_units_at_the_input_are_cached(self, digits: Task, linearized: bool) -> None:
        settings = QUICK.replace(frozen_depth=0.34, frozen_top=0.34, linearized=linearized, augmentation="none")
        cached, direct = (
            run(digits, settings, context=WorkerContext(digits, device="cpu", cache_frozen_features=cache))
            for cache in (True, False)
        )
        assert [loss for loss, _, _ in losses(cached)] == pytest.approx(
            [loss for loss, _, _ in losses(direct)], rel=1e-4
        )


def test_balanced_classes_help_the_rare_class(digits: Task) -> None:
    """With one class in ten of its images, balanced weights raise its recall."""
    labels = np.asarray(digits.labels)
    rare = digits.split.train[labels[digits.split.train] == 0]
    train = np.setdiff1d(digits.split.train, rare[2:])
    task = dataclasses.replace(digits, split=dataclasses.replace(digits.split, train=train))
    shown = digits.split.val[labels[digits.split.val] == 0]

    def recall(class_weights: str) -> float:
        settings = QUICK.replace(class_weights=class_weights, epochs=8)
        context = WorkerContext(task, device="cpu")
        models = (run(task, settings, seed, context=context).model for seed in (0, 1))
        return sum(evaluate_model(context, model, shown).accuracy for model in models)

    assert recall("balanced") > recall("none")

"""FAST in `fine_tune`: stall, zero head and normalised features."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbt.errors import UsageError
from nbt.inference.model import load_model
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.evaluation import evaluate_model
from nbt.training.export.exported_model import load_module
from nbt.training.fine_tune import fine_tune
from nbt.training.results import TrialSpec
from nbt.training.run_trial import run_trial
from nbt.training.stage import StageContext
from nbt.training.worker.context import WorkerContext
from nbt.transfer.fast import FeatureNorm
from nbt.transfer.quadratic_penalty import QuadraticPenalty
from tests.training.export.test_exported_model import write_images
from tests.training.runs import losses, run, weights

QUICK = TransferSettings(epochs=4, head_lr=0.05, body_lr=0.05, batch_size=16, decay_strength=0.05, sp_mix=0.5)
FAST = QUICK.replace(head_scale=0.0, feature_norm="batch", stall=0.4, head_lr_multiplier=3.0)
ADAM = {"optimizer": "adamw", "head_lr": 0.01, "body_lr": 0.01}


def saved_after(task: Task, settings: TransferSettings, epochs: int, path: Path) -> dict[str, Any]:
    """Returns the checkpoint of a trial after a number of epochs."""
    trial = fine_tune(task, settings, checkpoint=path, checkpoint_seconds=0)
    for _ in range(epochs):
        next(trial)
    trial.close()
    state = torch.load(path, weights_only=True)
    assert isinstance(state, dict)
    return state


@pytest.mark.parametrize("changes", [{}, ADAM, {"ema": 0.9}, {"ema": 0.9, **ADAM}, {"mixup": 0.3}])
def test_a_stall_leaves_the_backbone_and_its_buffers_at_w0_bit_for_bit(
    digits_batchnorm: Task, changes: dict[str, Any]
) -> None:
    settings = FAST.replace(stall=1.0, epochs=2, **changes)
    after = weights(run(digits_batchnorm, settings))
    assert all(torch.equal(after[name], tensor) for name, tensor in digits_batchnorm.w0.items())
    assert after["head.weight"].abs().max() > 0
    trained = weights(run(digits_batchnorm, settings.replace(stall=0.1)))
    assert sum(torch.equal(trained[name], tensor) for name, tensor in digits_batchnorm.w0.items()) == 0


@pytest.mark.parametrize("changes", [{}, ADAM])
def test_the_optimiser_has_no_state_of_the_backbone_before_the_stall_ends(
    digits: Task, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = FAST.replace(stall=0.5, **changes)
    during = saved_after(digits, settings, 1, tmp_path / "one.pt")["optimizer"]
    after = saved_after(digits, settings, 3, tmp_path / "three.pt")["optimizer"]
    assert len(during["state"]) == 2, "weight and bias of the head"
    assert len(after["state"]) == sum(len(group["params"]) for group in after["param_groups"]) > 2


def test_a_stall_of_all_steps_is_a_linear_probe(digits_batchnorm: Task) -> None:
    settings = QUICK.replace(augmentation="none", sp_mix=0.0, epochs=2)
    stalled = run(digits_batchnorm, settings.replace(stall=1.0))
    probe = run(digits_batchnorm, settings.replace(frozen_depth=1.0))
    for stalled_epoch, probe_epoch in zip(losses(stalled), losses(probe), strict=True):
        assert stalled_epoch == pytest.approx(probe_epoch, rel=1e-3)


def test_a_stall_can_end_within_an_epoch(digits: Task) -> None:
    """Epochs have 6 steps: a stall of 5 steps leaves one step of the first epoch, a stall of 6 leaves none."""
    per_epoch = math.ceil(len(digits.split.train) / QUICK.batch_size)
    for steps, changes in ((per_epoch - 1, True), (per_epoch, False)):
        context = WorkerContext(digits)
        trial = fine_tune(digits, FAST.replace(stall=steps / (4 * per_epoch)), context=context)
        next(trial)
        changed = [n for n, t in context.model.unit_state_dict().items() if not torch.equal(t, digits.w0[n])]
        assert bool(changed) == changes, steps
        next(trial)
        assert not torch.equal(context.model.unit_state_dict()["units.0.0.weight"], digits.w0["units.0.0.weight"])


def test_the_multiplier_applies_to_the_head_lr_during_the_stall_only(digits: Task, tmp_path: Path) -> None:
    faster = run(digits, FAST.replace(stall=1.0, head_lr_multiplier=3.0))
    same = run(digits, FAST.replace(stall=1.0, head_lr_multiplier=1.0, head_lr=3 * FAST.head_lr))
    torch.testing.assert_close(weights(faster)["head.weight"], weights(same)["head.weight"], rtol=1e-4, atol=1e-5)
    plain = saved_after(digits, FAST.replace(head_lr_multiplier=1.0), 3, tmp_path / "1.pt")["optimizer"]
    multiplied = saved_after(digits, FAST, 3, tmp_path / "3.pt")["optimizer"]
    assert [g["lr"] for g in plain["param_groups"]] == [g["lr"] for g in multiplied["param_groups"]]


@pytest.mark.parametrize("killed_after", [1, 2, 3])
@pytest.mark.parametrize(
    "changes",
    [{}, {"feature_norm": "target", **ADAM}, {"ema": 0.9, "zap_period": 1, "zap_fraction": 0.5, "body_lr": 0.02}],
)
def test_a_trial_resumed_during_or_after_the_stall_equals_an_uninterrupted_one(
    digits_batchnorm: Task, tmp_path: Path, changes: dict[str, Any], killed_after: int
) -> None:
    """The stall of 0.4 ends within the second of four epochs."""
    settings = FAST.replace(**changes)
    path = tmp_path / "trial.pt"
    saved_after(digits_batchnorm, settings, killed_after, path)
    resumed = run(digits_batchnorm, settings, checkpoint=path)
    whole = run(digits_batchnorm, settings)
    assert losses(resumed) == losses(whole)
    resumed_weights, whole_weights = weights(resumed), weights(run(digits_batchnorm, settings))
    assert all(torch.equal(tensor, whole_weights[name]) for name, tensor in resumed_weights.items())


@pytest.mark.parametrize("norm", ["none", "batch", "target"])
def test_the_first_loss_of_a_zero_head_is_the_logarithm_of_the_number_of_classes(digits: Task, norm: str) -> None:
    settings = QUICK.replace(head_scale=0.0, feature_norm=norm, epochs=1, batch_size=1000)
    assert run(digits, settings).curve[0].train_loss == pytest.approx(math.log(5), rel=1e-6)
    assert run(digits, settings.replace(head_scale=1.0)).curve[0].train_loss != pytest.approx(math.log(5), rel=1e-3)


def test_a_zero_head_leaves_the_backbone_at_w0_in_the_first_step(digits: Task) -> None:
    settings = QUICK.replace(head_scale=0.0, epochs=1, batch_size=1000, decay_strength=0.0)
    after = weights(run(digits.train_on_all(), settings))
    assert all(torch.equal(after[name], tensor) for name, tensor in digits.w0.items())
    assert after["head.weight"].abs().max() > 0


@pytest.mark.parametrize("frozen", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cached", [True, False])
def test_target_statistics_are_those_of_the_training_images_at_w0(
    digits_batchnorm: Task, frozen: float, cached: bool
) -> None:
    task = digits_batchnorm
    context = WorkerContext(task, cache_frozen_features=cached)
    context.model.train()  # a stopped trial may leave the model in this mode
    settings = QUICK.replace(feature_norm="target", frozen_depth=frozen, epochs=2, head_lr=1e-3, body_lr=1e-3)
    norm = run(task, settings, context=context).model.feature_norm
    assert isinstance(norm, FeatureNorm)
    model, _ = WorkerContext(task).prepare_model(settings, 0)
    from nbt.training.recipe.augmentation import AugmentationPlan

    with torch.no_grad():
        features = model.eval().features(context.load_images(torch.from_numpy(task.split.train), AugmentationPlan()))
    assert int(norm.seen) == len(task.split.train)
    torch.testing.assert_close(norm.mean, features.mean(dim=0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(norm.var, features.var(dim=0, correction=0), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("norm", ["batch", "target"])
@pytest.mark.parametrize("frozen", [0.0, 1.0])
def test_evaluation_export_and_prediction_normalise_features(
    digits: Task, tmp_path: Path, norm: str, frozen: float
) -> None:
    context = WorkerContext(digits)
    settings = FAST.replace(feature_norm=norm, frozen_depth=frozen, epochs=6)
    spec = TrialSpec(key="trial", settings=settings, evaluate_test=True, export=tmp_path / "model")
    outcome = run_trial(spec, context, lambda _: None)
    assert outcome.error is None
    accuracy = evaluate_model(context, context.model, digits.split.val).accuracy
    assert accuracy == pytest.approx(outcome.curve[-1].val_accuracy)
    assert accuracy > 0.4, "five classes: chance is .2"
    model, card = load_module(tmp_path / "model")
    assert (card["format"], card["feature_norm"]) == (2, norm)
    assert isinstance(model.feature_norm, FeatureNorm)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in context.model.state_dict().items())
    index = digits.split.test[:40]
    predictions = load_model(tmp_path / "model").predict(write_images(digits, tmp_path, index))
    correct = predictions["label"] == np.array(digits.class_names)[digits.labels[index]]
    assert np.mean(correct) == pytest.approx(evaluate_model(context, context.model, digits.split.test[:40]).accuracy)


def test_a_context_resets_the_normalisation_of_the_previous_trial(digits: Task) -> None:
    context = WorkerContext(digits)
    run(digits, FAST, context=context)
    assert losses(run(digits, QUICK, context=context)) == losses(run(digits, QUICK))
    assert "feature_norm.mean" not in context.model.state_dict()


def test_parameters_require_gradients_again_after_a_trial_that_ended_in_its_stall(digits: Task) -> None:
    tuned = run(digits, FAST.replace(stall=1.0, frozen_depth=0.34, epochs=1))
    assert [any(p.requires_grad for p in unit.parameters()) for unit in tuned.model.units] == [False, True, True]


def test_batch_statistics_of_one_image_are_refused_before_training(digits: Task) -> None:
    n = len(digits.split.train)
    settings = QUICK.replace(feature_norm="batch", batch_size=2)
    odd = digits.split.train[: n - 1 + n % 2]
    import dataclasses

    task = dataclasses.replace(digits, split=dataclasses.replace(digits.split, train=odd))
    with pytest.raises(UsageError, match="give a batch of 1"):
        next(fine_tune(task, settings))


def test_nan_weights_with_target_statistics_give_a_diverged_trial(digits_batchnorm: Task) -> None:
    import dataclasses

    broken = {n: t * math.nan if n.endswith("0.weight") else t for n, t in digits_batchnorm.w0.items()}
    tuned = run(dataclasses.replace(digits_batchnorm, w0=broken), FAST.replace(feature_norm="target"))
    assert [epoch.diverged for epoch in tuned.curve] == [True]


@pytest.mark.parametrize("changes", [{}, ADAM])
def test_a_penalty_does_not_change_the_backbone_in_a_stall(digits: Task, changes: dict[str, Any]) -> None:
    settings = QUICK.replace(stall=1.0, epochs=1, **changes)
    model, _ = WorkerContext(digits).prepare_model(settings, 0)
    centre = {name: parameter.detach() - 1.0 for name, parameter in model.named_parameters()}
    after = weights(
        run(digits, settings, stage=StageContext(penalty=QuadraticPenalty([], centre, damping=1.0, scale=10.0)))
    )
    assert all(torch.equal(after[name], tensor) for name, tensor in digits.w0.items())
    plain = weights(run(digits, settings))
    assert not torch.equal(after["head.weight"], plain["head.weight"]), "the penalty changes the head"

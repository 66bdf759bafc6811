"""Linearised trials, and trials that are a stage of a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from nbt.errors import UsageError
from nbt.inference.model import load_model
from nbt.models.batch_norm import initial_statistics
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.evaluation import evaluate_model
from nbt.training.export.exported_model import export_model, load_module
from nbt.training.export.model_folder import read_card
from nbt.training.fine_tune import fine_tune
from nbt.training.stage import StageContext
from nbt.training.worker.context import WorkerContext
from nbt.transfer.linearize import FirstOrder
from tests.training.export.test_exported_model import write_images
from tests.training.runs import losses, run, weights

QUICK = TransferSettings(
    epochs=3, linearized=True, optimizer="adamw", head_lr=0.003, body_lr=0.003, batch_size=16, augmentation="none"
)


def start_of(task: Task, settings: TransferSettings, seed: int = 0) -> dict[str, torch.Tensor]:
    """Returns the initial state of a separate trial."""
    model, _ = WorkerContext(task).prepare_model(settings, seed)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class TestTrial:
    @pytest.mark.parametrize("scale", [0.0, 5.0])
    def test_learns(self, digits: Task, scale: float) -> None:
        tuned = run(digits, QUICK.replace(epochs=8, target_scale=scale))
        assert tuned.curve[-1].train_loss < 0.5 * tuned.curve[0].train_loss
        assert tuned.curve[-1].val_accuracy > 0.6

    def test_the_first_loss_is_that_of_the_network(self, digits: Task) -> None:
        """theta = theta0 in the first step, where the expansion equals the network."""
        settings = QUICK.replace(epochs=1, batch_size=1000)
        linear = run(digits, settings)
        ordinary = run(digits, settings.replace(linearized=False))
        assert linear.curve[0].train_loss == pytest.approx(ordinary.curve[0].train_loss, rel=1e-5)

    def test_the_model_is_the_expansion_around_the_start(self, digits: Task) -> None:
        start = start_of(digits, QUICK)
        tuned = run(digits, QUICK)
        assert isinstance(tuned.model, FirstOrder)
        for name, tensor in tuned.model.base.state_dict().items():
            torch.testing.assert_close(tensor, start[name], rtol=0, atol=0)

    def test_new_units_learn(self, digits_batchnorm: Task) -> None:
        """With the initial statistics, 0 and 1, no image would change the output of the new units."""
        tuned = run(digits_batchnorm, QUICK.replace(transfer_depth=0.5, epochs=6))
        assert tuned.curve[-1].train_loss < 0.5 * tuned.curve[0].train_loss

    def test_new_units_start_with_the_statistics_of_the_target(self, digits_batchnorm: Task) -> None:
        start = start_of(digits_batchnorm, QUICK.replace(transfer_depth=0.5, frozen_depth=0.25))
        initial = {name.split(".")[1] for name in initial_statistics(start)}
        assert initial == {str(unit) for unit in range(5)}, (
            "only the frozen units, whose features trials share, keep w0"
        )

    def test_batch_statistics_do_not_change(self, digits_batchnorm: Task) -> None:
        before = start_of(digits_batchnorm, QUICK)
        tuned = run(digits_batchnorm, QUICK)
        after = tuned.model.model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        parameters = {name for name, _ in tuned.model.model.named_parameters()}
        assert changed
        assert changed <= parameters

    def test_the_feature_cache_does_not_change_the_result(self, digits: Task) -> None:
        settings = QUICK.replace(frozen_depth=0.67)
        cached = run(digits, settings, context=WorkerContext(digits))
        plain = run(digits, settings, context=WorkerContext(digits, cache_frozen_features=False))
        for cached_epoch, plain_epoch in zip(losses(cached), losses(plain), strict=True):
            assert cached_epoch == pytest.approx(plain_epoch, rel=1e-4)

    def test_a_resumed_trial_equals_an_uninterrupted_one(self, digits: Task, tmp_path: Path) -> None:
        settings = QUICK.replace(ema=0.9, decay_strength=0.1, sp_mix=0.5)
        whole = run(digits, settings)
        expected, curve = weights(whole), losses(whole)
        file = tmp_path / "trial.pt"
        trial = fine_tune(digits, settings, checkpoint=file, checkpoint_seconds=0.0)
        next(trial), next(trial)
        trial.close()
        assert file.exists()
        resumed = run(digits, settings, checkpoint=file)
        assert losses(resumed) == curve
        for name, tensor in weights(resumed).items():
            assert torch.equal(tensor, expected[name]), name

    def test_a_zero_head_is_refused_before_training(self, digits: Task) -> None:
        with pytest.raises(UsageError, match="head_scale"):
            run(digits, QUICK.replace(head_scale=0.0))

    def test_target_statistics_of_the_features_are_part_of_the_expansion_point(self, digits: Task) -> None:
        tuned = run(digits, QUICK.replace(feature_norm="target"))
        assert int(tuned.model.base.feature_norm.seen) == len(digits.split.train)

    def test_an_exported_expansion_gives_the_same_predictions(self, digits: Task, tmp_path: Path) -> None:
        context = WorkerContext(digits)
        tuned = run(digits, QUICK, context=context)
        expected = evaluate_model(context, tuned.model, digits.split.test)
        folder = tmp_path / "model"
        export_model(tuned.model, digits, tuned.settings, folder)
        loaded, card = load_module(folder)
        assert card["linearized"] is True
        assert read_card(folder)["format"] == 3
        assert evaluate_model(context, loaded, digits.split.test).loss == pytest.approx(expected.loss)
        paths = write_images(digits, tmp_path, digits.split.test[:3])
        assert set(load_model(folder).predict(paths)["label"]) <= set(digits.class_names)


class CentrePenalty:
    """A quadratic penalty around the initial weights that records the names of its parameters."""

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.names: set[str] = set()

    def bind(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.centre = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def add_to_gradients(self) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.names.add(name)
                parameter.grad += self.strength * (parameter - self.centre[name])


class TestStageContext:
    ORDINARY = QUICK.replace(linearized=False)

    @pytest.mark.parametrize("linearized", [False, True])
    def test_the_default_context_is_a_separate_trial(self, digits: Task, linearized: bool) -> None:
        settings = QUICK.replace(linearized=linearized)
        assert losses(run(digits, settings, stage=StageContext())) == losses(run(digits, settings))

    def test_a_stage_continues_from_its_start(self, digits: Task) -> None:
        first = weights(run(digits, self.ORDINARY))
        second = run(digits, self.ORDINARY, stage=StageContext(start=first))
        assert second.curve[0].train_loss < run(digits, self.ORDINARY).curve[0].train_loss

    def test_the_expansion_point_does_not_depend_on_the_start(self, digits: Task) -> None:
        origin = start_of(digits, QUICK)
        first = run(digits, QUICK)
        reached = {name: tensor.clone() for name, tensor in first.model.model.state_dict().items()}
        loss = evaluate_model(context := WorkerContext(digits), first.model, digits.split.train).loss
        second = fine_tune(
            digits,
            QUICK.replace(head_lr=1e-9, body_lr=1e-9),
            context=context,
            stage=StageContext(start=reached, origin=origin),
        )
        assert next(second).train_loss == pytest.approx(loss, rel=1e-3)

    @pytest.mark.parametrize("linearized", [False, True])
    def test_outputs_that_take_no_part_do_not_train(self, digits: Task, linearized: bool) -> None:
        settings = QUICK.replace(linearized=linearized, decay_strength=0.0)
        outputs = torch.tensor([True, True, True, True, False])
        train = digits.split.train[digits.labels[digits.split.train] < 4]
        empty = digits.split.val[:0]
        task = dataclasses.replace(digits, split=dataclasses.replace(digits.split, train=train, val=empty))
        tuned = run(task, settings, stage=StageContext(outputs=outputs))
        model = tuned.model.model if linearized else tuned.model
        start = start_of(digits, settings)
        assert torch.equal(model.head.weight[4], start["head.weight"][4])
        assert not torch.equal(model.head.weight[0], start["head.weight"][0])

    def test_zaps_reset_the_rows_of_zap_classes_only(self, digits: Task) -> None:
        settings = TransferSettings(epochs=2, zap_period=1, head_lr=1e-9, body_lr=1e-9, decay_strength=0.0)
        start = start_of(digits, settings)["head.weight"]
        head = run(digits.train_on_all(), settings, stage=StageContext(zap_classes=(1, 3))).model.head.weight.detach()
        changed = (head - start).abs().amax(dim=1) > 1e-3
        assert changed.tolist() == [False, True, False, True, False]

    def test_a_penalty_acts_on_every_trained_weight(self, digits: Task) -> None:
        settings = TransferSettings(epochs=2, batch_size=16, momentum=0.0, decay_strength=0.0, frozen_depth=0.34)
        start = start_of(digits, settings)

        def distance(strength: float) -> float:
            penalty = CentrePenalty(strength)
            model = run(digits, settings, stage=StageContext(penalty=penalty)).model
            trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            assert penalty.names == trained
            assert trained < {name for name, _ in model.named_parameters()}
            return sum(float((model.state_dict()[name] - start[name]).square().sum()) for name in trained)

        assert distance(50.0) < 0.2 * distance(0.0)

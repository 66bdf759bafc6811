"""Starting weights of trials: injection, Kaiming initialisation and pretraining schemes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nbt.errors import UsageError
from nbt.models.backbone_spec import parse_backbone
from nbt.models.teacher import Teacher
from nbt.models.weights import load_pretrained_weights
from nbt.settings import TransferSettings, repair
from nbt.task.task import Task
from nbt.training.fine_tune import fine_tune
from nbt.training.worker.context import WorkerContext
from nbt.training.worker.starting_weights import draw_kaiming_state, has_nbt_source

INJECT = TransferSettings(init="inject", teacher="wide", epochs=1)


@pytest.fixture(scope="module")
def task_with_teacher(digits_batchnorm: Task) -> Task:
    """A task with a teacher of another width, all of whose weights are 0.5."""
    spec = parse_backbone("mobilenet_v2(width_mult=0.15)")
    w0 = {name: torch.full_like(t, 0.5) for name, t in load_pretrained_weights(spec, "none", image_size=32).w0.items()}
    return dataclasses.replace(digits_batchnorm, teachers=(Teacher("wide", spec, w0),))


def weights(context: WorkerContext, settings: TransferSettings, seed: int = 0) -> dict[str, torch.Tensor]:
    model, _ = context.prepare_model(repair(settings), seed)
    return {name: tensor.clone() for name, tensor in model.unit_state_dict().items()}


class TestInjection:
    def test_a_trial_starts_from_the_teacher_and_the_next_one_from_the_weights_of_the_task(
        self, task_with_teacher: Task
    ) -> None:
        context = WorkerContext(task_with_teacher, device="cpu")
        injected, pretrained = weights(context, INJECT), weights(context, TransferSettings())
        assert (injected["units.0.0.weight"] == 0.5).float().mean() > 0.5
        assert all(torch.equal(pretrained[name], tensor) for name, tensor in task_with_teacher.w0.items())

    def test_statistics_are_those_of_the_target(self, task_with_teacher: Task) -> None:
        injected = weights(WorkerContext(task_with_teacher, device="cpu"), INJECT)
        means = torch.cat([tensor for name, tensor in injected.items() if name.endswith("running_mean")])
        assert torch.isfinite(means).all()
        assert (means != 0).float().mean() > 0.5, "new layers have 0"
        again = weights(WorkerContext(task_with_teacher, device="cpu"), INJECT)
        assert all(torch.equal(injected[name], again[name]) for name in injected)

    def test_l2sp_is_relative_to_the_injected_weights(self, task_with_teacher: Task) -> None:
        context = WorkerContext(task_with_teacher, device="cpu")
        weights(context, INJECT)
        assert (context.w0["units.0.0.weight"] == 0.5).float().mean() > 0.5

    def test_starting_weights_depend_on_the_blend(self, task_with_teacher: Task) -> None:
        context = WorkerContext(task_with_teacher, device="cpu")
        crop, resized = (weights(context, INJECT.replace(blend=blend)) for blend in (1.0, 0.0))
        assert any(not torch.equal(crop[name], resized[name]) for name in crop)

    def test_frozen_features_of_two_sources_are_cached_separately(self, task_with_teacher: Task) -> None:
        frozen = TransferSettings(frozen_depth=1.0, augmentation="none", epochs=1, head_lr=0.1)
        context = WorkerContext(task_with_teacher, device="cpu")

        def losses(settings: TransferSettings, context: WorkerContext) -> list[float]:
            return [epoch.train_loss for epoch in fine_tune(task_with_teacher, settings, context=context)]

        pretrained = losses(frozen, context)
        injected = losses(frozen.replace(init="inject", teacher="wide"), context)
        assert injected != pretrained
        assert injected == losses(
            frozen.replace(init="inject", teacher="wide"), WorkerContext(task_with_teacher, device="cpu")
        )
        assert pretrained == losses(frozen, context)

    def test_a_missing_teacher_is_an_error_before_training(self, digits_batchnorm: Task) -> None:
        with pytest.raises(UsageError, match="needs a teacher"):
            next(fine_tune(digits_batchnorm, TransferSettings(init="inject", epochs=1)))
        with pytest.raises(UsageError, match="no_such_net"):
            next(fine_tune(digits_batchnorm, TransferSettings(init="inject", teacher="no_such_net", epochs=1)))


class TestKaiming:
    def test_filters_have_the_kaiming_deviation_and_biases_are_zero(self) -> None:
        state = draw_kaiming_state(parse_backbone("conv3(width=64)"), 28, seed=3)
        filters = [tensor for name, tensor in state.items() if tensor.ndim == 4]
        for weight in filters:
            fan_in = weight[0].numel()
            assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        again, other = (draw_kaiming_state(parse_backbone("conv3(width=64)"), 28, seed=seed) for seed in (3, 4))
        assert all(torch.equal(state[name], again[name]) for name in state)
        assert any(not torch.equal(state[name], other[name]) for name in state)

    def test_a_trial_starts_from_kaiming_weights(self, digits: Task) -> None:
        context = WorkerContext(digits, device="cpu")
        drawn, pretrained = weights(context, TransferSettings(init="kaiming")), weights(context, TransferSettings())
        fresh = weights(context, TransferSettings(transfer_depth=0.0))
        name = next(name for name, tensor in drawn.items() if tensor.ndim == 4)
        assert not torch.equal(drawn[name], pretrained[name]) and not torch.equal(drawn[name], fresh[name])


class TestPretrainingScheme:
    def test_weights_that_nbt_does_not_train_accept_no_scheme(self, digits: Task) -> None:
        assert not has_nbt_source(digits)
        with pytest.raises(UsageError, match=r"nbt pretrain"):
            next(fine_tune(digits, TransferSettings(pretrain_scheme="asb", epochs=1)))

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
def taught(digits_batchnorm: Task) -> Task:
    """A task with a teacher of another width, whose weights are all .5."""
    spec = parse_backbone("mobilenet_v2(width_mult=0.15)")
    w0 = {name: torch.full_like(t, 0.5) for name, t in load_pretrained_weights(spec, "none", image_size=32).w0.items()}
    return dataclasses.replace(digits_batchnorm, teacher=Teacher("wide", spec, w0))


def weights(context: WorkerContext, settings: TransferSettings, seed: int = 0) -> dict[str, torch.Tensor]:
    model, _ = context.prepare_model(repair(settings), seed)
    return {name: tensor.clone() for name, tensor in model.unit_state_dict().items()}


class TestInjection:
    def test_a_trial_starts_from_the_teacher_and_the_next_from_its_own_weights(self, taught: Task) -> None:
        context = WorkerContext(taught, device="cpu")
        injected, own = weights(context, INJECT), weights(context, TransferSettings())
        assert (injected["units.0.0.weight"] == 0.5).float().mean() > 0.5
        assert all(torch.equal(own[name], tensor) for name, tensor in taught.w0.items())

    def test_statistics_are_those_of_the_target(self, taught: Task) -> None:
        found = weights(WorkerContext(taught, device="cpu"), INJECT)
        means = torch.cat([tensor for name, tensor in found.items() if name.endswith("running_mean")])
        assert torch.isfinite(means).all()
        assert (means != 0).float().mean() > 0.5, "fresh layers have 0"
        again = weights(WorkerContext(taught, device="cpu"), INJECT)
        assert all(torch.equal(found[name], again[name]) for name in found)

    def test_the_pull_is_towards_what_was_injected(self, taught: Task) -> None:
        context = WorkerContext(taught, device="cpu")
        weights(context, INJECT)
        assert (context.w0["units.0.0.weight"] == 0.5).float().mean() > 0.5

    def test_a_blend_is_a_source_of_its_own(self, taught: Task) -> None:
        context = WorkerContext(taught, device="cpu")
        crop, resized = (weights(context, INJECT.replace(blend=blend)) for blend in (1.0, 0.0))
        assert any(not torch.equal(crop[name], resized[name]) for name in crop)

    def test_frozen_features_of_two_sources_are_kept_apart(self, taught: Task) -> None:
        frozen = TransferSettings(frozen_depth=1.0, augmentation="none", epochs=1, head_lr=0.1)
        context = WorkerContext(taught, device="cpu")

        def losses(settings: TransferSettings, tools: WorkerContext) -> list[float]:
            return [epoch.train_loss for epoch in fine_tune(taught, settings, context=tools)]

        pretrained = losses(frozen, context)
        injected = losses(frozen.replace(init="inject", teacher="wide"), context)
        assert injected != pretrained
        assert injected == losses(frozen.replace(init="inject", teacher="wide"), WorkerContext(taught, device="cpu"))
        assert pretrained == losses(frozen, context)

    def test_without_a_teacher_there_is_an_error_before_any_training(self, digits_batchnorm: Task) -> None:
        with pytest.raises(UsageError, match="needs a teacher"):
            next(fine_tune(digits_batchnorm, TransferSettings(init="inject", epochs=1)))
        with pytest.raises(UsageError, match="no_such_net"):
            next(fine_tune(digits_batchnorm, TransferSettings(init="inject", teacher="no_such_net", epochs=1)))


class TestKaiming:
    def test_filters_have_its_deviation_and_biases_are_zero(self) -> None:
        state = draw_kaiming_state(parse_backbone("conv3(width=64)"), 28, seed=3)
        filters = [tensor for name, tensor in state.items() if tensor.ndim == 4]
        for one in filters:
            fan_in = one[0].numel()
            assert one.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        again, other = (draw_kaiming_state(parse_backbone("conv3(width=64)"), 28, seed=seed) for seed in (3, 4))
        assert all(torch.equal(state[name], again[name]) for name in state)
        assert any(not torch.equal(state[name], other[name]) for name in state)

    def test_a_trial_starts_from_it(self, digits: Task) -> None:
        context = WorkerContext(digits, device="cpu")
        drawn, own = weights(context, TransferSettings(init="kaiming")), weights(context, TransferSettings())
        fresh = weights(context, TransferSettings(transfer_depth=0.0))
        name = next(name for name, tensor in drawn.items() if tensor.ndim == 4)
        assert not torch.equal(drawn[name], own[name]) and not torch.equal(drawn[name], fresh[name])


class TestRetraining:
    def test_other_weights_cannot_be_trained_otherwise(self, digits: Task) -> None:
        assert not has_nbt_source(digits)
        with pytest.raises(UsageError, match=r"nbt pretrain"):
            next(fine_tune(digits, TransferSettings(pretrain_scheme="asb", epochs=1)))

"""`fine_tune` on plain vision transformers: rates, L2-SP, depth, window and feature cache, as on other backbones."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.worker.context import WorkerContext
from nbt.transfer.layer_lr import parameter_groups
from tests.training.runs import losses, run, weights

QUICK = TransferSettings(epochs=2, head_lr=0.05, body_lr=0.02, batch_size=16, augmentation="none")
BACKBONES = [
    "timm:test_vit(depth=3)",
    "timm:beit_base_patch16_224(depth=3, embed_dim=32, num_heads=2)",
    "timm:eva02_tiny_patch14_224(depth=3, embed_dim=32, num_heads=2, patch_size=16)",
    "timm:vit_base_patch16_siglip_224(depth=3, embed_dim=32, num_heads=2)",
]


@pytest.fixture(scope="module", params=BACKBONES, ids=lambda text: text.partition("(")[0])
def task(request: pytest.FixtureRequest) -> Task:
    """60 labelled digits of 32 px, which are four patches, and a small transformer with random w0."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm, which is an extra")
    return load_task("digits", backbone=request.param, weights="none", shots=12, image_size=32)


def test_the_feature_cache_does_not_change_the_result(task: Task) -> None:
    settings = QUICK.replace(frozen_depth=0.5, mixup=0.3)
    cached, direct = (
        weights(run(task, settings, context=WorkerContext(task, device="cpu", cache_frozen_features=cache)))
        for cache in (True, False)
    )
    for name, tensor in cached.items():
        torch.testing.assert_close(tensor, direct[name], atol=1e-4, rtol=1e-4, msg=name)


def test_depth_and_window_choose_the_units_that_change(task: Task) -> None:
    """Of five units, or six with attention pooling, the first is frozen, and the last is new."""
    context = WorkerContext(task, device="cpu")
    settings = QUICK.replace(transfer_depth=0.8, frozen_depth=0.2, frozen_top=0.4)
    start, _ = context.prepare_model(settings, 0)
    n_units = start.n_units
    new = {
        int(name.split(".")[1])
        for name, tensor in start.unit_state_dict().items()
        if not torch.equal(tensor, task.w0[name])
    }
    after = weights(run(task, settings, context=context))
    changed = {int(name.split(".")[1]) for name, tensor in task.w0.items() if not torch.equal(after[name], tensor)}
    assert new <= {n_units - 1}
    assert {1, 2} <= changed <= {1, 2, n_units - 1}


def test_l2sp_keeps_tokens_and_positions_close_to_the_pretrained_ones(task: Task) -> None:
    settings = QUICK.replace(sp_mix=1.0, decay_strength=15.0, momentum=0.0)
    anchored, free = (weights(run(task, settings.replace(decay_strength=strength))) for strength in (15.0, 0.0))
    distances = [
        sum(float((state[name] - tensor).square().sum()) for name, tensor in task.w0.items() if tensor.ndim > 1)
        for state in (anchored, free)
    ]
    assert distances[0] < 0.1 * distances[1]


def test_rates_follow_the_units(task: Task) -> None:
    model = task.build_model(device=torch.device("cpu"))
    groups = parameter_groups(model.units, model.head, QUICK.replace(layer_lr_shape=(-2.0, -1.0, 0.0)))
    rates = {id(parameter): group.lr for group in groups for parameter in group.parameters}
    by_unit = [{rates[id(parameter)] for parameter in unit.parameters()} for unit in model.units]
    assert [len(unit) for unit in by_unit] == [1] * model.n_units
    assert [unit.pop() for unit in by_unit] == pytest.approx(
        [0.02 * 10 ** (-2 + 2 * index / (model.n_units - 1)) for index in range(model.n_units)]
    )


def test_the_transformer_of_torchvision_trains_with_its_frozen_units_cached() -> None:
    task = load_task("digits", backbone="vit_b_32(image_size=32)", weights="none", shots=4)
    settings = QUICK.replace(epochs=1, frozen_depth=0.9)
    cached, direct = (
        losses(run(task, settings, context=WorkerContext(task, device="cpu", cache_frozen_features=cache)))
        for cache in (True, False)
    )
    assert cached[0] == pytest.approx(direct[0], rel=1e-4)

"""`fine_tune` on plain vision transformers: rates, L2-SP, depth, window and feature cache, as on other backbones."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torchvision.models import VisionTransformer

from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.worker.context import WorkerContext
from nbt.transfer.layer_lr import parameter_groups
from tests.training.runs import run, weights

QUICK = TransferSettings(epochs=2, head_lr=0.05, body_lr=0.02, batch_size=16, augmentation="none")
BACKBONES = [
    "vit_b_16(image_size=32, attention_dropout=0.0)",
    "timm:test_vit(depth=3)",
    "timm:beit_base_patch16_224(depth=3, embed_dim=32, num_heads=2)",
    "timm:eva02_tiny_patch14_224(depth=3, embed_dim=32, num_heads=2, patch_size=16)",
    "timm:vit_base_patch16_siglip_224(depth=3, embed_dim=32, num_heads=2)",
]


@pytest.fixture(scope="module", params=BACKBONES, ids=lambda text: text.partition("(")[0])
def task(request: pytest.FixtureRequest) -> Iterator[Task]:
    """60 labelled digits of 32 px, which are four patches, and a small transformer with random w0."""
    if request.param.startswith("timm:"):
        pytest.importorskip("timm", reason="needs timm, which is an extra")
    with pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)  # the weights must not depend on the tests before
        # torchvision's builders have no arguments for small models.
        small = VisionTransformer(32, 16, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64)
        patch.setattr("torchvision.models.get_model", lambda *_, **__: copy.deepcopy(small))
        yield load_task("digits", backbone=request.param, weights="none", shots=12, image_size=32)


def test_the_feature_cache_does_not_change_the_result(task: Task) -> None:
    settings = QUICK.replace(frozen_depth=0.5, mixup=0.3)
    cached, direct = (
        weights(run(task, settings, context=WorkerContext(task, device="cpu", cache_frozen_features=cache)))
        for cache in (True, False)
    )
    for name, tensor in cached.items():
        torch.testing.assert_close(tensor, direct[name], atol=1e-4, rtol=1e-4, msg=name)


def test_depth_and_window_choose_the_units_that_change(task: Task) -> None:
    """Of five units, or six with attention pooling, the first is frozen, and the last is new; the one before is not."""
    context = WorkerContext(task, device="cpu")
    settings = QUICK.replace(transfer_depth=0.8, frozen_depth=0.2, frozen_top=0.4)
    start, _ = context.prepare_model(settings, 0)
    after = weights(run(task, settings, context=context))
    changed = {int(name.split(".")[1]) for name, tensor in task.w0.items() if not torch.equal(after[name], tensor)}
    assert changed == {*range(1, start.n_units - 2), start.n_units - 1}


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

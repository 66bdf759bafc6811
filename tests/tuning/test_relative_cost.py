"""The measured costs are CPU seconds of training processes, per epoch and relative to the default recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from nbt.models.backbone import UnitWork
from nbt.settings import TransferSettings, repair
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.relative_cost import (
    CostModel,
    cost_model,
    forward_work,
    relative_cost,
    study_cost_model,
    unit_shares,
)
from nbt.tuning.storage.candidates import CandidateConfig
from tests.tuning.fakes import DATASET, config, open_fake_study

MOBILENET = "mobilenet_v2(width_mult=0.35)"
IMAGES = {"train_images": 300, "validation_images": 100}
# Four units, of which the first takes half of a forward pass; one validation image per three training images.
MODEL = CostModel(units=(0.5, 0.3, 0.2, 0.0), validation=1 / 3)


def settings(**values: Any) -> TransferSettings:
    return repair(TransferSettings(**{"epochs": 12, **values}))


def test_the_default_recipe_is_the_unit() -> None:
    assert MODEL.epoch(default_recipe(12)) == pytest.approx(1.0)
    assert MODEL.training(default_recipe(12)) == pytest.approx(12.0)
    assert MODEL.training(default_recipe(12), epochs=5) == pytest.approx(5.0)
    assert MODEL.training(default_recipe(12), epochs=0) == 0.0


def test_frozen_units_run_once_per_view_without_gradients() -> None:
    """Half of the work is frozen: four views of the training images and one of the others; no backward pass."""
    step, head = 3.0 + 1 / 3, 0.015
    features = 0.9 * 0.5 * (4 + 1 / 3)
    expected = (12 * (0.5 * step + head * step) + features) / (step * (1 + head))
    assert MODEL.training(settings(frozen_depth=0.25)) == pytest.approx(expected)
    assert MODEL.training(settings(frozen_depth=0.25, augmentation="none")) < expected
    assert MODEL.training(settings(frozen_depth=0.25, views=8)) > expected


def test_stopped_trials_pay_the_features_first() -> None:
    probe = settings(frozen_depth=1.0)
    assert MODEL.training(probe, epochs=4) > 4 * MODEL.epoch(probe)
    later = MODEL.training(probe, epochs=12) - MODEL.training(probe, epochs=4)
    assert later == pytest.approx(8 * 0.015 / 1.015)


def test_a_last_training_has_more_images_and_no_validation() -> None:
    assert MODEL.retraining == pytest.approx(3 * (4 / 3) / (3 + 1 / 3))


@pytest.mark.parametrize(
    ("backbone", "size", "values", "measured"),
    [
        # studies/recorded/informed, medians of the later epochs, mobilenet_v2(width_mult=0.35) at 64 px
        (MOBILENET, 64, {"frozen_depth": 0.2, "views": 1}, 0.56),
        (MOBILENET, 64, {"batch_size": 16}, 1.2),
        (MOBILENET, 64, {"linearized": True}, 2.3),
        (MOBILENET, 64, {"optimizer": "adamw", "ema": 0.995}, 1.02),
        (MOBILENET, 64, {"mixup": 0.25}, 1.04),
        (MOBILENET, 64, {"stall": 0.1}, 0.94),
        # conv3 on digits: means of eight epochs
        ("conv3", 28, {"frozen_depth": 0.33, "epochs": 8}, 0.45),
        ("conv3", 28, {"linearized": True}, 2.7),
        ("conv3", 28, {"batch_size": 8}, 1.5),
        ("conv3", 28, {"augmentation": "rand"}, 1.15),
    ],
)
def test_measured_costs(backbone: str, size: int, values: dict[str, Any], measured: float) -> None:
    model = CostModel.of(backbone, size, IMAGES)
    assert abs(math.log(model.epoch(settings(**values)) / measured)) < math.log(1.25)


def test_the_model_of_a_study(tmp_path: Path) -> None:
    with open_fake_study(tmp_path) as store:
        model = cost_model(store.record())
    assert model.validation == DATASET["validation_images"] / DATASET["train_images"]
    assert len(model.units) == 3
    assert model.units[0] > model.units[1] > model.units[2], "the maps of conv3 become smaller"


def test_a_backbone_that_is_not_known_has_equal_units() -> None:
    equal = CostModel(units=(0.1,) * 10, validation=1 / 3)
    assert relative_cost(settings(frozen_depth=0.5)) == equal.epoch(settings(frozen_depth=0.5))
    assert relative_cost(settings(frozen_depth=0.5)) < relative_cost(settings(frozen_depth=0.3)) < 1.0


def test_numbers_of_images_that_old_studies_lack() -> None:
    assert CostModel.of("conv3", 28, {}).validation == pytest.approx(1 / 3)
    assert CostModel.of("conv3", 28, {"train_images": 100, "validation_images": 0}).validation == 0.0


def test_shares_weigh_products_and_elements() -> None:
    assert unit_shares([UnitWork(20.0, 10.0), UnitWork(20.0, 35.0)]) == pytest.approx((0.25, 0.75))


def test_another_backbone_costs_its_work(tmp_path: Path) -> None:
    facts = {"train_images": 300, "validation_images": 100}
    names = ("conv3(width=8)", "conv3(width=32)")
    candidates = tuple(
        CandidateConfig(name=name, backbone=name, weights="none", weights_hash=name, image_size=28) for name in names
    )
    model = study_cost_model(config(backbone=names[0], image_size=28, candidates=candidates), facts)
    default = default_recipe(12)
    assert model.epoch(default) == pytest.approx(1.0)
    other = forward_work(names[1], 28) / forward_work(names[0], 28)
    assert other > 3
    assert model.epoch(default.replace(backbone=names[1])) == pytest.approx(other)
    probe = repair(default.replace(frozen_depth=1.0))
    assert model.epoch(probe.replace(backbone=names[1])) < 0.5 * other
    assert relative_cost(probe.replace(backbone=names[1])) == relative_cost(probe)

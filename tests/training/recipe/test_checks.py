"""Numbers of steps, and recipes that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbt.errors import UsageError
from nbt.models.backbone_spec import parse_backbone
from nbt.settings import TransferSettings, repair
from nbt.training.recipe.checks import check_recipe, check_starting_weights, count_batches, stall_steps

TEN = TransferSettings(epochs=10, batch_size=16)


@pytest.mark.parametrize(("n", "size", "batches"), [(1, 16, 1), (16, 16, 1), (17, 16, 2), (160, 16, 10), (0, 16, 1)])
def test_batches_per_epoch(n: int, size: int, batches: int) -> None:
    assert count_batches(n, size) == batches


@pytest.mark.parametrize(("share", "steps"), [(0.0, 0), (0.001, 1), (0.1, 10), (0.104, 10), (1.0, 100)])
def test_a_stall_is_a_share_of_all_steps_and_at_least_one(share: float, steps: int) -> None:
    assert stall_steps(TEN.replace(stall=share), 10) == steps


@pytest.mark.parametrize("period", [10, 11, 500])
def test_a_zap_period_that_is_too_long_is_refused_unless_repaired(period: int) -> None:
    settings = TEN.replace(zap_period=period)
    with pytest.raises(UsageError, match=f"zap_period: {period} is never reached in 10 epochs"):
        check_recipe(settings, 160)
    check_recipe(repair(settings), 160)


@pytest.mark.parametrize("period", [0, 1, 9])
def test_valid_zap_periods_are_accepted(period: int) -> None:
    check_recipe(TEN.replace(zap_period=period), 160)
    check_recipe(TEN.replace(zap_period=0, epochs=1), 160)


@pytest.mark.parametrize(("n", "size", "valid"), [(1, 16, False), (3, 2, False), (4, 2, True), (17, 16, True)])
def test_batch_statistics_need_two_images_in_the_smallest_batch(n: int, size: int, valid: bool) -> None:
    """17 images with a batch size of 16 give batches of 9 and 8."""
    settings = TEN.replace(feature_norm="batch", batch_size=size)
    check_recipe(settings.replace(feature_norm="target"), n)
    if valid:
        check_recipe(settings, n)
    else:
        with pytest.raises(UsageError, match="give a batch of 1"):
            check_recipe(settings, n)


INJECT = TransferSettings(init="inject")
NBT_SOURCE = (parse_backbone("conv3"), "digits", "default")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (INJECT, "init: inject needs a teacher"),
        (INJECT.replace(teacher="mobilnet_v2"), "did you mean"),
        (INJECT.replace(teacher="conv3=nowhere.pth"), r"no file nowhere\.pth"),
    ],
)
def test_an_injection_needs_an_existing_teacher(settings: TransferSettings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_starting_weights(settings, *NBT_SOURCE)
    check_starting_weights(settings.replace(transfer_depth=0.0), *NBT_SOURCE)


def test_an_existing_or_loaded_teacher_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_starting_weights(INJECT.replace(teacher="conv4"), *NBT_SOURCE)
    check_starting_weights(INJECT.replace(teacher="conv4"), *NBT_SOURCE, teachers=["conv4"])
    check_starting_weights(INJECT.replace(teacher="conv3=t.pth"), *NBT_SOURCE, teachers=[f"conv3={tmp_path / 't.pth'}"])
    (tmp_path / "t.pth").touch()
    check_starting_weights(INJECT.replace(teacher="conv3=t.pth"), *NBT_SOURCE)


@pytest.mark.parametrize("changes", [{"pretrain_zap_period": 2}, {"pretrain_scheme": "asb"}])
def test_only_sources_that_nbt_trains_accept_pretraining_settings(changes: dict[str, object]) -> None:
    settings = TransferSettings().replace(**changes)
    check_starting_weights(settings, *NBT_SOURCE)
    spec = parse_backbone("conv3")
    for foreign in (
        (spec, "digits", "none"),
        (spec, "/my/digits", "default"),
        (parse_backbone("resnet18"), *NBT_SOURCE[1:]),
    ):
        with pytest.raises(UsageError, match="are not trained by nbt"):
            check_starting_weights(settings, *foreign)
        check_starting_weights(TransferSettings(), *foreign)


@pytest.mark.parametrize("name", ["conv4", "conv4, weights.pth", "conv4, weights.pth, 28 px"])
def test_settings_of_another_backbone_are_refused(name: str) -> None:
    settings = TransferSettings(backbone=name)
    check_starting_weights(settings, parse_backbone("conv4"), "photos", "none")
    with pytest.raises(UsageError, match=f"were found for {name}, but the task has conv3"):
        check_starting_weights(settings, parse_backbone("conv3"), "photos", "none")

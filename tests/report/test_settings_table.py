import dataclasses

from nbt.report.settings_table import (
    flat_settings,
    recipe_summary,
    setting_descriptions,
    stored_flat_settings,
    study_recipe_summary,
)
from nbt.settings import SETTINGS, TransferSettings
from tests.sample_study import BEST, DEFAULT, sample_study, sampled


def test_every_setting_occurs_once_as_plain_value() -> None:
    flat = flat_settings(BEST)
    assert (flat["layer_lr_shape_input"], flat["layer_lr_shape_middle"], flat["layer_lr_shape_top"]) == (
        -1.2,
        -0.4,
        0.0,
    )
    assert len(flat) == len(SETTINGS) + 2 - 1, "three knots, and no backbone of a single one"
    assert flat_settings(BEST.replace(backbone="vgg11")) == {**flat, "backbone": "vgg11"}
    assert {type(value) for value in flat.values()} <= {bool, int, float, str}


def test_setting_names_are_the_same_for_all_settings() -> None:
    assert {tuple(flat_settings(sampled(i))) for i in range(10)} == {tuple(flat_settings(DEFAULT))}


def test_every_setting_has_a_description() -> None:
    assert set(setting_descriptions()) == set(flat_settings(DEFAULT.replace(backbone="vgg11")))


def test_recipe_summary_shows_main_settings() -> None:
    assert recipe_summary(DEFAULT) == "depth 1.00 frozen 0.00 lr 0.01"
    assert recipe_summary(BEST) == "depth 0.80 frozen 0.35 lr 0.013 sp 0.60"
    probe = TransferSettings(frozen_depth=1.0, head_lr=0.3, optimizer="adamw", mixup=0.2)
    assert recipe_summary(probe) == "depth 1.00 frozen 1.00 head lr 0.3 adamw mixup 0.2"


def test_recipe_summary_names_active_techniques() -> None:
    fast = TransferSettings(head_scale=0.0, feature_norm="batch", stall=0.1, zap_period=3)
    assert recipe_summary(fast) == "depth 1.00 frozen 0.00 lr 0.01 zap 3 head 0 norm batch stall 0.10"
    injected = TransferSettings(init="inject", pretrain_scheme="asb", pretrain_zap_period=1)
    assert recipe_summary(injected) == "depth 1.00 frozen 0.00 lr 0.01 inject source asb source zap 1"
    linear = TransferSettings(method="dlcft", linearized=True, target_scale=5.0)
    assert recipe_summary(linear) == "depth 1.00 frozen 0.00 lr 0.01 dlcft linearized squared error 5"


def test_the_teacher_is_named_if_a_study_has_several() -> None:
    injected = TransferSettings(init="inject", teacher="vgg11=/w/a.pth", pretrain_scheme="asb")
    several = sample_study().config
    several = dataclasses.replace(several, teacher='["resnet18", "vgg11=/w/a.pth"]')
    assert study_recipe_summary(several, injected) == "depth 1.00 frozen 0.00 lr 0.01 inject vgg11 source asb"
    assert study_recipe_summary(several, DEFAULT) == recipe_summary(DEFAULT)
    one = dataclasses.replace(several, teacher="vgg11=/w/a.pth")
    assert study_recipe_summary(one, injected) == recipe_summary(injected)


def test_new_settings_are_stored_only_where_they_are_used() -> None:
    assert stored_flat_settings(DEFAULT) == {
        name: value
        for name, value in flat_settings(DEFAULT).items()
        if name not in SETTINGS or not SETTINGS[name].since
    }
    assert stored_flat_settings(DEFAULT.replace(frozen_top=0.5))["frozen_top"] == 0.5

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.settings import AUGMENTATIONS, OPTIMIZERS, SETTINGS, SourceSettings, StreamSettings, TransferSettings, repair

share = st.floats(0, 1)
rate = st.floats(1e-8, 10)
recipes = st.builds(
    TransferSettings,
    transfer_depth=share,
    frozen_depth=share,
    head_lr=rate,
    body_lr=rate,
    layer_lr_shape=st.tuples(*[st.floats(-6, 6)] * 3),
    decay_strength=st.floats(0, 10),
    sp_mix=share,
    sp_depth=share,
    optimizer=st.sampled_from(OPTIMIZERS),
    momentum=st.floats(0, 0.99),
    batch_size=st.integers(1, 4096),
    label_smoothing=st.floats(0, 0.9),
    augmentation=st.sampled_from(AUGMENTATIONS),
    mixup=st.floats(0, 2),
    ema=st.floats(0, 0.999),
    warmup=share,
    views=st.integers(1, 64),
    epochs=st.integers(1, 500),
)


@given(recipes)
def test_yaml_and_dictionary_round_trip(settings: TransferSettings) -> None:
    assert TransferSettings.from_yaml(settings.to_yaml()) == settings
    assert TransferSettings.from_dict(settings.to_dict()) == settings


@given(recipes)
def test_repair_gives_valid_depths_and_is_idempotent(settings: TransferSettings) -> None:
    repaired = repair(settings)
    assert repaired.frozen_depth <= repaired.transfer_depth
    assert repair(repaired) == repaired
    assert repaired.transfer_depth == settings.transfer_depth
    if settings.frozen_depth <= settings.transfer_depth:
        assert repaired.frozen_depth == settings.frozen_depth


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({"zap_period": 12}, {"zap_period": 0}),
        ({"zap_period": 11, "zap_fraction": 0.5}, {}),
        ({"zap_fraction": 0.5, "zap_scale": "as_released"}, {"zap_fraction": 1.0, "zap_scale": "per_row"}),
        ({"zap_until": 0.5, "zap_warmup": 0.5}, {"zap_until": 1.0, "zap_warmup": 0.0}),
        ({"zap_period": 6, "zap_until": 0.5, "zap_warmup": 0.5}, {}),
        ({"zap_period": 7, "zap_until": 0.5}, {"zap_period": 0, "zap_until": 1.0}),
        ({"frozen_top": 0.5}, {}),
        ({"frozen_top": 0.5, "frozen_depth": 0.3, "sp_mix": 0.5, "sp_depth": 0.4}, {}),
        ({"frozen_top": 0.5, "frozen_depth": 0.5}, {"frozen_top": 0.0, "frozen_depth": 1.0}),
        ({"frozen_top": 1.0}, {"frozen_top": 0.0, "frozen_depth": 1.0}),
        ({"frozen_top": 0.25, "transfer_depth": 0.75}, {"frozen_top": 0.0}),
        ({"frozen_top": 0.5, "transfer_depth": 0.75}, {}),
        (
            {"frozen_top": 0.5, "frozen_depth": 0.5, "transfer_depth": 0.75},
            {"frozen_top": 0.0, "frozen_depth": 0.75},
        ),
        ({"head_lr_multiplier": 10.0}, {"head_lr_multiplier": 1.0}),
        ({"head_lr_multiplier": 10.0, "stall": 0.1}, {}),
        (
            {"head_lr_multiplier": 10.0, "stall": 0.1, "frozen_depth": 1.0},
            {"head_lr_multiplier": 1.0, "stall": 0.0},
        ),
        ({"init": "kaiming", "frozen_depth": 0.5}, {"transfer_depth": 0.0, "frozen_depth": 0.0}),
        ({"init": "kaiming", "sp_mix": 0.5}, {"transfer_depth": 0.0, "sp_mix": 0.0}),
        ({"init": "inject", "teacher": "resnet18", "blend": 0.5}, {}),
        (
            {"init": "inject", "teacher": "resnet18", "blend": 0.5, "transfer_depth": 0.0},
            {"init": "pretrained", "teacher": "", "blend": 0.75},
        ),
        ({"teacher": "resnet18", "blend": 0.5}, {"teacher": "", "blend": 0.75}),
        ({"linearized": True}, {}),
        ({"linearized": True, "frozen_depth": 1.0}, {"linearized": False}),
        (
            {"linearized": True, "head_scale": 0.0, "feature_norm": "batch"},
            {"head_scale": 1.0, "feature_norm": "target"},
        ),
        ({"linearized": True, "head_scale": 0.1, "feature_norm": "target"}, {}),
        ({"target_scale": 5.0}, {}),
        ({"method": "ewc", "target_scale": 5.0, "curvature": "exact"}, {"target_scale": 0.0, "curvature": "kfac"}),
        ({"method": "dlcft", "penalty_strength": 2.0, "curvature": "exact"}, {"target_scale": 5.0}),
        ({"method": "dlcft", "target_scale": 15.0}, {}),
        ({"method": "ewc", "linearized": True}, {"linearized": False}),
        (
            {"method": "probe", "transfer_depth": 0.5, "init": "kaiming"},
            {"transfer_depth": 1.0, "init": "pretrained", "frozen_depth": 1.0},
        ),
        (
            {"method": "joint", "penalty_strength": 2.0, "curvature": "exact"},
            {"penalty_strength": 1.0, "curvature": "kfac"},
        ),
    ],
)
def test_repair_resets_settings_without_effect(values: dict[str, Any], changes: dict[str, Any]) -> None:
    settings = TransferSettings(**values)
    assert repair(settings) == settings.replace(**changes)
    assert repair(repair(settings)) == repair(settings)


def test_batch_statistics_need_two_images_per_batch() -> None:
    with pytest.raises(UsageError, match=r"feature_norm.*batch_size"):
        TransferSettings(feature_norm="batch", batch_size=1)
    assert TransferSettings(feature_norm="target", batch_size=1).batch_size == 1


def test_repair_resets_l2sp_without_trainable_units() -> None:
    settings = TransferSettings(frozen_depth=0.5, sp_depth=0.4, sp_mix=0.7)
    assert (repair(settings).sp_mix, repair(settings).sp_depth) == (0.0, 1.0)
    assert repair(settings.replace(sp_depth=0.6)).sp_mix == 0.7


@given(st.dictionaries(st.sampled_from(tuple(SETTINGS)), st.one_of(st.none(), st.text(), st.floats(), st.booleans())))
def test_invalid_values_raise_only_usage_errors(values: dict[str, Any]) -> None:
    try:
        settings = TransferSettings.from_dict(values)
    except UsageError as error:
        assert any(name in str(error) for name in values)
    else:
        assert all(math.isclose(settings.value(k), v) for k, v in values.items() if isinstance(v, float))


@given(st.text())
def test_invalid_yaml_raises_only_usage_errors(text: str) -> None:
    try:
        TransferSettings.from_yaml(text, source="recipe.yaml")
    except UsageError as error:
        assert str(error).startswith(("recipe.yaml: ", "recipe.yaml, line "))


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("head_lrr: 0.1", ["head_lrr", "did you mean head_lr"]),
        ("head_lr: -1", ["head_lr", "above 0"]),
        ("momentum: 1.0", ["momentum", "0 ... 0.9999"]),
        ("optimizer: adam", ["optimizer", "sgd, adamw"]),
        ("teacher: 3", ["teacher", "line of text"]),
        ('teacher: "a\\nb"', ["teacher", "line of text"]),
        ("zap_until: 0\nzap_period: 1", ["zap_until", "above 0, up to 1"]),
        ("class_weights: equal", ["class_weights", "none, balanced"]),
        ("zap_fraction: 0", ["zap_fraction", "above 0, up to 1"]),
        ("layer_lr_shape: [0, 0]", ["layer_lr_shape", "list of 3"]),
        ("layer_lr_shape: {a: 1, b: 2, c: 3}", ["layer_lr_shape", "list of 3"]),
        ("head_lr: 1" + 400 * "0", ["head_lr", "not finite"]),
        ("epochs: 2.5", ["epochs", "whole number"]),
        ("epochs: .nan", ["epochs", "not finite"]),
        ("augmentation: true", ["augmentation", "none, crop"]),
        ("linearized: 1", ["linearized", "true or false"]),
        ("linearized: maybe", ["linearized", "true or false"]),
        ("- a", ["expected a mapping"]),
        ("head_lr: 1\nhead_lr: 2", ["given twice"]),
        ("{", ["not valid YAML"]),
    ],
)
def test_errors_name_the_setting_and_the_rule(text: str, fragments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        TransferSettings.from_yaml(text)
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_common_notations_of_numbers_are_read() -> None:
    assert TransferSettings.from_yaml("head_lr: 1e-4\nepochs: 3.0") == TransferSettings(head_lr=1e-4, epochs=3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml"):
        TransferSettings.load(tmp_path / "missing.yaml")


def test_every_default_satisfies_the_rule_of_its_setting() -> None:
    for name, setting in SETTINGS.items():
        assert setting.rule.check(name, setting.default) == setting.default == TransferSettings().value(name)
        assert setting.rule.describe() and setting.text.endswith(".")


def test_the_reference_documentation_has_every_setting() -> None:
    text = (TransferSettings.__doc__ or "") + (SourceSettings.__doc__ or "") + (StreamSettings.__doc__ or "")
    for setting in SETTINGS.values():
        assert f"{setting.name}: {setting.text}" in text
    assert list(inspect.signature(TransferSettings).parameters) == list(SETTINGS)


class TestGroups:
    def test_flat_names_and_groups_build_the_same_settings(self) -> None:
        flat = TransferSettings(init="inject", teacher="resnet18", method="ewc", head_lr=0.1)
        source, stream = SourceSettings(init="inject", teacher="resnet18"), StreamSettings(method="ewc")
        assert flat == TransferSettings(source=source, stream=stream, head_lr=0.1)
        assert (flat.source.init, flat.stream.method, flat.value("teacher")) == ("inject", "ewc", "resnet18")

    def test_reading_a_setting_of_a_group_by_its_flat_name_names_the_right_form(self) -> None:
        with pytest.raises(AttributeError, match=r"it is settings\.stream\.method"):
            TransferSettings().method  # type: ignore[attr-defined]  # noqa: B018

    def test_files_have_flat_names_only(self) -> None:
        settings = TransferSettings(init="kaiming", penalty_strength=2.0)
        assert list(settings.to_dict()) == [name for name, setting in SETTINGS.items() if not setting.since]
        new = settings.replace(zap_until=0.5, frozen_top=0.1)
        assert new.to_dict() == {**settings.to_dict(), "zap_until": 0.5, "frozen_top": 0.1}
        assert settings.to_dict()["init"] == "kaiming"
        with pytest.raises(UsageError, match=r"unknown setting 'source'"):
            TransferSettings.from_dict({"source": {"init": "kaiming"}})

    def test_replace_changes_one_group_and_keeps_the_others(self) -> None:
        settings = TransferSettings(teacher="resnet18")
        changed = settings.replace(init="inject", blend=1.0)
        assert changed.source == SourceSettings(init="inject", teacher="resnet18", blend=1.0)
        assert changed.stream is settings.stream and settings.source.init == "pretrained"
        assert changed.replace(blend=1.0) is changed

    def test_a_group_is_checked_like_its_settings(self) -> None:
        with pytest.raises(UsageError, match="blend"):
            SourceSettings(blend=2.0)
        with pytest.raises(TypeError, match="SourceSettings"):
            TransferSettings(source={"init": "inject"})


class TestReplace:
    def test_equal_values_return_the_same_object(self) -> None:
        settings = TransferSettings(head_lr=0.5, epochs=3)
        assert settings.replace(head_lr=0.5, epochs=3) is settings

    def test_equals_newly_built_settings(self) -> None:
        changes: dict[str, Any] = {"epochs": 3.0, "head_lr": 1, "layer_lr_shape": [0, 1, 0.5], "linearized": True}
        changed = TransferSettings(sp_mix=0.5).replace(**changes)
        built = TransferSettings(sp_mix=0.5, **changes)
        assert changed == built and hash(changed) == hash(built)
        assert [type(value) for value in vars(changed).values()] == [type(value) for value in vars(built).values()]

    @pytest.mark.parametrize(
        "changes",
        [
            {"head_lr": 0.0},
            {"head_lr": math.nan},
            {"head_lr": math.inf},
            {"epochs": 1.5},
            {"linearized": 0},
            {"optimizer": "adam"},
            {"layer_lr_shape": (0.0, 7.0, 0.0)},
            {"layer_lr_shape": (0.0, 0.0)},
            {"layer_lr_shape": (0.0, math.nan, 0.0)},
            {"teacher": "two\nlines"},
            {"feature_norm": "batch", "batch_size": 1},
        ],
    )
    def test_changes_are_checked(self, changes: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            TransferSettings().replace(**changes)
        with pytest.raises(UsageError):
            TransferSettings(**changes)

    def test_an_unknown_field_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="momentun"):
            TransferSettings().replace(momentun=0.5)

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.settings import SETTINGS, FieldRule, TransferSettings
from nbt.tuning.space.encoding import coordinate_names, encode, encode_with_length, log_effective_lr
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space, space_names
from nbt.tuning.surrogate.kernel import default_kernel

BASE = TransferSettings()


def values(rule: FieldRule) -> st.SearchStrategy[Any]:
    """Returns the values that a rule accepts, including the ends."""
    if rule.choices:
        return st.sampled_from(rule.choices)
    if rule.flag:
        return st.booleans()
    if rule.text:
        return st.text(st.characters(exclude_characters="\n"), max_size=9)
    if rule.length:
        return st.tuples(*[values(dataclasses.replace(rule, length=0))] * rule.length)
    if rule.integer:
        return st.integers(int(rule.low), int(rule.high))
    low = rule.low if rule.above is None else rule.above
    return st.floats(low, rule.high, exclude_min=rule.above is not None)


FIELDS = {name: values(setting.rule) for name, setting in SETTINGS.items()}
# A batch of one image has no batch statistics and is rejected.
SETTINGS = st.builds(TransferSettings, **{**FIELDS, "batch_size": FIELDS["batch_size"].filter(lambda size: size > 1)})


def coordinate(name: str, **changes: Any) -> float:
    return float(encode([BASE.replace(**changes)])[0][coordinate_names().index(name)])


def distance(first: TransferSettings, second: TransferSettings) -> float:
    a, b = encode([first, second])
    return float(np.linalg.norm(a - b))


@given(SETTINGS)
def test_any_valid_settings_are_a_finite_point_of_bounded_size(settings: TransferSettings) -> None:
    points = encode([settings])
    assert points.shape == (1, len(coordinate_names()))
    assert np.isfinite(points).all()
    assert np.abs(points).max() <= 260, "mixup's alpha is at most 100"


@pytest.mark.parametrize("name", space_names())
def test_coordinates_of_the_shipped_spaces_are_bounded(name: str) -> None:
    space, rng = Space.load(name), np.random.default_rng(0)
    points = encode([space.settings(sample_params(space, rng), 12) for _ in range(300)])
    assert np.ptp(points, axis=0).max() <= 2.0
    assert np.abs(points).max() <= 3.0, "log2 of 64 images, halved"


def test_no_settings_give_an_empty_array() -> None:
    assert encode([]).shape == (0, len(coordinate_names()))


def test_coordinate_names_match_the_values() -> None:
    assert len(set(coordinate_names())) == len(coordinate_names()) == encode([BASE]).shape[1]
    assert coordinate("transfer_depth", transfer_depth=0.4) == 0.4
    assert coordinate("momentum", momentum=0.3) == 0.3
    assert coordinate("adamw", optimizer="adamw") == 1.0 and coordinate("adamw") == 0.0
    assert coordinate("layer_lr_middle", layer_lr_shape=(0.0, -1.0, 0.5)) == -0.5
    assert coordinate("sp_mix", sp_mix=0.7) == 0.7 and coordinate("sp_depth", sp_depth=0.2) == 0.2
    assert coordinate("trained_share", frozen_depth=0.25) == 0.75


class TestRates:
    def test_settings_with_equal_effective_rates_have_equal_coordinates(self) -> None:
        """Li et al. 2020: the effective rate combines learning rate and momentum."""
        slow, fast = BASE.replace(body_lr=0.01, momentum=0.9), BASE.replace(body_lr=0.1, momentum=0.0)
        assert log_effective_lr(slow, slow.body_lr) == pytest.approx(log_effective_lr(fast, fast.body_lr))
        assert log_effective_lr(slow, slow.body_lr) == pytest.approx(-1.0)
        assert distance(slow, fast) < distance(slow, fast.replace(body_lr=0.01))

    def test_rates_are_per_image(self) -> None:
        small, large = BASE.replace(batch_size=16, head_lr=0.01), BASE.replace(batch_size=64, head_lr=0.04)
        assert log_effective_lr(small, small.head_lr) == pytest.approx(log_effective_lr(large, large.head_lr))
        assert log_effective_lr(BASE.replace(batch_size=64), 0.1) < log_effective_lr(BASE, 0.1)

    def test_adamw_rate_is_scaled_by_100_and_ignores_momentum(self) -> None:
        adamw = BASE.replace(optimizer="adamw", momentum=0.9)
        assert log_effective_lr(adamw, 1e-3) == pytest.approx(log_effective_lr(BASE, 0.01))
        assert log_effective_lr(adamw, 1e-3) == log_effective_lr(adamw.replace(momentum=0.0), 1e-3)

    def test_mean_rate_averages_over_the_units_that_train(self) -> None:
        shape = (-2.0, 0.0, 0.0)
        assert coordinate("mean_rate", layer_lr_shape=shape) < coordinate(
            "mean_rate", layer_lr_shape=shape, frozen_depth=0.5
        )
        assert coordinate("mean_rate", layer_lr_shape=shape, frozen_depth=0.5) == pytest.approx(coordinate("body_rate"))
        assert coordinate("mean_rate", layer_lr_shape=(0.0, 0.0, 1.0), frozen_depth=1.0) == pytest.approx(
            coordinate("body_rate") + 0.25
        ), "with all units frozen, the rate of the last one counts"


class TestDistances:
    def test_any_two_choices_have_distance_one(self) -> None:
        for first, second in (("none", "crop"), ("none", "rand"), ("color", "rand")):
            assert distance(BASE.replace(augmentation=first), BASE.replace(augmentation=second)) == pytest.approx(1.0)

    def test_settings_without_effect_on_training_add_no_distance(self) -> None:
        assert distance(BASE, BASE.replace(views=9)) == 0.0
        assert distance(BASE, BASE.replace(epochs=40)) == 0.0, "recordings with different epochs can be compared"

    def test_ema_is_encoded_by_its_horizon(self) -> None:
        assert distance(BASE.replace(ema=0.9), BASE.replace(ema=0.99)) == pytest.approx(
            distance(BASE.replace(ema=0.99), BASE.replace(ema=0.999)), rel=1e-6
        )

    def test_zero_decay_has_a_finite_coordinate(self) -> None:
        assert coordinate("decay_strength", decay_strength=0.0) == pytest.approx(-1.4)
        assert coordinate("decay_strength", decay_strength=1e-9) == pytest.approx(-1.4)


class TestTechniques:
    USED = (
        {"zap_period": 2},
        {"head_scale": 0.0},
        {"feature_norm": "batch"},
        {"stall": 0.2},
        {"init": "inject"},
        {"init": "kaiming"},
        {"pretrain_scheme": "asb"},
        {"pretrain_zap_period": 2},
    )

    @pytest.mark.parametrize("used", USED, ids=lambda used: next(iter(used)))
    def test_each_technique_adds_distance(self, used: dict[str, Any]) -> None:
        assert 0.3 < distance(BASE, BASE.replace(**used)) < 1.5

    def test_settings_of_an_unused_technique_add_no_distance(self) -> None:
        unused = BASE.replace(zap_fraction=0.2, zap_scale="as_released", head_lr_multiplier=9.0, teacher="x", blend=0.1)
        assert distance(BASE, unused) == 0.0

    def test_zapping_is_encoded_by_the_fraction_reset_per_epoch(self) -> None:
        often = BASE.replace(zap_period=1, zap_fraction=0.5)
        assert distance(often, BASE.replace(zap_period=2, zap_fraction=1.0)) == 0.0
        assert (
            distance(BASE, BASE.replace(zap_period=4))
            < distance(BASE, often)
            < distance(BASE, BASE.replace(zap_period=1))
        )

    def test_small_head_scales_are_close_to_zero(self) -> None:
        tiny, zero = BASE.replace(head_scale=1e-4), BASE.replace(head_scale=0.0)
        assert distance(tiny, zero) < distance(tiny, BASE)

    def test_teachers_have_similar_distances(self) -> None:
        names = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
        points = encode([BASE.replace(init="inject", teacher=name) for name in names])
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)) > 0.3

    def test_two_teachers_have_a_distance(self) -> None:
        first, second = (BASE.replace(init="inject", teacher=name) for name in ("resnet18", "resnet50"))
        assert distance(first, second) > 0

    def test_default_kernel_ignores_the_number_of_technique_coordinates(self) -> None:
        """A new technique must not change the models of recorded tables."""
        assert np.allclose(default_kernel().length_scales, 0.7 * np.sqrt(22))
        assert len(default_kernel().length_scales) == len(coordinate_names()) > 22


def test_length_is_the_last_coordinate_on_a_logarithmic_scale() -> None:
    settings = [TransferSettings(epochs=epochs) for epochs in (6, 12, 24)]
    points = encode_with_length(settings)
    np.testing.assert_array_equal(points[:, :-1], encode(settings))
    assert points[:, -1].tolist() == [-0.5, 0.0, 0.5]
    np.testing.assert_array_equal(encode_with_length(settings, encode(settings)), points)

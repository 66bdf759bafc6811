from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.settings import FieldRule, TransferSettings, setting_rule
from nbt.tuning.space.encoding import COORDINATE_NAMES, encode, log_effective_lr
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space, space_names
from nbt.tuning.surrogate.kernel import default_kernel

BASE = TransferSettings()


def values(rule: FieldRule) -> st.SearchStrategy[Any]:
    """Returns what a rule accepts, its ends included."""
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


FIELDS = {item.name: values(setting_rule(item.name)) for item in dataclasses.fields(TransferSettings)}
# One image a batch has no batch statistics, and is refused.
SETTINGS = st.builds(TransferSettings, **{**FIELDS, "batch_size": FIELDS["batch_size"].filter(lambda size: size > 1)})


def place(name: str, **changes: Any) -> float:
    return float(encode([BASE.replace(**changes)])[0][COORDINATE_NAMES.index(name)])


def gap(one: TransferSettings, other: TransferSettings) -> float:
    a, b = encode([one, other])
    return float(np.linalg.norm(a - b))


@given(SETTINGS)
def test_any_valid_settings_are_a_finite_point_of_bounded_size(settings: TransferSettings) -> None:
    points = encode([settings])
    assert points.shape == (1, len(COORDINATE_NAMES))
    assert np.isfinite(points).all()
    assert np.abs(points).max() <= 260, "mixup's alpha is at most 100"


@pytest.mark.parametrize("name", space_names())
def test_settings_of_the_shipped_spaces_are_about_one_apart_at_most(name: str) -> None:
    space, draws = Space.load(name), np.random.default_rng(0)
    points = encode([space.settings(sample_params(space, draws), 12) for _ in range(300)])
    assert np.ptp(points, axis=0).max() <= 2.0
    assert np.abs(points).max() <= 3.0, "log2 of 64 images, halved"


def test_no_settings_are_no_points() -> None:
    assert encode([]).shape == (0, len(COORDINATE_NAMES))


def test_names_and_numbers_agree() -> None:
    assert len(set(COORDINATE_NAMES)) == len(COORDINATE_NAMES) == encode([BASE]).shape[1]
    assert place("transfer_depth", transfer_depth=0.4) == 0.4
    assert place("momentum", momentum=0.3) == 0.3
    assert place("adamw", optimizer="adamw") == 1.0 and place("adamw") == 0.0
    assert place("layer_lr_middle", layer_lr_shape=(0.0, -1.0, 0.5)) == -0.5
    assert place("sp_mix", sp_mix=0.7) == 0.7 and place("sp_depth", sp_depth=0.2) == 0.2
    assert place("trained_share", frozen_depth=0.25) == 0.75


class TestRates:
    def test_recipes_of_one_effective_rate_have_one_rate(self) -> None:
        """Li et al. 2020: learning rate and momentum count together."""
        slow, fast = BASE.replace(body_lr=0.01, momentum=0.9), BASE.replace(body_lr=0.1, momentum=0.0)
        assert log_effective_lr(slow, slow.body_lr) == pytest.approx(log_effective_lr(fast, fast.body_lr))
        assert log_effective_lr(slow, slow.body_lr) == pytest.approx(-1.0)
        assert gap(slow, fast) < gap(slow, fast.replace(body_lr=0.01))

    def test_a_rate_is_counted_an_image(self) -> None:
        small, large = BASE.replace(batch_size=16, head_lr=0.01), BASE.replace(batch_size=64, head_lr=0.04)
        assert log_effective_lr(small, small.head_lr) == pytest.approx(log_effective_lr(large, large.head_lr))
        assert log_effective_lr(BASE.replace(batch_size=64), 0.1) < log_effective_lr(BASE, 0.1)

    def test_adamw_is_a_hundredth_of_sgd_and_has_no_momentum_in_it(self) -> None:
        adamw = BASE.replace(optimizer="adamw", momentum=0.9)
        assert log_effective_lr(adamw, 1e-3) == pytest.approx(log_effective_lr(BASE, 0.01))
        assert log_effective_lr(adamw, 1e-3) == log_effective_lr(adamw.replace(momentum=0.0), 1e-3)

    def test_the_mean_rate_is_that_of_the_units_that_train(self) -> None:
        shape = (-2.0, 0.0, 0.0)
        assert place("mean_rate", layer_lr_shape=shape) < place("mean_rate", layer_lr_shape=shape, frozen_depth=0.5)
        assert place("mean_rate", layer_lr_shape=shape, frozen_depth=0.5) == pytest.approx(place("body_rate"))
        assert place("mean_rate", layer_lr_shape=(0.0, 0.0, 1.0), frozen_depth=1.0) == pytest.approx(
            place("body_rate") + 0.25
        ), "with all units frozen, the last one's"


class TestDistances:
    def test_two_choices_are_one_apart_whichever_they_are(self) -> None:
        for one, other in (("none", "crop"), ("none", "rand"), ("color", "rand")):
            assert gap(BASE.replace(augmentation=one), BASE.replace(augmentation=other)) == pytest.approx(1.0)

    def test_what_the_training_does_not_use_is_no_distance(self) -> None:
        assert gap(BASE, BASE.replace(views=9)) == 0.0
        assert gap(BASE, BASE.replace(epochs=40)) == 0.0, "recordings of other lengths can be compared"

    def test_an_average_counts_by_its_horizon(self) -> None:
        assert gap(BASE.replace(ema=0.9), BASE.replace(ema=0.99)) == pytest.approx(
            gap(BASE.replace(ema=0.99), BASE.replace(ema=0.999)), rel=1e-6
        )

    def test_no_decay_is_a_place_of_its_own(self) -> None:
        assert place("decay_strength", decay_strength=0.0) == pytest.approx(-1.4)
        assert place("decay_strength", decay_strength=1e-9) == pytest.approx(-1.4)


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
    def test_each_is_a_distance_from_recipes_without_it(self, used: dict[str, Any]) -> None:
        assert 0.3 < gap(BASE, BASE.replace(**used)) < 1.5

    def test_what_an_unused_technique_would_do_is_none(self) -> None:
        unused = BASE.replace(zap_fraction=0.2, zap_scale="as_released", head_lr_multiplier=9.0, teacher="x", blend=0.1)
        assert gap(BASE, unused) == 0.0

    def test_zaps_count_by_how_much_they_reset_an_epoch(self) -> None:
        often = BASE.replace(zap_period=1, zap_fraction=0.5)
        assert gap(often, BASE.replace(zap_period=2, zap_fraction=1.0)) == 0.0
        assert gap(BASE, BASE.replace(zap_period=4)) < gap(BASE, often) < gap(BASE, BASE.replace(zap_period=1))

    def test_small_heads_are_alike(self) -> None:
        tiny, zero = BASE.replace(head_scale=1e-4), BASE.replace(head_scale=0.0)
        assert gap(tiny, zero) < gap(tiny, BASE)

    def test_two_teachers_are_apart(self) -> None:
        one, other = (BASE.replace(init="inject", teacher=name) for name in ("resnet18", "resnet50"))
        assert gap(one, other) > 0

    def test_the_kernel_is_that_of_ordinary_fine_tuning(self) -> None:
        """A technique that is new must not change what recorded tables say."""
        assert np.allclose(default_kernel().length_scales, 0.7 * np.sqrt(22))
        assert len(default_kernel().length_scales) == len(COORDINATE_NAMES) > 22

"""Every prior: its direction on constructed profiles, when it is active, and how trials update its weight."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from nbt.settings import AUGMENTATIONS, SETTINGS, TransferSettings
from nbt.tuning.priors import profile_priors
from nbt.tuning.priors.prior import Prior, PriorSuggestion, gaussian_log_density
from nbt.tuning.priors.profile_priors import PRIORS, activate_priors
from nbt.tuning.space.space import Space
from nbt.tuning.storage.codec import TLI_SIMILARITY
from nbt.tuning.surrogate.logit_score import logit_score_variance
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from tests.tuning.benchmark.tables import FULL_SPACE as NON_BINARY
from tests.tuning.synthetic import IMAGES, LENGTH, facts, profile, target
from tests.tuning.synthetic import draw as draw_from

NAMES = [prior.name for prior in PRIORS]
# Every setting that a prior is about.
ZAP_UNTIL = next(dimension for dimension in Space.load("zapping").dimensions if dimension.name == "zap_until")
FULL_SPACE = replace(NON_BINARY, dimensions=(*NON_BINARY.dimensions, ZAP_UNTIL))
VARIED = [dimension.name for dimension in FULL_SPACE.dimensions]
BASE = TransferSettings(epochs=LENGTH)
# A similar target with few images and few epochs, on which every prior is active.
FULLY_MEASURED = target(0.7, 0.1, **{TLI_SIMILARITY: 0.7})


def draw(n: int, seed: int) -> list[TransferSettings]:
    return draw_from(n, seed, FULL_SPACE)


def get_prior(name: str) -> Prior:
    return next(prior for prior in PRIORS if prior.name == name)


def suggestion(name: str, on: Target = FULLY_MEASURED) -> PriorSuggestion:
    suggested = get_prior(name).suggest(on)
    assert suggested is not None
    return suggested


def inactivity_reason(name: str, on: Target) -> str:
    """Returns the reason for which a prior is not active."""
    activation = next(activation for activation in activate_priors(on, VARIED) if activation.prior.name == name)
    assert activation.suggestion is None
    return activation.reason


def best(name: str, on: Target, choices: dict[Any, TransferSettings]) -> Any:
    """Returns the key of the settings with the greatest density."""
    log_density = suggestion(name, on).log_density
    return max(choices, key=lambda key: log_density(choices[key]))


def grid(field: str, *values: Any, **fixed: Any) -> dict[Any, TransferSettings]:
    return {value: BASE.replace(**fixed, **{field: value}) for value in values}


DEPTHS = tuple(round(0.05 * i, 2) for i in range(21))


class TestRegistry:
    def test_each_prior_has_a_name_a_source_and_dimensions(self) -> None:
        assert len(set(NAMES)) == len(NAMES) >= 10
        for prior in PRIORS:
            assert prior.source and prior.strength > 0
            assert set(prior.dimensions) <= set(SETTINGS)

    def test_all_are_active_on_a_small_similar_target(self) -> None:
        assert [
            activation.prior.name for activation in activate_priors(FULLY_MEASURED, VARIED) if activation.suggestion
        ] == NAMES
        assert all(
            activation.reason == "" and activation.suggestion is not None and activation.suggestion.words
            for activation in activate_priors(FULLY_MEASURED, VARIED)
        )

    def test_priors_without_a_varied_dimension_are_left_out(self) -> None:
        assert [activation.prior.name for activation in activate_priors(FULLY_MEASURED, ["frozen_depth"])] == [
            "freeze when images are few"
        ]
        assert activate_priors(FULLY_MEASURED, []) == []

    @pytest.mark.parametrize("name", NAMES)
    def test_a_density_is_finite_and_depends_on_its_dimensions_only(self, name: str) -> None:
        log_density, dimensions = suggestion(name).log_density, set(get_prior(name).dimensions)
        # These change the meaning of other dimensions: for example, no unit above the transfer depth is pretrained.
        context = {"frozen_depth", "transfer_depth", "optimizer", "batch_size", "momentum", "zap_period"}
        for settings, other in zip(draw(40, 1), draw(40, 2), strict=True):
            values = settings.to_dict()
            changed = {field: value for field, value in other.to_dict().items() if field not in dimensions | context}
            assert math.isfinite(log_density(settings))
            assert log_density(TransferSettings.from_dict({**values, **changed})) == pytest.approx(
                log_density(settings)
            )

    def test_gaussian_log_density_has_a_floor(self) -> None:
        assert gaussian_log_density(3.0, 3.0, 0.1) == 0.0
        assert (
            gaussian_log_density(3.1, 3.0, 0.1)
            == pytest.approx(-0.5)
            == pytest.approx(gaussian_log_density(2.9, 3.0, 0.1))
        )
        assert gaussian_log_density(-1e9, 3.0, 0.1) == -9.0


MISSING: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str]] = {
    "transfer up to the knee": ({}, profile(knee_depth=None), "not measured: knee of the gain"),
    "freeze when images are few": ({"train_images": None}, profile(), "not measured: images per class"),
    "pull by similarity": ({}, profile(ridge_accuracy_random=None), "not measured: advantage over random weights"),
    "effective rate by similarity": ({}, None, "not measured: advantage over random weights"),
    "momentum by similarity": ({}, None, "not measured: advantage over random weights"),
    "rates by shift": ({}, {**profile(), "layers": []}, "not measured: statistics shift by unit"),
    "average within the training": ({"train_images": None}, None, "not measured: training images"),
    "enough steps": ({"train_images": None}, None, "not measured: training images"),
    "stall while the head is random": ({}, None, "not measured: advantage over random weights"),
    "zap seldom when short": ({"train_images": None}, None, "not measured: images per class"),
    "inject by similarity": ({TLI_SIMILARITY: None}, profile(), "not measured: TLI similarity"),
    "the expansion when images are few": ({"train_images": None}, None, "not measured: images per class"),
}


class TestMissing:
    @pytest.mark.parametrize("name", MISSING)
    def test_without_its_measures_a_prior_is_not_active(self, name: str) -> None:
        changes, fit_profile, reason = MISSING[name]
        assert inactivity_reason(name, Target.of(facts(**changes), fit_profile, LENGTH)) == reason

    def test_all_priors_with_needs_are_tested(self) -> None:
        assert set(MISSING) == {prior.name for prior in PRIORS if prior.needs}

    def test_every_missing_measure_is_named(self) -> None:
        reason = inactivity_reason("freeze when images are few", Target(epochs=LENGTH))
        assert reason == "not measured: images per class, probe accuracy, advantage over random weights"

    def test_without_measures_only_priors_without_needs_are_active(self) -> None:
        active = {
            activation.prior.name
            for activation in activate_priors(Target(epochs=LENGTH), VARIED)
            if activation.suggestion
        }
        assert active == {prior.name for prior in PRIORS if not prior.needs}


class TestTransferUpToTheKnee:
    NAME = "transfer up to the knee"

    @pytest.mark.parametrize("knee", [0.3, 0.7])
    def test_no_less_than_the_knee(self, knee: float) -> None:
        on = Target.of(facts(), profile(knee_depth=knee), LENGTH)
        log_density = suggestion(self.NAME, on).log_density
        values = [log_density(BASE.replace(transfer_depth=depth)) for depth in DEPTHS]
        assert values == sorted(values), "transferring all units has no cost"
        assert log_density(BASE.replace(transfer_depth=knee)) == max(values) > values[0]
        assert f"{knee:.0%}" in suggestion(self.NAME, on).words

    def test_not_much_more_where_the_gain_falls_again(self) -> None:
        fit_profile = profile(knee_depth=0.5)
        fit_profile["layers"][-1]["gain"] = 0.1
        on = Target.of(facts(), fit_profile, LENGTH)
        assert best(self.NAME, on, grid("transfer_depth", *DEPTHS)) == pytest.approx(0.5)
        assert "not much more" in suggestion(self.NAME, on).words
        assert "not much more" not in suggestion(self.NAME).words

    def test_without_a_gain_it_is_not_active(self) -> None:
        for fit_profile in (profile(0.11, 0.1), profile(knee_depth=0.0)):
            assert (
                inactivity_reason(self.NAME, Target.of(facts(), fit_profile, LENGTH))
                == "the profile gives no reason for it"
            )


class TestFreezeWhenImagesAreFew:
    NAME = "freeze when images are few"

    def test_the_fewer_images_the_more_is_frozen(self) -> None:
        centres = [
            best(self.NAME, target(train_images=10 * shots), grid("frozen_depth", *DEPTHS))
            for shots in (5, 20, 100, 500, 5000)
        ]
        assert centres == sorted(centres, reverse=True)
        assert centres[0] > 0.8 and centres[-1] < 0.2

    def test_good_features_need_less_training(self) -> None:
        poor, good = (
            best(self.NAME, target(pretrained, 0.1), grid("frozen_depth", *DEPTHS)) for pretrained in (0.2, 0.95)
        )
        assert good > poor

    def test_useless_features_are_not_frozen(self) -> None:
        assert inactivity_reason(self.NAME, target(0.1, 0.2)) == "the profile gives no reason for it"


class TestPullBySimilarity:
    NAME = "pull by similarity"

    def test_a_similar_target_is_pulled_and_a_dissimilar_one_is_not(self) -> None:
        mixes = grid("sp_mix", 0.0, 0.5, 1.0, decay_strength=0.01)
        assert best(self.NAME, target(0.9, 0.1), mixes) == 1.0
        assert best(self.NAME, target(0.15, 0.1), mixes) == 0.0
        assert best(self.NAME, target(0.05, 0.1), mixes) == 0.0, "harmful pretraining is no similarity"

    def test_deeper_on_a_similar_target(self) -> None:
        depths = grid("sp_depth", 0.2, 0.6, 1.0, sp_mix=0.5)
        assert best(self.NAME, target(0.9, 0.1), depths) == 1.0
        assert best(self.NAME, target(0.15, 0.1), depths) == 0.2

    def test_units_that_are_not_transferred_are_not_pulled(self) -> None:
        log_density = suggestion(self.NAME).log_density
        part = BASE.replace(sp_mix=1.0, transfer_depth=0.5)
        assert log_density(part.replace(sp_depth=0.5)) == log_density(part.replace(sp_depth=1.0))

    def test_the_text_has_the_direction(self) -> None:
        assert "pull most units" in suggestion(self.NAME, target(0.9, 0.1)).words
        assert "pull few units" in suggestion(self.NAME, target(0.2, 0.1)).words


class TestEffectiveRateBySimilarity:
    NAME = "effective rate by similarity"
    RATES = tuple(10 ** (-4 + 0.1 * i) for i in range(40))

    def test_a_similar_target_prefers_a_small_rate(self) -> None:
        similar, dissimilar = (
            best(self.NAME, target(pretrained, 0.0), grid("body_lr", *self.RATES)) for pretrained in (0.95, 0.1)
        )
        assert similar == pytest.approx(10**-2.65, rel=0.2)
        assert dissimilar == pytest.approx(10**-1.8, rel=0.2)

    def test_momentum_and_rate_count_together(self) -> None:
        log_density = suggestion(self.NAME).log_density
        assert log_density(BASE.replace(body_lr=0.001, momentum=0.9)) == pytest.approx(
            log_density(BASE.replace(body_lr=0.01, momentum=0.0))
        )

    def test_with_all_units_frozen_the_rate_has_no_effect(self) -> None:
        values = {
            suggestion(self.NAME).log_density(settings)
            for settings in grid("body_lr", *self.RATES, frozen_depth=1.0).values()
        }
        assert len(values) == 1 and -9 < values.pop() < 0


class TestMomentumBySimilarity:
    NAME = "momentum by similarity"

    def test_a_similar_target_prefers_a_low_momentum(self) -> None:
        momenta = grid("momentum", 0.0, 0.5, 0.9)
        assert best(self.NAME, target(0.95, 0.1), momenta) == 0.0
        assert best(self.NAME, target(0.2, 0.1), momenta) == 0.9
        assert "low" in suggestion(self.NAME, target(0.95, 0.1)).words
        assert "high" in suggestion(self.NAME, target(0.2, 0.1)).words

    def test_in_between_it_is_not_active(self) -> None:
        assert inactivity_reason(self.NAME, target(0.5, 0.0)) == "the profile gives no reason for it"


class TestModerateHeadRate:
    NAME = "moderate head rate"

    def test_neither_small_nor_large(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("head_lr", 1e-4, 0.02, 1.0)) == 0.02
        assert best(self.NAME, FULLY_MEASURED, grid("head_lr", 1e-3, 0.2, 1.0, momentum=0.0)) == 0.2

    def test_it_needs_no_measure(self) -> None:
        assert best(self.NAME, Target(epochs=1), grid("head_lr", 1e-4, 0.02, 1.0)) == 0.02


class TestRatesByShift:
    NAME = "rates by shift"
    SHAPES = ((-1.0, -0.5, 0.0), (0.0, 0.0, 0.0), (0.0, -0.5, -1.0))

    def shifted(self, *values: float) -> Target:
        return Target(epochs=LENGTH, layers=[{"mean_shift": value} for value in values])

    def test_higher_rates_where_the_statistics_shift_most(self) -> None:
        shapes = grid("layer_lr_shape", *self.SHAPES)
        assert best(self.NAME, self.shifted(0.1, 0.2, 0.5, 0.9), shapes) == self.SHAPES[0]
        assert best(self.NAME, self.shifted(0.9, 0.5, 0.2, 0.1), shapes) == self.SHAPES[2]
        assert "at the top" in suggestion(self.NAME, self.shifted(0.1, 0.5, 0.9)).words
        assert "at the input" in suggestion(self.NAME, self.shifted(0.9, 0.5, 0.1)).words

    def test_no_more_than_a_decade(self) -> None:
        words = suggestion(self.NAME, self.shifted(0.0, 0.5, 100.0)).words
        assert words.startswith("rates 10.0 times as high")

    def test_an_even_shift_or_too_few_units_give_no_suggestion(self) -> None:
        for on in (self.shifted(0.5, 0.4, 0.5), self.shifted(0.1, 0.9)):
            assert inactivity_reason(self.NAME, on) == "the profile gives no reason for it"


class TestMildAugmentationWhenShort:
    NAME = "mild augmentation when short"

    def test_crops_and_no_mixing(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("augmentation", *AUGMENTATIONS)) == "crop"
        assert best(self.NAME, FULLY_MEASURED, grid("mixup", 0.4, 0.2, 0.0)) == 0.0
        assert best(self.NAME, FULLY_MEASURED, grid("label_smoothing", 0.2, 0.1, 0.0)) == 0.0

    def test_with_all_units_frozen_only_the_augmentation_counts_and_less(self) -> None:
        log_density = suggestion(self.NAME).log_density
        trained, frozen = (
            log_density(BASE.replace(augmentation="crop", frozen_depth=depth))
            - log_density(BASE.replace(augmentation="rand", frozen_depth=depth))
            for depth in (0.0, 1.0)
        )
        assert 0 < frozen < trained
        all_frozen = BASE.replace(frozen_depth=1.0)
        assert log_density(all_frozen) == log_density(all_frozen.replace(mixup=0.4))

    def test_it_is_not_active_for_long_training(self) -> None:
        assert inactivity_reason(self.NAME, target(epochs=31)) == "the profile gives no reason for it"


class TestAverageWithinTheTraining:
    NAME = "average within the training"

    def test_the_density_falls_with_too_long_a_horizon(self) -> None:
        log_density = suggestion(self.NAME).log_density
        scores = [log_density(BASE.replace(ema=ema)) for ema in (0.0, 0.9, 0.98, 0.995)]
        assert scores[0] == scores[1] == 0.0, "225 steps are enough for an average over 10"
        assert 0.0 > scores[2] > scores[3]

    def test_larger_batches_have_fewer_steps(self) -> None:
        log_density = suggestion(self.NAME).log_density
        assert log_density(BASE.replace(ema=0.98, batch_size=64)) < log_density(BASE.replace(ema=0.98, batch_size=16))

    def test_with_many_images_every_horizon_is_equal(self) -> None:
        log_density = suggestion(self.NAME, target(train_images=100_000)).log_density
        assert log_density(BASE.replace(ema=0.995)) == 0.0


class TestEnoughSteps:
    NAME = "enough steps"

    def test_few_images_prefer_small_batches(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("batch_size", 16, 32, 64)) == 16

    def test_it_is_not_active_with_many_images(self) -> None:
        assert inactivity_reason(self.NAME, target(train_images=6000)) == "the profile gives no reason for it"


class TestStallWhileTheHeadIsRandom:
    NAME = "stall while the head is random"

    def test_good_features_prefer_a_small_head_or_a_short_stall(self) -> None:
        assert best(self.NAME, FULLY_MEASURED, grid("head_scale", 0.0, 0.01, 0.1, 1.0)) == 0.0
        assert best(self.NAME, FULLY_MEASURED, grid("stall", 0.0, 0.05, 0.1, 0.2, 0.3)) == 0.1

    def test_either_is_enough(self) -> None:
        log_density = suggestion(self.NAME).log_density
        both, head = BASE.replace(head_scale=0.0, stall=0.1), BASE.replace(head_scale=0.0)
        assert log_density(both) == pytest.approx(log_density(head))
        assert log_density(head) > log_density(BASE)

    def test_it_is_not_active_for_useless_features(self) -> None:
        assert inactivity_reason(self.NAME, target(0.2, 0.15)) == "the profile gives no reason for it"

    def test_the_effect_grows_with_the_features(self) -> None:
        good, fair = (suggestion(self.NAME, target(pretrained, 0.1)).log_density for pretrained in (0.9, 0.5))
        small_head = BASE.replace(head_scale=0.0)
        assert good(small_head) - good(BASE) > fair(small_head) - fair(BASE) > 0


class TestZapSeldomWhenShort:
    NAME = "zap seldom when short"

    def test_no_zap_is_best_and_more_are_worse(self) -> None:
        log_density = suggestion(self.NAME).log_density
        scores = [log_density(BASE.replace(zap_period=period)) for period in (0, 6, 3, 1)]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
        assert log_density(BASE.replace(zap_period=3, zap_fraction=0.2)) > log_density(BASE.replace(zap_period=3))

    def test_the_effect_grows_with_fewer_images_per_class(self) -> None:
        few, some = (suggestion(self.NAME, target(train_images=images)).log_density for images in (50, 400))
        assert few(BASE.replace(zap_period=3)) < some(BASE.replace(zap_period=3))

    def test_it_is_not_active_for_long_training(self) -> None:
        assert (
            inactivity_reason(self.NAME, target(epochs=100, train_images=5000)) == "the profile gives no reason for it"
        )


class TestInjectBySimilarity:
    NAME = "inject by similarity"

    def on(self, similarity: float) -> Target:
        return target(**{TLI_SIMILARITY: similarity})

    @pytest.mark.parametrize(("similarity", "init"), [(0.9, "inject"), (0.3, "pretrained")])
    def test_similar_teachers_are_injected_and_others_not(self, similarity: float, init: str) -> None:
        assert best(self.NAME, self.on(similarity), grid("init", "pretrained", "inject")) == init

    def test_in_between_it_is_not_active(self) -> None:
        assert inactivity_reason(self.NAME, self.on(0.5)) == "the profile gives no reason for it"


class TestExpansionWhenFewImages:
    NAME = "the expansion when images are few"

    def loss(self, images: int) -> float:
        log_density = suggestion(self.NAME, target(train_images=images)).log_density
        linear = BASE.replace(linearized=True, target_scale=1.0)
        return log_density(BASE) - log_density(linear)

    def test_the_network_is_preferred_and_more_so_with_many_images(self) -> None:
        assert 0.0 < self.loss(40) < self.loss(400) < self.loss(4000)

    def test_squared_error_is_for_the_expansion(self) -> None:
        log_density = suggestion(self.NAME, target()).log_density
        assert log_density(BASE) > log_density(BASE.replace(target_scale=1.0))
        assert log_density(BASE.replace(linearized=True, target_scale=1.0)) > log_density(BASE.replace(linearized=True))


def surrogate_with_prior(name: str, sign: float = 1.0) -> PriorSurrogate:
    """Returns a surrogate with a single prior, whose strength is multiplied by `sign`."""
    single = get_prior(name)
    with patch.object(profile_priors, "PRIORS", (dataclasses.replace(single, strength=sign * single.strength),)):
        return PriorSurrogate(FULLY_MEASURED, FULL_SPACE)


def weight(surrogate: PriorSurrogate, trials: int, slope: float) -> dict[str, float]:
    """Returns the weight of the only source after trials whose logit scores are `slope` times its scores."""
    settings = draw(trials, seed=5)
    noise = 0.2 * np.random.default_rng(0).standard_normal(trials)
    scores_of_source = surrogate.source_scores(settings)[0]
    model = surrogate.condition(settings, 2.0 + slope * scores_of_source + noise, np.full(trials, 0.04))
    return model.weights()[0]


@pytest.mark.parametrize("name", NAMES)
class TestUpdating:
    def test_trials_that_contradict_it_reduce_its_weight(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        before = surrogate.sources[0].mean
        after = [weight(surrogate, n, slope=-1.0)["after"] for n in (5, 40, 160)]
        assert before > after[0] > after[1] > after[2] - 0.02
        assert after[2] < 0.5 * before

    def test_trials_that_confirm_it_raise_its_weight(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        assert weight(surrogate, 80, slope=1.0)["after"] > surrogate.sources[0].mean

    def test_unrelated_trials_reduce_its_weight(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        assert weight(surrogate, 160, slope=0.0)["after"] < surrogate.sources[0].mean

    def test_the_uncertainty_of_its_weight_decreases(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        spreads = [
            surrogate.sources[0].spread,
            *(weight(surrogate, n, slope=-1.0)["after_spread"] for n in (5, 40, 160)),
        ]
        assert spreads == sorted(spreads, reverse=True) and spreads[-1] < spreads[0]

    def test_predictions_no_longer_follow_a_contradicted_prior(self, name: str) -> None:
        surrogate = surrogate_with_prior(name)
        candidates = draw(300, seed=9)
        scores_of_source = surrogate.source_scores(candidates)[0]
        mean_score_before = scores_of_source[np.argsort(-surrogate.prior_mean(candidates))[:30]].mean()
        settings = draw(120, seed=5)
        logit_scores = 2.0 - surrogate.source_scores(settings)[0]
        model = surrogate.condition(settings, logit_scores, np.full(120, float(logit_score_variance(0.7, IMAGES))))
        mean_score_after = scores_of_source[np.argsort(-model.predict(candidates)[0])[:30]].mean()
        assert mean_score_before > 0.3 > 0.0 > mean_score_after

    @patch(
        "nbt.tuning.surrogate.prior_surrogate._MIN_TRIALS_TO_FIT_KERNEL", 1000
    )  # a common kernel, so that only the trials differ
    def test_the_influence_of_the_prior_decreases_with_trials(self, name: str) -> None:
        """Compares two surrogates with opposite priors."""
        candidates, differences = draw(100, seed=9), []
        for n in (2, 20, 160):
            settings = draw(n, seed=5)
            logit_scores = np.sin(np.arange(n))
            means = [
                surrogate_with_prior(name, sign)
                .condition(settings, logit_scores, np.full(n, 0.04))
                .predict(candidates)[0]
                for sign in (1.0, -1.0)
            ]
            differences.append(np.abs((means[0] - means[0].mean()) - (means[1] - means[1].mean())).mean())
        assert differences[0] > differences[1] > differences[2]

from __future__ import annotations

import math

from nbt.report.fit import conclusions
from tests.fit_profiles import RISING, make_profile


def suggested(**changes: object) -> str:
    return " ".join(conclusions.suggestions(make_profile(**changes)))  # type: ignore[arg-type]


def test_rising_gain_suggests_transferring_all_units() -> None:
    text = suggested()
    assert "the 20 classes with an accuracy of 60.0 % ± 1.5 (always predicting the largest class: 5.0 %)" in text
    assert "on those of random weights with 3.0 % ± 0.6" in text
    assert "exceed random ones by 57.0 ± 1.6 points" in text
    assert "The gain still grows at the last of 5 units: the profile suggests transferring all units." in text


def test_majority_class_share() -> None:
    assert "largest class: 40.0 %" in suggested(smallest_class=48.0, imbalance=10.0)


def test_differences_within_two_standard_errors_are_ties() -> None:
    text = suggested(pretrained=(0.3, 0.33), random=(0.3, 0.31))
    assert "That is a tie (+2.0 ± 2.1 points)" in text
    assert "exceed random ones" not in text
    assert "too easy" not in text
    assert "the profile suggests no depth" in text


def test_difference_is_significant_with_enough_images() -> None:
    assert "exceed random ones by 2.0 ± 0.2 points" in suggested(
        pretrained=(0.3, 0.33), random=(0.3, 0.31), samples=100_000
    )


def test_easy_target_is_mentioned() -> None:
    assert "too easy" in suggested(pretrained=(0.97, 0.98), random=(0.97, 0.97))


def test_negative_gain_is_mentioned() -> None:
    assert "worse than random ones" in suggested(pretrained=(0.2, 0.2), random=(0.2, 0.4))


def test_only_a_falling_gain_above_the_knee_suggests_reinitialisation() -> None:
    fall = suggested(pretrained=(0.2, 0.6, 0.4, 0.3), random=(0.1,) * 4)
    assert "up to unit 2 of 4 (features.1); up to the last unit it falls by 30.0 points" in fall
    assert "the top 2 units may be specific to the source" in fall
    assert "re-initialising them (transfer_depth around 0.50) is worth a trial" in fall
    flat = suggested(pretrained=(0.2, 0.6, 0.6, 0.61), random=(0.1,) * 4)
    assert "the contribution of the top 2 units is within noise" in flat
    assert "re-initialising" not in flat
    assert "the contribution of the top unit is within noise" in suggested(
        pretrained=(0.2, 0.6, 0.61), random=(0.1,) * 3
    )


def test_random_weights_and_missing_probes_yield_no_suggestions() -> None:
    random = suggested(weights="none")
    assert "nothing pretrained to measure" in random
    assert "A linear probe on the features of the last unit" in random
    assert suggested(pretrained=(0.2, math.nan), random=(0.1, 0.1)) == (
        "The profile has no ridge probe of the features and makes no suggestion."
    )


def test_many_dead_channels_are_mentioned() -> None:
    assert "30 % of the channels are never active" in suggested(dead_channels=0.3)
    assert "never active" not in suggested(dead_channels=0.01)


def test_uncertainty_text() -> None:
    text = conclusions.uncertainty_text([make_profile()])
    assert "over 1000 training images" in text
    assert "With few images per class" not in text
    assert "With few images per class" in conclusions.uncertainty_text([make_profile(samples=60)])
    assert "60 to 1000 training images" in conclusions.uncertainty_text([make_profile(), make_profile(samples=60)])


class TestComparison:
    def test_one_profile_is_not_compared(self) -> None:
        assert conclusions.comparison([make_profile()]) == []

    def test_ties_and_lower_accuracies_are_distinguished(self) -> None:
        best = make_profile(backbone="a")
        near = make_profile(pretrained=(*RISING[:4], 0.58), backbone="b")
        far = make_profile(pretrained=(*RISING[:4], 0.5), backbone="c")
        text = conclusions.comparison([far, near, best])[0]
        assert text.startswith("a has the highest ridge probe accuracy, 60.0 % ± 1.5, tied within two standard errors")
        assert text.endswith("with b (2.0 ± 2.2 points lower); c (10.0 ± 2.2 points lower) differs by more.")
        assert "c (10.0 ± 2.2 points lower) differs from it by more than two" in conclusions.comparison([far, best])[0]

    def test_other_measures_agree_or_disagree(self) -> None:
        best, other = make_profile(backbone="a"), make_profile(pretrained=(*RISING[:4], 0.4), backbone="b", logme=0.5)
        agreed = conclusions.comparison([make_profile(backbone="a", gbc=-2.0), other])[1]
        assert agreed.startswith("Every other measure that all backbones have (kNN, LogME, H-score")
        assert agreed.endswith("also ranks a first.")
        split = conclusions.comparison([best, make_profile(pretrained=(*RISING[:4], 0.4), backbone="b", gbc=-1.0)])[1]
        assert split.startswith("The other measures do not all agree: a is first by kNN")
        assert "but b by GBC" in split

    def test_only_common_measures_are_compared(self) -> None:
        best = make_profile(backbone="a", gbc=-2.0)
        without_gbc = make_profile(pretrained=(*RISING[:4], 0.4), backbone="b", gbc=None)
        assert "GBC" not in conclusions.comparison([best, without_gbc])[1]

    def test_measures_without_skill_are_not_compared(self) -> None:
        worse = dict.fromkeys(("leep", "nleep", "nce", "transrate", "h_score", "emd_similarity"), 0.5)
        best, other = make_profile(backbone="a", **worse), make_profile(pretrained=(*RISING[:4], 0.4), backbone="b")
        higher = make_profile(pretrained=(*RISING[:4], 0.4), backbone="b", **dict.fromkeys(worse, 0.9))
        assert conclusions.comparison([best, higher]) == conclusions.comparison([best, other])

    def test_different_image_sizes_are_mentioned(self) -> None:
        text = conclusions.comparison([make_profile(), make_profile(image_size=224.0)])
        assert text[-1] == "The image sizes differ (96 and 224 px)."


class TestGradient:
    def test_the_unit_with_the_largest_relative_gradient_is_named(self) -> None:
        profile = make_profile()
        profile.layers["relative_gradient"] = [0.1, 0.2, 0.8, 0.2, 0.4]
        text = " ".join(conclusions.suggestions(profile))
        assert (
            "largest, relative to the weights, at unit 3 of 5 (features.2): 4 times the median over the units" in text
        )

    def test_profiles_without_gradients_say_nothing(self) -> None:
        """Version 0.1 did not measure them."""
        profile = make_profile()
        profile.layers["relative_gradient"] = math.nan
        assert "gradient" not in " ".join(conclusions.suggestions(profile))

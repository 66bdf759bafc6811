from __future__ import annotations

import math

import pytest

from nbt.report.fit import text as fit_text
from nbt.report.formatting import DASH, MINUS
from tests.fit_profiles import RANDOM, RISING, make_profile


def suggested(**changes: object) -> str:
    return " ".join(fit_text.suggestions(make_profile(**changes)))  # type: ignore[arg-type]


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
    assert "nothing pretrained to measure" in suggested(weights="none")
    assert suggested(pretrained=(0.2, math.nan), random=(0.1, 0.1)) == (
        "The profile has no ridge probe of the features and makes no suggestion."
    )


def test_many_dead_channels_are_mentioned() -> None:
    assert "30 % of the channels are never active" in suggested(dead_channels=0.3)
    assert "never active" not in suggested(dead_channels=0.01)


def test_uncertainty_text() -> None:
    text = fit_text.uncertainty_text([make_profile()])
    assert "over 1000 training images" in text
    assert "With few images per class" not in text
    assert "With few images per class" in fit_text.uncertainty_text([make_profile(samples=60)])
    assert "60 to 1000 training images" in fit_text.uncertainty_text([make_profile(), make_profile(samples=60)])


class TestComparison:
    def test_one_profile_is_not_compared(self) -> None:
        assert fit_text.comparison([make_profile()]) == []

    def test_ties_and_lower_accuracies_are_distinguished(self) -> None:
        best = make_profile(backbone="a")
        near = make_profile(pretrained=(*RISING[:4], 0.58), backbone="b")
        far = make_profile(pretrained=(*RISING[:4], 0.5), backbone="c")
        text = fit_text.comparison([far, near, best])[0]
        assert text.startswith("a has the highest ridge probe accuracy, 60.0 % ± 1.5, tied within two standard errors")
        assert text.endswith("with b (2.0 ± 2.2 points lower); c (10.0 ± 2.2 points lower) differs by more.")
        assert "c (10.0 ± 2.2 points lower) differs from it by more than two" in fit_text.comparison([far, best])[0]

    def test_other_measures_agree_or_disagree(self) -> None:
        best, other = make_profile(backbone="a"), make_profile(pretrained=(*RISING[:4], 0.4), backbone="b", logme=0.5)
        agreed = fit_text.comparison([make_profile(backbone="a", gbc=-2.0), other])[1]
        assert agreed.startswith("Every other measure that all backbones have (kNN, LogME, H-score")
        assert agreed.endswith("also ranks a first.")
        split = fit_text.comparison([best, make_profile(pretrained=(*RISING[:4], 0.4), backbone="b", gbc=-1.0)])[1]
        assert split.startswith("The other measures do not all agree: a is first by kNN")
        assert "but b by GBC" in split

    def test_only_common_measures_are_compared(self) -> None:
        with_leep = make_profile(backbone="a", leep=-1.0)
        without_leep = make_profile(pretrained=(*RISING[:4], 0.4), backbone="b")
        assert "LEEP (" not in fit_text.comparison([with_leep, without_leep])[1]

    def test_different_image_sizes_are_mentioned(self) -> None:
        text = fit_text.comparison([make_profile(), make_profile(image_size=224.0)])
        assert text[-1] == "The image sizes differ (96 and 224 px)."


class TestTable:
    def test_one_row_per_backbone_with_standard_errors(self) -> None:
        rows = fit_text.table_rows([make_profile(backbone="a", leep=-1.234), make_profile(backbone="b")])
        assert [row["backbone"] for row in rows] == ["a", "b"]
        assert rows[0]["ridge probe, %"] == "60.0±1.5"
        assert rows[0]["gain over random, points"] == "+57.0±1.6"
        assert rows[0]["advantage, %"] == "58.8", "57 points of the 97 that random weights get wrong"
        assert rows[0]["knee"] == "5/5"
        assert (rows[0]["LEEP"], rows[1]["LEEP"]) == (f"{MINUS}1.23", DASH)
        assert rows[0]["TransRate"] == "3200"
        assert "EMD similarity" not in rows[0]

    def test_every_column_has_a_meaning_with_its_direction(self) -> None:
        profiles = [make_profile(leep=-1.0, emd_similarity=0.9)]
        legend = dict(fit_text.legend(profiles))
        assert list(legend) == [name for name in fit_text.table_rows(profiles)[0] if name != "backbone"]
        assert len(legend) == len(fit_text.MEASURES)
        assert all("higher is better" in meaning for meaning in legend.values())

    def test_duplicate_backbones_are_named_with_their_weights(self) -> None:
        twice = [make_profile(weights="/a/one.pth"), make_profile(weights="none"), make_profile(backbone="x")]
        assert fit_text.profile_names(twice) == ["mobilenet_v2 [one.pth]", "mobilenet_v2 [none]", "x"]

    def test_all_measures_of_one_profile(self) -> None:
        rows = {row.label: row.value for row in fit_text.measure_rows(make_profile())}
        assert rows["ridge probe"] == "60.0 % ± 1.5"
        assert rows["knee"] == "5 of 5"
        assert rows["gain over random"] == "+57.0 ± 1.6 points"
        assert rows["advantage"] == "58.8 %"
        assert rows["mean gain"] == "+25.0 points"
        assert rows["dead channels"] == "0.1 %"
        assert "LEEP" not in rows


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        (({"leep": "r", "nce": "r"}, {"leep": "r", "nce": "r"}), ["LEEP and NCE: r"]),
        (({"leep": "r"}, {}), ["LEEP of a: r"]),
        (({"leep": "r"}, {"logme of\nunit": "s"}), ["LEEP of a: r", "logme of unit of b: s"]),
    ],
)
def test_missing_measures_are_grouped_by_reason(left_out: tuple[dict[str, str], ...], expected: list[str]) -> None:
    profiles = [make_profile(backbone=name, left_out=why) for name, why in zip("ab", left_out, strict=True)]
    assert fit_text.missing_measure_lines(profiles) == expected


def test_perfect_probe_on_few_images_has_an_error() -> None:
    assert fit_text.accuracy_text(1.0, 10) != "100.0 % ± 0.0"
    assert fit_text.gain_of_unit(make_profile(), 0)[0] == pytest.approx(RISING[0] - RANDOM[0])

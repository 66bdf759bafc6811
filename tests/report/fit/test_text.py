from __future__ import annotations

import math

import pytest

from nbt.report.fit import text as words
from nbt.report.formatting import DASH, MINUS
from tests.fit_profiles import RANDOM, RISING, make_profile


def said(**changes: object) -> str:
    return " ".join(words.suggestions(make_profile(**changes)))  # type: ignore[arg-type]


def test_a_rising_gain_speaks_for_transferring_everything() -> None:
    text = said()
    assert "tells the 20 classes apart with 60.0 % ± 1.5 (always guessing the largest class: 5.0 %)" in text
    assert "on those of random weights with 3.0 % ± 0.6" in text
    assert "ahead of random ones by 57.0 ± 1.6 points" in text
    assert "The gain still grows at the last of 5 units: the profile speaks for transferring everything." in text


def test_the_guess_is_that_of_the_largest_class() -> None:
    assert "largest class: 40.0 %" in said(smallest_class=48.0, imbalance=10.0)


def test_what_is_within_two_standard_errors_is_a_tie() -> None:
    text = said(own=(0.3, 0.33), other=(0.3, 0.31))
    assert "That is a tie (+2.0 ± 2.1 points)" in text
    assert "ahead" not in text
    assert "ceiling" not in text
    assert "how much to transfer is open" in text


def test_the_same_difference_counts_where_there_are_images_enough() -> None:
    assert "ahead of random ones by 2.0 ± 0.2 points" in said(own=(0.3, 0.33), other=(0.3, 0.31), samples=100_000)


def test_an_easy_target_is_called_that() -> None:
    assert "near the ceiling" in said(own=(0.97, 0.98), other=(0.97, 0.97))


def test_worse_than_random_is_said() -> None:
    assert "worse than random ones" in said(own=(0.2, 0.2), other=(0.2, 0.4))


def test_above_the_knee_a_fall_suggests_to_start_afresh_and_a_plain_does_not() -> None:
    fall = said(own=(0.2, 0.6, 0.4, 0.3), other=(0.1,) * 4)
    assert "up to unit 2 of 4 (features.1); by the last it falls by 30.0 points" in fall
    assert "the top 2 units may be the source's own, and starting them afresh (transfer_depth around 0.50)" in fall
    plain = said(own=(0.2, 0.6, 0.6, 0.61), other=(0.1,) * 4)
    assert "what the top 2 units add is within noise" in plain
    assert "afresh" not in plain
    assert "the top unit adds is within noise" in said(own=(0.2, 0.6, 0.61), other=(0.1,) * 3)


def test_random_weights_and_missing_probes_suggest_nothing() -> None:
    assert "nothing pretrained to measure" in said(weights="none")
    assert said(own=(0.2, math.nan), other=(0.1, 0.1)) == (
        "There is no ridge probe of the features, so this profile suggests nothing."
    )


def test_idle_channels_are_worth_a_sentence_where_they_are_many() -> None:
    assert "30 % of the channels never fire" in said(dead_channels=0.3)
    assert "never fire" not in said(dead_channels=0.01)


def test_certainty_tells_what_it_rests_on() -> None:
    text = words.uncertainty_text([make_profile()])
    assert "over 1000 training images" in text
    assert "Few images a class" not in text
    assert "Few images a class" in words.uncertainty_text([make_profile(samples=60)])
    assert "60 to 1000 training images" in words.uncertainty_text([make_profile(), make_profile(samples=60)])


class TestComparison:
    def test_one_profile_is_not_compared(self) -> None:
        assert words.comparison([make_profile()]) == []

    def test_a_tie_is_a_tie_and_what_is_behind_is_behind(self) -> None:
        best = make_profile(backbone="a")
        near = make_profile(own=(*RISING[:4], 0.58), backbone="b")
        far = make_profile(own=(*RISING[:4], 0.5), backbone="c")
        text = words.comparison([far, near, best])[0]
        assert text.startswith("a has the highest ridge probe, 60.0 % ± 1.5, but it is a tie with b (2.0 ± 2.2 points")
        assert text.endswith("less than two standard errors; c (10.0 ± 2.2 points behind) is below that.")
        assert "c (10.0 ± 2.2 points behind) is below it by more" in words.comparison([far, best])[0]

    def test_other_measures_agree_or_do_not(self) -> None:
        best, other = make_profile(backbone="a"), make_profile(own=(*RISING[:4], 0.4), backbone="b", logme=0.5)
        agreed = words.comparison([make_profile(backbone="a", gbc=-2.0), other])[1]
        assert agreed.startswith("Every other measure that all of them have (kNN, LogME, H-score")
        assert agreed.endswith("puts a first as well.")
        split = words.comparison([best, make_profile(own=(*RISING[:4], 0.4), backbone="b", gbc=-1.0)])[1]
        assert split.startswith("The other measures do not all agree: a is first by kNN")
        assert "but b by GBC" in split

    def test_only_measures_that_all_have_are_compared(self) -> None:
        with_leep = make_profile(backbone="a", leep=-1.0)
        assert "LEEP (" not in words.comparison([with_leep, make_profile(own=(*RISING[:4], 0.4), backbone="b")])[1]

    def test_different_image_sizes_are_said(self) -> None:
        text = words.comparison([make_profile(), make_profile(image_size=224.0)])
        assert text[-1] == "They see images of different sizes (96 and 224 px)."


class TestTable:
    def test_a_row_a_backbone_with_standard_errors(self) -> None:
        rows = words.table_rows([make_profile(backbone="a", leep=-1.234), make_profile(backbone="b")])
        assert [row["backbone"] for row in rows] == ["a", "b"]
        assert rows[0]["ridge probe, %"] == "60.0±1.5"
        assert rows[0]["gain over random, %"] == "+57.0±1.6"
        assert rows[0]["knee"] == "5/5"
        assert (rows[0]["LEEP"], rows[1]["LEEP"]) == (f"{MINUS}1.23", DASH)
        assert rows[0]["TransRate"] == "3200"
        assert "EMD similarity" not in rows[0]

    def test_every_column_has_a_meaning_with_its_direction(self) -> None:
        profiles = [make_profile(leep=-1.0, emd_similarity=0.9)]
        legend = dict(words.legend(profiles))
        assert list(legend) == [name for name in words.table_rows(profiles)[0] if name != "backbone"]
        assert len(legend) == len(words.MEASURES)
        assert all("higher is better" in meaning for meaning in legend.values())

    def test_a_backbone_that_is_there_twice_is_named_with_its_weights(self) -> None:
        twice = [make_profile(weights="/a/one.pth"), make_profile(weights="none"), make_profile(backbone="x")]
        assert words.profile_names(twice) == ["mobilenet_v2 [one.pth]", "mobilenet_v2 [none]", "x"]

    def test_all_measures_of_one_profile(self) -> None:
        rows = {row.label: row.value for row in words.measure_rows(make_profile())}
        assert rows["ridge probe"] == "60.0 % ± 1.5"
        assert rows["knee"] == "5 of 5"
        assert rows["gain over random"] == "+57.0 ± 1.6 points"
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
def test_what_is_left_out_is_said_once_a_reason(left_out: tuple[dict[str, str], ...], expected: list[str]) -> None:
    profiles = [make_profile(backbone=name, left_out=why) for name, why in zip("ab", left_out, strict=True)]
    assert words.missing_measure_lines(profiles) == expected


def test_a_perfect_probe_of_few_images_keeps_an_error() -> None:
    assert words.accuracy_text(1.0, 10) != "100.0 % ± 0.0"
    assert words.gain_of_unit(make_profile(), 0)[0] == pytest.approx(RISING[0] - RANDOM[0])

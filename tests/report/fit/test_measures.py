from __future__ import annotations

import pytest

from nbt.fit import OPTIONAL_MEASURES
from nbt.report.fit import measures
from nbt.report.formatting import DASH, MINUS
from tests.fit_profiles import RANDOM, RISING, make_profile


class TestTable:
    def test_one_row_per_backbone_with_standard_errors(self) -> None:
        rows = measures.table_rows([make_profile(backbone="a", leep=-1.234), make_profile(backbone="b")])
        assert [row["backbone"] for row in rows] == ["a", "b"]
        assert rows[0]["ridge probe, %"] == "60.0±1.5"
        assert rows[0]["gain over random, points"] == "+57.0±1.6"
        assert rows[0]["advantage, %"] == "58.8", "57 points of the 97 that random weights get wrong"
        assert rows[0]["knee"] == "5/5"
        assert "EMD similarity" not in rows[0]

    def test_probe_and_neighbours_lead(self) -> None:
        [row] = measures.table_rows([make_profile()])
        assert list(row)[:6] == [
            *("backbone", "ridge probe, %", "kNN, %", "gain over random, points", "advantage, %", "LogME")
        ]

    def test_measures_without_skill_have_a_table_of_their_own(self) -> None:
        profiles = [make_profile(backbone="a", leep=-1.234), make_profile(backbone="b")]
        assert not {"LEEP", "N-LEEP", "TransRate"} & measures.table_rows(profiles)[0].keys()
        rows = measures.table_rows(profiles, measures.APPENDIX_MEASURES)
        assert [list(row) for row in rows] == [["backbone", "N-LEEP", "LEEP", "TransRate"]] * 2
        assert (rows[0]["LEEP"], rows[1]["LEEP"]) == (f"{MINUS}1.23", DASH)
        assert rows[0]["TransRate"] == "3200"
        assert [name for name, _ in measures.legend(profiles, measures.APPENDIX_MEASURES)] == list(rows[0])[1:]
        assert [row.label for row in measures.appendix_rows(profiles[1])] == ["N-LEEP", "TransRate"]
        assert {measure.name for measure in measures.APPENDIX_MEASURES} == set(OPTIONAL_MEASURES)
        default = profiles[0].without_optional_measures()
        assert measures.appendix_rows(default) == ()
        assert measures.legend([default], measures.APPENDIX_MEASURES) == []

    def test_every_column_has_a_meaning_with_its_direction(self) -> None:
        profiles = [make_profile(emd_similarity=0.9)]
        legend = dict(measures.legend(profiles))
        assert list(legend) == [name for name in measures.table_rows(profiles)[0] if name != "backbone"]
        assert len(legend) == len(measures.MEASURES)
        assert all("higher is better" in meaning for meaning in legend.values())

    def test_duplicate_backbones_are_named_with_their_weights(self) -> None:
        twice = [make_profile(weights="/a/one.pth"), make_profile(weights="none"), make_profile(backbone="x")]
        assert measures.profile_names(twice) == ["mobilenet_v2 [one.pth]", "mobilenet_v2 [none]", "x"]

    def test_all_measures_of_one_profile(self) -> None:
        rows = {row.label: row.value for row in measures.measure_rows(make_profile())}
        assert rows["ridge probe"] == "60.0 % ± 1.5"
        assert rows["knee"] == "5 of 5"
        assert rows["gain over random"] == "+57.0 ± 1.6 points"
        assert rows["advantage"] == "58.8 %"
        assert rows["mean gain"] == "+25.0 points"
        assert rows["dead channels"] == "0.1 %"
        assert "TransRate" not in rows


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
    assert measures.missing_measure_lines(profiles) == expected


def test_a_sentence_says_how_to_get_the_optional_measures() -> None:
    default = make_profile().without_optional_measures()
    assert measures.missing_measure_lines([default]) == []
    assert measures.optional_measures_sentence([default]) == (
        "nbt fit --all-measures also computes N-LEEP, LEEP, NCE, TransRate and plain H-score, which have shown no "
        "skill in ordering weights."
    )
    for present in (make_profile(left_out={}), make_profile(nleep=None, transrate=None)):
        assert measures.optional_measures_sentence([present]) == ""


def test_perfect_probe_on_few_images_has_an_error() -> None:
    assert measures.accuracy_text(1.0, 10) != "100.0 % ± 0.0"
    assert measures.gain_of_unit(make_profile(), 0)[0] == pytest.approx(RISING[0] - RANDOM[0])

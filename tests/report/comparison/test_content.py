from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nbt.report.comparison.content import StudyComparison, compare_studies, comparison_data
from nbt.report.table import Table
from nbt.training.metrics import accuracy
from nbt.tuning.finals.bootstrap import metric_difference
from nbt.tuning.storage.candidates import CandidateConfig
from tests.report.comparison.comparisons import comparison, study, with_search
from tests.report.study.cards.views import columns, texts
from tests.sample_study import DEFAULT, unfinished_study, with_config


def rows(table: Table) -> dict[str, list[str]]:
    return {row.cells[0].text: texts(row)[1:] for row in table.rows}


def test_differences_are_paired_by_test_image() -> None:
    found = comparison()
    first, other = found.studies
    a, b = (each.record.test_predictions("recommended") for each in (first, other))
    assert a is not None and b is not None
    assert first.difference is None
    assert other.difference == metric_difference(b, a, "accuracy")
    assert other.difference is not None and other.difference.mean == pytest.approx(accuracy(b) - accuracy(a))
    [a_row, b_row] = rows(comparison_data(found).results).values()
    assert a_row[:4] == ["69.5 %", "66.8\N{EN DASH}72.1 %", "\N{EN DASH}", "\N{EN DASH}"]
    assert b_row[0] == "79.0 %" and b_row[2] == "+9.5"


def test_a_clear_difference_is_stated_and_an_unclear_one_is_not() -> None:
    [clear] = comparison(0.79).sentences
    assert clear.startswith("b is better than a: +9.5 points test accuracy (95 % interval ")
    [worse] = comparison(0.55).sentences
    assert worse.startswith("b is worse than a: ")
    [unclear] = comparison(0.697).sentences
    assert unclear.startswith("b cannot be distinguished from a: +0.2 points")


def test_a_lower_log_loss_is_better() -> None:
    metric = {"metric": "log_loss"}
    [sentence] = compare_studies([study("a", 0.5, **metric), study("b", 0.95, **metric)]).sentences
    assert sentence.startswith("b is better than a: \N{MINUS SIGN}")
    assert "nats test log loss" in sentence


def without_difference() -> list[tuple[StudyComparison, str]]:
    first, other = study("a"), study("b")
    relabelled = other.test_predictions("recommended")
    assert relabelled is not None
    relabelled = replace(relabelled, labels=np.roll(relabelled.labels, 1))
    return [
        (compare_studies([first, replace(other, load_predictions=lambda run: None)]), "are not stored"),
        (compare_studies([first, replace(other, load_predictions=lambda run: relabelled)]), "are not stored"),
        (comparison(images=900), "are not stored"),
        (
            compare_studies([first, with_config(unfinished_study(), name="b", content_hash="5ea")]),
            "b: the test images have not been evaluated",
        ),
    ]


@pytest.mark.parametrize(("found", "message"), without_difference())
def test_a_difference_needs_predictions_of_the_same_images(found: StudyComparison, message: str) -> None:
    assert message in found.sentences[0]
    assert found.studies[1].difference is None
    assert comparison_data(found).n_differences == 0


def test_settings_and_options_that_differ_are_listed_and_no_others() -> None:
    first = with_search(study("a"), final_seeds=7, out="elsewhere")
    default = [final for final in first.finals if final.settings == DEFAULT]
    other = replace(study("b"), recommended="default recipe", finals=default)
    data = comparison_data(compare_studies([first, other]))
    assert rows(data.options) == {"final_seeds": ["7", "5"]}
    settings = rows(data.settings)
    assert settings["body_lr"] == ["0.013", "0.01", "0.01"]
    assert "epochs" not in settings
    assert columns(data.settings) == ["setting", "a", "b", "default recipe"]


def test_studies_of_several_backbones_name_those_that_they_used() -> None:
    backbones = tuple(
        CandidateConfig(
            name=f"net{n}, w.pth", backbone=f"net{n}", weights="w.pth", weights_hash=str(n), image_size=32 * n
        )
        for n in (1, 2)
    )
    several = study("b", candidates=backbones, backbone="net1", weights="w.pth", image_size=32)
    moved = [
        replace(final, settings=final.settings.replace(backbone="net2, w.pth")) if final.name == "trial 12" else final
        for final in several.finals
    ]
    found = compare_studies([study("a"), replace(several, finals=moved)])
    data = comparison_data(found)
    own = "mobilenet_v2(width_mult=0.35)"
    assert rows(data.options) == {
        "backbone": [own, "net1, net2"],
        "weights": ["default", "w.pth, w.pth"],
        "image_size": ["96", "32, 64"],
    }
    settings = rows(data.settings)
    assert settings["backbone"] == [own, "net2", "differs"]
    assert settings["weights"] == ["default", "w.pth", "differs"]
    assert settings["image_size"] == ["96", "64", "differs"]
    first, other = (row.cells for row in data.results.rows)
    assert (first[5].note, other[5].note) == (own, "net1, w.pth")
    assert other[0].note.startswith("net2, w.pth: depth ")
    assert found.to_json()["studies"][1]["recommended"]["backbone"] == "net2, w.pth"


def test_budget_and_time() -> None:
    record = study("b")
    timed = replace(record, clock={"prepare": 10.0, "trials": 600.0, "finals": 110.0, "estimate": 5000.0})
    costs = rows(comparison_data(compare_studies([study("a"), timed])).costs)
    assert costs["a"] == ["14", str(record.epochs_spent), "18", "10 min 12 s", "10 min 12 s", "13"]
    assert costs["b"][4] == "12 min 00 s"


def test_validation_of_another_metric_is_left_out() -> None:
    found = compare_studies([study("a"), study("b", metric="macro_f1")])
    assert found.studies[0].validation("accuracy") is not None
    assert found.studies[1].validation("accuracy") is None


def test_json_has_the_numbers_of_the_table() -> None:
    found = comparison()
    first, other = found.to_json()["studies"]
    assert (first["study"], first["difference"]) == ("a", None)
    assert other["test"]["mean"] - first["test"]["mean"] == pytest.approx(other["difference"]["mean"])
    assert other["recommended"]["transfer_depth"] == 0.8
    assert other["default_recipe"]["mean"] == pytest.approx(0.651, abs=1e-3)

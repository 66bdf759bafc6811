from dataclasses import replace
from typing import Any

import pytest

from nbt.report.study.headline import comparison_to_default, headline, validation_sentences
from nbt.report.study.recommendation import current_recommendation
from nbt.tuning.finals.winner import describe_comparison
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import StudyRecord, TestRecord
from tests.sample_study import (
    BEST,
    DEFAULT,
    curve,
    diverged_curve,
    empty_study,
    evaluated_study,
    final,
    finals,
    sample_study,
    trial,
    unfinished_study,
)


def plain_headline(record: StudyRecord) -> str:
    return headline(record, current_recommendation(record)).replace("\N{EN DASH}", "-").replace("\N{MINUS SIGN}", "-")


def interval(mean: float, low: float | None, high: float | None, n: int = 5) -> Interval:
    return Interval(mean=mean, low=low, high=high, n=n)


def test_headline_is_the_test_result() -> None:
    assert plain_headline(evaluated_study()) == (
        "Use the settings of trial 12: 69.5 % test accuracy (95 % interval 66.8-72.1 %, 1174 images); the default "
        "recipe 65.1 % (62.3-67.8 %); always guessing the largest class 2.0 % (1.4-3.0 %)."
    )
    alone = plain_headline(evaluated_study(recommended="default recipe"))
    assert alone.startswith("Use the default recipe: 65.1 % test accuracy") and "; the default recipe" not in alone
    without_predictions = plain_headline(sample_study())
    assert "; the default recipe 65.1 %" in without_predictions and "guessing" not in without_predictions


def test_validation_and_its_difference_to_the_test_follow() -> None:
    def sentences(record: StudyRecord) -> list[str]:
        found = validation_sentences(record, current_recommendation(record))
        return [text.replace("\N{EN DASH}", "-").replace("\N{MINUS SIGN}", "-") for text in found]

    assert sentences(sample_study()) == [
        "In the final runs: 70.6 % validation accuracy (95 % interval 69.6-71.6 %, 5 seeds), 4.5 points better than "
        "the default recipe (95 % interval +4.1 to +4.9).",
        "The validation mean is 1.1 points above the test result (95 % interval of the difference -1.6 to +4.0), which "
        "is within the uncertainty of both.",
    ]
    for mean, end in (
        (0.6, "the validation is optimistic; rely on the test result."),
        (0.8, "trains on fewer images."),
    ):
        tested = TestRecord(name="recommended", accuracy=interval(mean, mean - 0.01, mean + 0.01), loss=None, n=900)
        assert sentences(sample_study(test=(tested,)))[1].endswith(end)
    assert sentences(sample_study(test=())) == []


def test_the_reason_for_a_cheaper_recipe_follows() -> None:
    interval_with_0 = interval(0.004, -0.009, 0.017)
    verdict = describe_comparison(
        "trial 12", "default recipe", interval_with_0, cheaper_than="trial 3", costs={"trial 12": 0.4, "trial 3": 1.0}
    )
    record = sample_study(verdict=verdict)
    _, reason, _ = validation_sentences(record, current_recommendation(record))
    assert reason == (
        "In these runs, nothing is better than the default recipe beyond noise, so trial 12 is recommended because it "
        "is cheaper: about 40 % of the training time of trial 3."
    )


def test_final_runs_and_test_images_that_disagree_are_told_apart() -> None:
    def text(**changes: Any) -> str:
        record = evaluated_study(**changes)
        return " ".join(validation_sentences(record, current_recommendation(record)))

    first, *others = finals()
    undecided = text(finals=(replace(first, versus_default=interval(0.004, -0.009, 0.017)), *others))
    assert "In the final runs: 70.6" in undecided and "cannot be distinguished from the default recipe" in undecided
    assert "On the test images, the recommendation is better than the default recipe: +4.4 points" in undecided
    assert "need not agree with the final runs" in undecided
    assert "On the test images" not in text(), "both find an advantage"


def test_headline_between_finals_and_test() -> None:
    assert plain_headline(sample_study(test=())) == (
        "Use the settings of trial 12: 70.6 % validation accuracy (95 % interval 69.6-71.6 %, 5 seeds), 4.5 points "
        "better than the default recipe (95 % interval +4.1 to +4.9)."
    )


def test_indistinguishable_settings_are_not_called_better() -> None:
    listed = finals()
    close = replace(listed[0], versus_default=interval(0.004, -0.009, 0.017))
    text = plain_headline(sample_study(finals=(close, *listed[1:]), test=()))
    assert text.endswith("cannot be distinguished from the default recipe (+0.4 points, 95 % interval -0.9 to +1.7).")
    assert "better" not in text


def test_interval_that_touches_zero_shows_no_difference() -> None:
    assert "cannot be distinguished" in comparison_to_default(interval(0.01, 0.0, 0.02))
    assert "points better" in comparison_to_default(interval(0.01, 0.0001, 0.02))
    assert "2.0 points worse" in comparison_to_default(interval(-0.02, -0.03, -0.01))


def test_one_seed_shows_no_difference() -> None:
    one = final("trial 12", 12, BEST, [0.71], default=[0.66])
    text = plain_headline(sample_study(finals=(one, final("default recipe", 0, DEFAULT, [0.66])), test=()))
    assert "one seed, no interval" in text
    assert "one seed does not distinguish it from the default recipe (+5.0 points)" in text


def test_default_recipe_can_be_recommended() -> None:
    text = plain_headline(sample_study(recommended="default recipe", test=()))
    assert text.startswith("Use the default recipe: 66.1 % validation accuracy (95 % interval")
    assert text.endswith("no settings of the search have a better mean.")


def test_without_a_run_of_the_default_recipe_there_is_no_comparison() -> None:
    alone = (replace(finals()[0], versus_default=None),)
    assert plain_headline(sample_study(finals=alone, test=())).endswith(
        "the default recipe was not run for comparison."
    )


def test_headline_before_the_finals_is_provisional() -> None:
    text = plain_headline(unfinished_study())
    assert text.startswith("For now, use the settings of trial 12: 71.2 % validation accuracy (± 5.1 points at 95 %)")
    assert "+5.1 points relative to a single run of the default recipe, which is within validation noise" in text
    assert text.endswith("final runs with new seeds have not confirmed this yet.")
    assert "within validation noise" not in plain_headline(unfinished_study(noise=0.01))


def test_before_the_finals_the_default_recipe_may_lead() -> None:
    record = unfinished_study(trials=(trial(0, settings=DEFAULT, curve=curve(0.66)),), noise=None)
    assert plain_headline(record).startswith(
        "For now, use the default recipe: 66.0 % validation accuracy in a single run;"
    )


@pytest.mark.parametrize(
    "trials",
    [
        (),
        (trial(0, "failed", reason="x"),),
        (trial(0, "pruned", curve=curve(0.5, epochs=2)),),
        (trial(0, "running"),),
        (trial(0, curve=diverged_curve()),),
    ],
)
def test_without_a_full_length_trial_nothing_is_recommended(trials: tuple[object, ...]) -> None:
    assert plain_headline(empty_study(trials=trials)).startswith("Nothing can be recommended yet")


def test_the_headline_gives_the_test_result_without_copies() -> None:
    facts = evaluated_study().dataset
    copied = evaluated_study(dataset={**facts, "copied_test_images": list(range(100))})
    # The first 816 of the 1174 predictions are right, the copies among them.
    assert "; 66.7 % (63.8-69.4 %) without 100 test images with a copy in training or validation; the default" in (
        plain_headline(copied)
    )
    every = evaluated_study(images=50, dataset={**facts, "copied_test_images": list(range(50))})
    assert "; every test image has a copy in training or validation; the default" in plain_headline(every)

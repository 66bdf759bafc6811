from dataclasses import replace

import pytest

from nbt.report.formatting import join_words
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.sentences import (
    comparison_to_default,
    headline,
    importance_sentence,
    optimism,
    ranking_sentence,
    recipe_sentence,
    test_sentence,
)
from nbt.settings import TransferSettings
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import StudyRecord, TestRecord
from tests.sample_study import (
    BEST,
    DEFAULT,
    curve,
    diverged_curve,
    empty_study,
    final,
    finals,
    sample_study,
    sampled,
    trial,
    unfinished_study,
)

test_sentence.__test__ = False  # type: ignore[attr-defined]


def plain_headline(record: StudyRecord) -> str:
    return headline(record, current_recommendation(record)).replace("\N{EN DASH}", "-").replace("\N{MINUS SIGN}", "-")


def interval(mean: float, low: float | None, high: float | None, n: int = 5) -> Interval:
    return Interval(mean=mean, low=low, high=high, n=n)


def test_headline_after_the_finals() -> None:
    assert plain_headline(sample_study()) == (
        "Use the settings of trial 12: 70.6 % validation accuracy (95 % interval 69.6-71.6 %, 5 seeds), 4.5 points "
        "better than the default recipe (95 % interval +4.1 to +4.9)."
    )


def test_indistinguishable_settings_are_not_called_better() -> None:
    listed = finals()
    close = replace(listed[0], versus_default=interval(0.004, -0.009, 0.017))
    text = plain_headline(sample_study(finals=(close, *listed[1:])))
    assert text.endswith("cannot be distinguished from the default recipe (+0.4 points, 95 % interval -0.9 to +1.7).")
    assert "better" not in text


def test_interval_that_touches_zero_shows_no_difference() -> None:
    assert "cannot be distinguished" in comparison_to_default(interval(0.01, 0.0, 0.02))
    assert "points better" in comparison_to_default(interval(0.01, 0.0001, 0.02))
    assert "2.0 points worse" in comparison_to_default(interval(-0.02, -0.03, -0.01))


def test_one_seed_shows_no_difference() -> None:
    one = final("trial 12", 12, BEST, [0.71], default=[0.66])
    text = plain_headline(sample_study(finals=(one, final("default recipe", 0, DEFAULT, [0.66]))))
    assert "one seed, no interval" in text
    assert "one seed does not distinguish it from the default recipe (+5.0 points)" in text


def test_default_recipe_can_be_recommended() -> None:
    text = plain_headline(sample_study(recommended="default recipe"))
    assert text.startswith("Use the default recipe: 66.1 % validation accuracy (95 % interval")
    assert text.endswith("no settings of the search have a better mean.")


def test_without_a_run_of_the_default_recipe_there_is_no_comparison() -> None:
    alone = (replace(finals()[0], versus_default=None),)
    assert plain_headline(sample_study(finals=alone)).endswith("the default recipe was not run for comparison.")


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


def test_recipe_sentence() -> None:
    assert recipe_sentence(DEFAULT) == "It keeps all pretrained weights and freezes no units."
    assert recipe_sentence(DEFAULT.replace(frozen_depth=1.0)) == (
        "It keeps all pretrained weights and trains only the head."
    )
    scratch = TransferSettings(transfer_depth=0.0)
    assert recipe_sentence(scratch) == "It starts from random weights and freezes no units."
    text = recipe_sentence(BEST)
    assert "first 80 % of the units, freezes the first 35 % of the units" in text
    assert "60 % of the weight decay towards the pretrained weights (L2-SP)" in text
    assert "lowest learning rate at the input of the backbone (0.063 of body_lr)" in text


def test_optimism_of_the_selection_is_reported() -> None:
    record = sample_study()
    text = optimism(record, current_recommendation(record))
    assert "trial 12 reached 71.2 % on a single split, selected among 10 full-length trials" in text
    assert "its mean is 70.6 % (\N{MINUS SIGN}0.6 points)" in text
    assert optimism(unfinished_study(), current_recommendation(unfinished_study())) == ""


def test_test_sentence_has_intervals_and_number_of_evaluations() -> None:
    text = test_sentence(sample_study()).replace("\N{EN DASH}", "-")
    assert "On 1174 test images the recommendation reaches 69.5 % (95 % Wilson interval 66.8-72.1 %)" in text
    assert "the default recipe 65.1 % (95 % Wilson interval 62.3-67.8 %)" in text
    assert "the intervals overlap, so the test images do not show which is better" in text
    assert "evaluated once, after the final selection" in text
    assert "3 times in this study" in test_sentence(sample_study(test_evaluations=3))
    assert test_sentence(empty_study()) == "The test images have not been evaluated."
    for count, often in ((1, "once"), (3, "3 times")):
        earlier = test_sentence(sample_study(test=(), test_evaluations=count))
        assert earlier == f"The test images were evaluated {often} in this study, but not for this recommendation."


def test_separate_test_intervals() -> None:
    def result(name: str, mean: float) -> TestRecord:
        return TestRecord(name=name, accuracy=interval(mean, mean - 0.01, mean + 0.01, 900), loss=None, n=900)

    better = sample_study(test=(result("recommended", 0.8), result("baseline", 0.7)))
    assert "the intervals do not overlap" in test_sentence(better)
    worse = sample_study(test=(result("recommended", 0.7), result("baseline", 0.8)))
    assert "the default recipe is better on the test images" in test_sentence(worse)
    alone = sample_study(test=(result("recommended", 0.7),))
    assert "default recipe" not in test_sentence(alone)


def test_importance_sentence_names_its_basis() -> None:
    assert "10 full-length trials" in importance_sentence(sample_study())
    assert "a hint, not a finding" in importance_sentence(sample_study())
    many = [trial(i, settings=sampled(i), curve=curve(0.5)) for i in range(30)]
    assert "hint" not in importance_sentence(sample_study(trials=tuple(many)))
    assert "too few or too similar" in importance_sentence(empty_study())


def test_ranking_sentence() -> None:
    assert "within one standard error (± 2.6 points)" in ranking_sentence(sample_study())
    assert ranking_sentence(empty_study()) == "Full-length trials come first, by validation accuracy."


def test_lists_are_joined() -> None:
    assert [join_words(list(items)) for items in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]

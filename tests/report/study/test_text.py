from dataclasses import replace

import pytest

from nbt.report.formatting import join_words
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.text import (
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


def said(record: StudyRecord) -> str:
    return headline(record, current_recommendation(record)).replace("\N{EN DASH}", "-").replace("\N{MINUS SIGN}", "-")


def interval(mean: float, low: float | None, high: float | None, n: int = 5) -> Interval:
    return Interval(mean=mean, low=low, high=high, n=n)


def test_the_headline_says_what_how_good_how_sure_and_against_what() -> None:
    assert said(sample_study()) == (
        "Use the settings of trial 12: 70.6 % validation accuracy (95 % interval 69.6-71.6 %, 5 seeds), 4.5 points "
        "better than the default recipe (95 % interval +4.1 to +4.9)."
    )


def test_what_cannot_be_told_apart_is_not_called_better() -> None:
    listed = finals()
    close = replace(listed[0], versus_default=interval(0.004, -0.009, 0.017))
    text = said(sample_study(finals=(close, *listed[1:])))
    assert text.endswith("it cannot be told apart from the default recipe (+0.4 points, 95 % interval -0.9 to +1.7).")
    assert "better" not in text


def test_an_interval_that_touches_zero_tells_nothing_apart() -> None:
    assert "cannot be told apart" in comparison_to_default(interval(0.01, 0.0, 0.02))
    assert "points better" in comparison_to_default(interval(0.01, 0.0001, 0.02))
    assert "2.0 points worse" in comparison_to_default(interval(-0.02, -0.03, -0.01))


def test_one_seed_tells_nothing_apart() -> None:
    one = final("trial 12", 12, BEST, [0.71], default=[0.66])
    text = said(sample_study(finals=(one, final("default recipe", 0, DEFAULT, [0.66]))))
    assert "one seed, so without an interval" in text
    assert "cannot be told apart from the default recipe by one seed (+5.0 points)" in text


def test_the_default_recipe_may_win() -> None:
    text = said(sample_study(recommended="default recipe"))
    assert text.startswith("Use the default recipe: 66.1 % validation accuracy (95 % interval")
    assert text.endswith("nothing that the search found has a better mean.")


def test_without_a_run_of_the_default_recipe_there_is_no_comparison() -> None:
    alone = (replace(finals()[0], versus_default=None),)
    assert said(sample_study(finals=alone)).endswith("the default recipe was not run beside it.")


def test_before_the_finals_it_says_that_nothing_is_confirmed() -> None:
    text = said(unfinished_study())
    assert text.startswith("For now, use trial 12: 71.2 % validation accuracy (± 5.1 points at 95 %) in a single run")
    assert "+5.1 points against the default recipe's single run, no more than validation noise alone can make" in text
    assert text.endswith("final runs on new seeds have not confirmed it yet.")
    sure = said(unfinished_study(noise=0.01))
    assert "noise alone" not in sure


def test_before_the_finals_the_default_recipe_may_lead() -> None:
    record = unfinished_study(trials=(trial(0, settings=DEFAULT, curve=curve(0.66)),), noise=None)
    assert said(record).startswith("For now, use the default recipe: 66.0 % validation accuracy in a single run;")


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
    assert said(empty_study(trials=trials)).startswith("Nothing can be recommended yet")


def test_a_recipe_in_a_sentence() -> None:
    assert recipe_sentence(DEFAULT) == "It keeps all pretrained weights and freezes nothing."
    assert recipe_sentence(DEFAULT.replace(frozen_depth=1.0)) == (
        "It keeps all pretrained weights and trains the head alone."
    )
    scratch = TransferSettings(transfer_depth=0.0)
    assert recipe_sentence(scratch) == "It starts from random weights and freezes nothing."
    text = recipe_sentence(BEST)
    assert "first 80 % of the units, freezes the first 35 % of the units" in text
    assert "60 % of the weight decay (L2-SP)" in text
    assert "slowest at the input of the backbone (0.063 of the body's rate)" in text


def test_choosing_on_one_split_is_named() -> None:
    record = sample_study()
    text = optimism(record, current_recommendation(record))
    assert "trial 12 reached 71.2 % on its one split, picked among 10 full-length trials" in text
    assert "its mean is 70.6 % (\N{MINUS SIGN}0.6 points)" in text
    assert optimism(unfinished_study(), current_recommendation(unfinished_study())) == ""


def test_the_test_result_has_wilson_intervals_and_the_number_of_looks() -> None:
    text = test_sentence(sample_study()).replace("\N{EN DASH}", "-")
    assert "On 1174 test images the recommendation reaches 69.5 % (95 % Wilson interval 66.8-72.1 %)" in text
    assert "the default recipe 65.1 % (95 % Wilson interval 62.3-67.8 %)" in text
    assert "the intervals overlap, so the test images alone do not settle which is better" in text
    assert "evaluated once, after the choice was made" in text
    assert "3 times in this study" in test_sentence(sample_study(test_evaluations=3))
    assert test_sentence(empty_study()) == "The test images have not been looked at."
    for looks, often in ((1, "once"), (3, "3 times")):
        earlier = test_sentence(sample_study(test=(), test_evaluations=looks))
        assert earlier == f"The test images were evaluated {often} in this study, but not for this recommendation."


def test_test_intervals_apart_are_called_apart() -> None:
    def result(name: str, mean: float) -> TestRecord:
        return TestRecord(name=name, accuracy=interval(mean, mean - 0.01, mean + 0.01, 900), loss=None, n=900)

    better = sample_study(test=(result("recommended", 0.8), result("baseline", 0.7)))
    assert "the intervals do not overlap" in test_sentence(better)
    worse = sample_study(test=(result("recommended", 0.7), result("baseline", 0.8)))
    assert "the default recipe is the better one here" in test_sentence(worse)
    alone = sample_study(test=(result("recommended", 0.7),))
    assert "default recipe" not in test_sentence(alone)


def test_importance_says_what_it_rests_on() -> None:
    assert "10 full-length trials" in importance_sentence(sample_study())
    assert "a hint, not a finding" in importance_sentence(sample_study())
    many = [trial(i, settings=sampled(i), curve=curve(0.5)) for i in range(30)]
    assert "hint" not in importance_sentence(sample_study(trials=tuple(many)))
    assert "Too few full-length trials" in importance_sentence(empty_study())


def test_the_order_of_trials_is_explained() -> None:
    assert "within one standard error (± 2.6 points)" in ranking_sentence(sample_study())
    assert ranking_sentence(empty_study()) == "Full-length trials come first, by validation accuracy."


def test_lists_are_joined() -> None:
    assert [join_words(list(items)) for items in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]

from dataclasses import replace

from nbt.report.priors.text import correlation_section, priors_section, pruning_section
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import (
    curve,
    empty_study,
    forecast,
    guide,
    guided_study,
    sample_study,
    source,
    trial,
)


def said(record: StudyRecord) -> str:
    return " ".join(pruning_section(record).sentences)


def test_sources_are_rows_with_weights_and_a_verdict() -> None:
    row = priors_section(guided_study()).sources[1]
    assert (row.name, row.words) == ("effective rate by similarity", "what effective rate by similarity says")
    assert (row.before, row.after) == ("+0.30 ± 0.40", "\N{MINUS SIGN}0.05 ± 0.10")
    assert (row.agreement, row.verdict) == ("\N{MINUS SIGN}0.41 (n = 10)", "contradicted")


def test_few_trials_say_so_and_no_agreement_is_a_dash() -> None:
    sources = [source("a", 0.1, 0.9, None, trials=4), source("b", 0.1, 0.1, None)]
    section = priors_section(sample_study(prior_diagnostics={**guide(), "sources": sources}))
    assert [row.agreement for row in section.sources] == ["too few trials (4)", "\N{EN DASH}"]
    assert "do not settle" in section.sentences[-1]


def test_without_tables_the_expectation_rests_on_rules() -> None:
    text = " ".join(priors_section(sample_study(prior_diagnostics={**guide(), "tables": []})).sentences)
    assert "rests on rules alone" in text
    assert "Experience was" not in text


def test_a_guide_that_had_nothing_to_say_says_so() -> None:
    section = priors_section(sample_study(prior_diagnostics={"sources": [], "silent": [], "tables": []}))
    assert "0 heuristics fired" in section.sentences[0]
    assert "Nothing was expected beforehand" in section.sentences[-1]
    assert section.legend == ""


def test_a_plain_sampler_and_a_search_under_way_are_told_apart() -> None:
    assert "Nothing guided the search" in priors_section(sample_study()).sentences[0]
    first = trial(4, "running", origin="recommended: profile and experience")
    assert priors_section(empty_study(trials=(first,))).sentences[0].startswith("The search is guided")


def test_no_control_is_no_rate() -> None:
    stopped = trial(0, "pruned", facts={"forecast": forecast(0.5, last=2, would_stop=2)})
    text = said(empty_study(trials=(stopped,)))
    assert "cannot tell how often stopping was wrong" in text
    assert "0.0 %" not in text
    running = trial(1, "pruned", facts={"forecast": forecast(0.5, last=4, would_stop=2, control=True)})
    assert "Of 1 more control the outcome is not known." in said(empty_study(trials=(stopped, running)))


def test_no_false_stop_has_an_interval_that_is_not_nothing() -> None:
    control = trial(0, curve=curve(0.5), facts={"forecast": forecast(0.5, last=11, would_stop=3, control=True)})
    text = said(empty_study(trials=(control,)))
    assert "Of 1 trial found hopeless that ran on as random controls, none beat the accuracy to beat" in text
    assert "0.0 % (95 % Wilson interval 0.0\N{EN DASH}79.3 %)" in text
    assert text.startswith("No trial was stopped early")


def test_other_pruners_and_none_say_what_they_did() -> None:
    assert "lets no stopped trial run on" in said(sample_study())
    assert said(empty_study(pruner="none")) == "No trial was stopped early (pruner none)."
    assert pruning_section(sample_study()).rows == ()


def test_spared_first_recipes_are_told_beside_the_rate() -> None:
    text = said(guided_study())
    assert "Of the first recipes, which are never stopped, 1 would have been; none of them beat" in text
    assert "not part of the rate" in text


def test_rows_tell_what_became_of_each() -> None:
    rows = {row.number: row for row in pruning_section(guided_study()).rows}
    assert (rows[4].decision, rows[4].outcome, rows[4].reason) == ("stopped", "not known", "rank 5 of 6 after 2 epochs")
    assert (rows[4].mean, rows[4].interval, rows[4].to_beat) == ("50.0 %", "45.0\N{EN DASH}55.0 %", "66.1 %")
    assert rows[10].outcome == "65.5 %, beat it"
    assert rows[3].outcome == "60.4 %, did not beat it"
    assert (rows[10].chance, rows[10].reason) == ("2.0 %", "")


def test_measures_stand_beside_the_depth_itself() -> None:
    section = correlation_section(sample_study(profile=profile_dict()))
    assert section is not None
    ridge, logme = section.rows[0], section.rows[2]
    assert (ridge.label, ridge.trials) == ("ridge probe", "9 and 7")
    assert ridge.transfer == ridge.transfer_baseline == "\N{MINUS SIGN}0.21"
    assert ridge.frozen == ridge.frozen_baseline == "\N{EN DASH}", "too few trials freeze anything"
    assert (logme.transfer, logme.transfer_baseline) == ("\N{EN DASH}", "\N{MINUS SIGN}0.21")
    assert "Of 9 unrelated trials chance alone gives up to ± 0.52" in section.sentence


def test_too_few_trials_for_the_measures() -> None:
    record = sample_study(profile=profile_dict())
    section = correlation_section(replace(record, trials=record.trials[:4]))
    assert section is not None
    assert section.rows == ()
    assert "cannot be said from 4 full-length trials" in section.sentence
    assert correlation_section(sample_study()) is None

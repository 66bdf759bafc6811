from dataclasses import replace

import pytest

from nbt.report.fit.correlation_section import correlation_section
from nbt.report.priors.priors_section import priors_section
from nbt.report.priors.pruning_section import pruning_section
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import (
    curve,
    empty_study,
    forecast,
    sample_study,
    source,
    stored_diagnostics,
    study_with_priors,
    trial,
)


def pruning_text(record: StudyRecord) -> str:
    return " ".join(pruning_section(record).sentences)


def test_sources_are_rows_with_weights_and_a_verdict() -> None:
    row = priors_section(study_with_priors()).sources[1]
    assert (row.name, row.description) == ("effective rate by similarity", "proposal of effective rate by similarity")
    assert (row.weight_before, row.weight_after) == ("+0.30 ± 0.40", "\N{MINUS SIGN}0.05 ± 0.10")
    assert (row.agreement, row.verdict) == ("\N{MINUS SIGN}0.41 (n = 10)", "contradicted")


def test_agreement_of_few_trials_or_constant_predictions() -> None:
    sources = [source("a", 0.1, 0.9, None, trials=4), source("b", 0.1, 0.1, None)]
    section = priors_section(sample_study(prior_diagnostics={**stored_diagnostics(), "sources": sources}))
    assert [row.agreement for row in section.sources] == ["too few trials (4)", "\N{EN DASH}"]
    assert "neither confirm nor contradict" in section.sentences[-1]


def test_without_recorded_tasks_expectations_rest_on_priors() -> None:
    text = " ".join(priors_section(sample_study(prior_diagnostics={**stored_diagnostics(), "tables": []})).sentences)
    assert "rest on the priors alone" in text
    assert "No recorded tables were used" in text


@pytest.mark.parametrize(
    "names", [["recorded tasks"], ["recorded: sketch7", "recorded: digits"]], ids=["now", "earlier"]
)
def test_recorded_tasks_are_no_priors(names: list[str]) -> None:
    """Earlier versions had one source per recorded table."""
    sources = [source("a", 0.1, 0.9, 0.2), *(source(name, 0.5, 0.5, 0.2) for name in names)]
    section = priors_section(sample_study(prior_diagnostics={**stored_diagnostics(), "sources": sources}))
    assert section.sentences[0].startswith("1 prior was active")
    assert [row.name for row in section.sources] == ["a", *names]


def test_no_sources_are_reported() -> None:
    section = priors_section(sample_study(prior_diagnostics={"sources": [], "silent": [], "tables": []}))
    assert section.sentences[0] == "0 priors were active."
    assert "There were no prior expectations" in section.sentences[-1]
    assert section.legend == ""


def test_search_without_priors_and_pending_diagnostics_are_distinguished() -> None:
    assert "The search used no priors" in priors_section(sample_study()).sentences[0]
    first = trial(4, "running", origin="recommended: profile and experience")
    assert priors_section(empty_study(trials=(first,))).sentences[0].startswith("The search uses priors")


def test_without_controls_there_is_no_rate() -> None:
    stopped = trial(0, "pruned", facts={"forecast": forecast(0.5, last=2, would_stop=2)})
    text = pruning_text(empty_study(trials=(stopped,)))
    assert "the false-stop rate of this study is unknown" in text
    assert "0.0 %" not in text
    running = trial(1, "pruned", facts={"forecast": forecast(0.5, last=4, would_stop=2, control=True)})
    assert "The outcome of 1 more control is unknown." in pruning_text(empty_study(trials=(stopped, running)))


def test_rate_of_zero_has_an_interval() -> None:
    control = trial(0, curve=curve(0.5), facts={"forecast": forecast(0.5, last=11, would_stop=3, control=True)})
    text = pruning_text(empty_study(trials=(control,)))
    assert "Of 1 unpromising trial that continued as random controls, none exceeded the accuracy to beat" in text
    assert "0.0 % (95 % Wilson interval 0.0\N{EN DASH}79.3 %)" in text
    assert text.startswith("No trial was stopped early")


def test_other_pruners_and_no_pruner() -> None:
    assert "has no control trials, so its false-stop rate is unknown" in pruning_text(sample_study())
    assert pruning_text(empty_study(pruner="none")) == "No trial was stopped early (pruner none)."
    assert pruning_section(sample_study()).rows == ()


def test_unpromising_baseline_recipes_are_counted_separately() -> None:
    text = pruning_text(study_with_priors())
    assert "Of the baseline recipes, which are never stopped, 1 was unpromising; none of them exceeded" in text
    assert "do not count towards the rate" in text


def test_rows_contain_decisions_and_outcomes() -> None:
    rows = {row.number: row for row in pruning_section(study_with_priors()).rows}
    assert (rows[4].decision, rows[4].outcome, rows[4].reason) == ("stopped", "unknown", "rank 5 of 6 after 2 epochs")
    assert (rows[4].mean, rows[4].interval, rows[4].to_beat) == ("50.0 %", "45.0\N{EN DASH}55.0 %", "66.1 %")
    assert rows[10].outcome == "65.5 %, beat it"
    assert rows[3].outcome == "60.4 %, did not beat it"
    assert (rows[10].chance, rows[10].reason) == ("2.0 %", "")


def test_measures_are_compared_to_the_depth_itself() -> None:
    section = correlation_section(sample_study(profile=profile_dict()))
    assert section is not None
    ridge, logme = section.rows[0], section.rows[2]
    assert (ridge.label, ridge.trials) == ("ridge probe", "9 and 7")
    assert ridge.transfer == ridge.transfer_baseline == "\N{MINUS SIGN}0.21"
    assert ridge.frozen == ridge.frozen_baseline == "\N{EN DASH}", "too few trials freeze anything"
    assert (logme.transfer, logme.transfer_baseline) == ("\N{EN DASH}", "\N{MINUS SIGN}0.21")
    assert "tau of 9 trials lies within ± 0.52 in 95 % of cases" in section.sentence


def test_too_few_trials_for_the_measures() -> None:
    record = sample_study(profile=profile_dict())
    section = correlation_section(replace(record, trials=record.trials[:4]))
    assert section is not None
    assert section.rows == ()
    assert section.sentence.endswith("requires 8 full-length trials that did not diverge; there are 4.")
    assert correlation_section(sample_study()) is None

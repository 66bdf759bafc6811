"""The card "answer": the test result beside the default recipe and always guessing, failed checks, and what to do."""

from __future__ import annotations

import shlex

from nbt.metrics import METRICS
from nbt.report.formatting import (
    DASH,
    Fact,
    TemplateData,
    difference_interval,
    difference_number,
    duration,
    one_line,
    pluralise,
    score_interval,
    score_text,
)
from nbt.report.metric_text import bounds_text, difference_bounds_text, difference_text, guess_text, value_text
from nbt.report.study.cards.card import Card, StudyView
from nbt.report.study.headline import Z95, error_text, headline, reference_of, validation_sentences
from nbt.report.study.recommendation import default_recipe_trial
from nbt.report.study.transfer_evidence import transfer_evidence
from nbt.tuning.finals.test_results import TestResult, TestResults
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import StudyRecord


class Answer(Card):
    """What to use, how good it is, and what to do next."""

    name = "answer"
    title = "Answer"
    style = "half"

    def content(self, study: StudyView) -> TemplateData:
        """Returns headline, tiles, failed checks, notes and the next step; every study has an answer."""
        return TemplateData(
            headline=headline(study.record, study.recommendation),
            explanation=(
                *validation_sentences(study.record, study.recommendation),
                *transfer_evidence(study.record, study.recommendation),
            ),
            next_step=next_step(study),
            tiles=tiles(study),
            failed_checks=[check for check in study.checks if check.is_failed],
            notes=tuple(one_line(note) for note in study.record.notes),
        )


def next_step(study: StudyView) -> str:
    """Returns one sentence of what to do."""
    errors = [check for check in study.checks if check.is_failed and check.severity == "error"]
    if errors:
        return f"Before you use this result, see {errors[0].code}: {errors[0].advice}"
    if study.recommendation is None:
        return "Continue the search with a larger --budget, until a trial reaches its full length."
    if study.recommendation.final is None:
        return "Let the search finish: the same command continues it, with final runs and the test evaluation."
    if study.has_model:
        command = shlex.join(["nbt", "predict", str(study.folder / "model")])
        return f"Classify your images with the trained model: {command} IMAGES..."
    return "Train a model with the recommended settings; the command stands under Reproduce."


def tiles(study: StudyView) -> tuple[Fact, ...]:
    """Returns the test results and the validation; before the test, validation, difference and budget."""
    results, recommendation = study.test, study.recommendation
    validation = _validation_tile(study)
    if results is None or recommendation is None:
        test = Fact(f"Test {study.metric.label}", DASH, "not evaluated yet")
        return validation, _difference_tile(study), test, _budget_tile(study.record)
    metric = results.recommended.metric
    guessing = guess_text(metric).capitalize()
    return (
        _test_tile(f"Test {METRICS[metric].label}", results.recommended, pluralise(results.recommended.n, "image")),
        _baseline_tile(results, recommendation.is_default),
        Fact(guessing, DASH, "no stored predictions")
        if results.majority is None
        else _test_tile(guessing, results.majority, "same images"),
        validation if results.optimism is None else _with_optimism(validation, metric, results.optimism),
    )


def _test_tile(label: str, result: TestResult, note: str) -> Fact:
    if result.value is None:
        return Fact(label, DASH, "no stored predictions")
    interval = "" if result.value.low is None else f"{bounds_text(result.metric, result.value)}, "
    return Fact(label, value_text(result.metric, result.value.mean), f"{interval}{note}")


def _baseline_tile(results: TestResults, is_default: bool) -> Fact:
    label, metric = "Test of the default recipe", results.recommended.metric
    if is_default:
        return Fact(label, "the same", "the default recipe is recommended")
    if results.baseline is None:
        return Fact(label, DASH, "not evaluated")
    if results.difference is None:
        return _test_tile(label, results.baseline, "same images")
    difference = difference_text(metric, results.difference.mean)
    bounds = difference_bounds_text(metric, results.difference)
    return _test_tile(label, results.baseline, f"recommended {difference}, {bounds}")


def _with_optimism(validation: Fact, metric: str, optimism: Interval) -> Fact:
    difference = difference_text(metric, optimism.mean)
    bounds = "" if optimism.low is None else f", {difference_bounds_text(metric, optimism)}"
    return Fact(validation.label, validation.value, f"{validation.note}; minus test {difference}{bounds}")


def _validation_tile(study: StudyView) -> Fact:
    metric, recommendation, noise = study.metric, study.recommendation, study.record.noise
    label = f"Validation {metric.label}"
    if recommendation is not None and recommendation.final is not None:
        validation = recommendation.final.validation
        runs = pluralise(validation.n, "seed")
        return Fact(
            label,
            score_text(validation.mean, metric),
            runs if validation.low is None else f"{score_interval(validation, metric)}, {runs}",
        )
    if recommendation is not None and recommendation.trial is not None:
        score = recommendation.trial.score(metric.name) or 0.0
        error = "" if noise is None else f", ± {error_text(Z95 * noise, metric, score)}"
        return Fact(label, score_text(score, metric), f"one run{error}")
    return Fact(label, DASH, "no full-length trial yet")


def _difference_tile(study: StudyView) -> Fact:
    label, recommendation = "Difference from default", study.recommendation
    if recommendation is not None and recommendation.is_default:
        return Fact(label, "is the default", "no better settings were found")
    if recommendation is not None and recommendation.final is not None:
        versus = recommendation.final.versus_default
        if versus is None:
            return Fact(label, DASH, "the default was not run in the finals")
        metric, reference = reference_of(study.record, recommendation.final)
        note = "one seed" if versus.low is None else f"{difference_interval(versus, metric, reference)}, paired"
        return Fact(label, f"{difference_number(versus.mean, metric, reference)} {metric.difference_unit}", note)
    baseline = default_recipe_trial(study.record)
    if recommendation is None or recommendation.trial is None or baseline is None:
        return Fact(label, DASH, "not measured yet")
    metric = study.metric
    reference = baseline.score(metric.name) or 0.0
    difference = (recommendation.trial.score(metric.name) or 0.0) - reference
    return Fact(label, difference_number(difference, metric, reference), f"{metric.difference_unit}, one run each")


def _budget_tile(record: StudyRecord) -> Fact:
    counts = record.counts()
    ended = pluralise(sum(counts[end] for end in ("complete", "pruned", "failed")), "trial")
    if record.cost_budget is None:
        return Fact("Time spent", duration(record.seconds_spent), f"of {record.budget}, {ended}")
    note = f"of {record.cost_budget}, {ended}, {duration(record.seconds_spent)}"
    return Fact("Cost of the trials", f"{record.cost:.1f}", note)

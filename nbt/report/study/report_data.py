"""Data of a study's report, computed from its record; the templates only lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbt.checks import CheckResult
from nbt.fit.fit_profile import FitProfile
from nbt.metrics import METRICS
from nbt.report.fit import conclusions, measures
from nbt.report.fit.correlation_section import correlation_section
from nbt.report.formatting import (
    DASH,
    Fact,
    TemplateData,
    difference_interval,
    difference_number,
    duration,
    format_number,
    format_timestamp,
    join_words,
    one_line,
    percent,
    pluralise,
    score_interval,
    score_text,
)
from nbt.report.metric_text import bounds_text, difference_bounds_text, difference_text, guess_text, value_text
from nbt.report.priors.priors_section import priors_section
from nbt.report.priors.pruning import STOPPED, pruning_results
from nbt.report.priors.pruning_section import pruning_section
from nbt.report.stored_values import mappings_at
from nbt.report.study import sentences
from nbt.report.study.calibration import calibration_sentence
from nbt.report.study.checks.registry import count_sentence, study_checks
from nbt.report.study.hardware import hardware_section, hardware_text
from nbt.report.study.headline import Z95, error_text, headline, reference_of, validation_sentences
from nbt.report.study.recommendation import (
    StudyRecommendation,
    current_recommendation,
    default_recipe_settings,
    default_recipe_trial,
)
from nbt.report.study.reproduce import commands
from nbt.report.study.tables import (
    failures,
    final_row,
    importance_rows,
    setting_rows,
    trial_rows,
)
from nbt.report.study.test_section import test_section
from nbt.tuning.finals.test_results import TestResult, TestResults, test_results
from nbt.tuning.intervals import Interval
from nbt.tuning.job_clock import PHASES
from nbt.tuning.storage.records import StudyConfig, StudyRecord


def build_report(
    record: StudyRecord,
    folder: Path,
    *,
    has_model: bool = False,
) -> TemplateData:
    """Returns the data of a study's report.

    Args:
        record: The study, finished or not.
        folder: Folder of the report, as it appears in the commands.
        has_model: Whether the folder contains the model of the recommendation.
    """
    recommendation, config = current_recommendation(record), record.config
    return TemplateData(
        record=record,
        recommendation=recommendation,
        title=one_line(config.name),
        subtitle=one_line(f"{config.dataset} · {config.backbone} · space {config.space}"),
        headline=headline(record, recommendation),
        explanation=_explanation(record, recommendation),
        finals_done=recommendation is not None and recommendation.final is not None,
        tiles=_tiles(record, recommendation),
        settings=() if recommendation is None else _setting_rows(config, recommendation),
        finals=tuple(final_row(record, final) for final in record.finals),
        finals_sentence=sentences.finals_sentence(record),
        optimism=sentences.optimism(record, recommendation),
        test=test_section(record),
        calibration=calibration_sentence(record),
        test_model_trained_on="train + validation" if config.scenario is None else "train, task after task",
        budget_facts=_budget_facts(record),
        budget_share_spent=min(record.epochs_spent / record.epochs_budget, 1.0) if record.epochs_budget else None,
        hardware=hardware_section(record),
        study_facts=_study_facts(record),
        ranking=sentences.ranking_sentence(record),
        trials=trial_rows(record),
        metric=METRICS[config.metric],
        failures=failures(record),
        priors=priors_section(record),
        pruning=pruning_section(record),
        fit=_fit_section(record),
        importance=importance_rows(record),
        importance_sentence=sentences.importance_sentence(record),
        **_check_data(study_checks(record)),
        notes=tuple(one_line(note) for note in record.notes),
        commands=tuple(commands(record, folder, has_settings=recommendation is not None, has_model=has_model)),
        has_model=has_model,
    )


def _check_data(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Returns the failed checks, the others, and the number of the others in words."""
    others = [result for result in results if not result.is_failed]
    return {
        "failed_checks": [result for result in results if result.is_failed],
        "other_checks": others,
        "other_checks_sentence": count_sentence(others),
    }


def _setting_rows(config: StudyConfig, recommendation: StudyRecommendation) -> tuple[TemplateData, ...]:
    """Returns the settings as `recommended.yaml` contains them."""
    return setting_rows(
        config.per_task_settings(recommendation.settings), config.per_task_settings(default_recipe_settings(config))
    )


def _fit_section(record: StudyRecord) -> TemplateData | None:
    if record.profile is None:
        return None
    profile = FitProfile.from_dict(record.profile)
    return TemplateData(
        profile=profile,
        weights="initial" if record.config.weights == "none" else "pretrained",
        sentences=tuple(conclusions.suggestions(profile)),
        uncertainty_text=conclusions.uncertainty_text([profile]),
        measures=measures.measure_rows(profile),
        left_out=tuple(measures.missing_measure_lines([profile])),
        correlation=correlation_section(record),
    )


def _explanation(record: StudyRecord, recommendation: StudyRecommendation | None) -> tuple[str, ...]:
    if recommendation is None:
        return ("recommended.yaml is written as soon as there is a full-length trial.",)
    units = len(mappings_at(record.profile or {}, "layers")) or None
    sentence = sentences.recipe_sentence(recommendation.settings, units, pretrained=record.config.weights != "none")
    validation = validation_sentences(record, recommendation)
    if recommendation.is_default:
        return (*validation, sentence)
    return (*validation, sentence, "Differences from the default recipe are marked below.")


def _tiles(record: StudyRecord, recommendation: StudyRecommendation | None) -> tuple[Fact, ...]:
    """Returns the test results and the validation; before the test, validation, difference and budget."""
    results = test_results(record)
    validation = _validation_tile(record, recommendation)
    if results is None or recommendation is None:
        difference = _difference_tile(record, recommendation)
        return validation, difference, Fact("Test accuracy", DASH, "not evaluated yet"), _budget_tile(record)
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


def _validation_tile(record: StudyRecord, recommendation: StudyRecommendation | None) -> Fact:
    metric = METRICS[record.config.metric]
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
        error = "" if record.noise is None else f", ± {error_text(Z95 * record.noise, metric, score)}"
        return Fact(label, score_text(score, metric), f"one run{error}")
    return Fact(label, DASH, "no full-length trial yet")


def _difference_tile(record: StudyRecord, recommendation: StudyRecommendation | None) -> Fact:
    label = "Difference from default"
    if recommendation is not None and recommendation.is_default:
        return Fact(label, "is the default", "no better settings were found")
    if recommendation is not None and recommendation.final is not None:
        versus = recommendation.final.versus_default
        if versus is None:
            return Fact(label, DASH, "the default was not run in the finals")
        metric, reference = reference_of(record, recommendation.final)
        note = "one seed" if versus.low is None else f"{difference_interval(versus, metric, reference)}, paired"
        return Fact(label, f"{difference_number(versus.mean, metric, reference)} {metric.difference_unit}", note)
    baseline = default_recipe_trial(record)
    if recommendation is None or recommendation.trial is None or baseline is None:
        return Fact(label, DASH, "not measured yet")
    metric = METRICS[record.config.metric]
    reference = baseline.score(metric.name) or 0.0
    difference = (recommendation.trial.score(metric.name) or 0.0) - reference
    return Fact(label, difference_number(difference, metric, reference), f"{metric.difference_unit}, one run each")


def _budget_tile(record: StudyRecord) -> Fact:
    counts = record.counts()
    ended = pluralise(sum(counts[end] for end in ("complete", "pruned", "failed")), "trial")
    if record.epochs_budget is None:
        return Fact("Time spent", duration(record.seconds_spent), f"of {record.budget}, {ended}")
    note = f"of {record.epochs_budget}, {ended}, {duration(record.seconds_spent)}"
    return Fact("Epochs spent", str(record.epochs_spent), note)


def _budget_facts(record: StudyRecord) -> tuple[Fact, ...]:
    counts = record.counts()
    diverged = sum(trial.diverged for trial in record.trials)
    states = [f"{counts['complete']} full-length", f"{counts['pruned']} pruned", f"{counts['failed']} failed"]
    states += [f"{counts[end]} {end}" for end in ("interrupted", "running") if counts[end]]
    facts = [Fact("Budget", _budget_text(record)), Fact("Epochs spent", _epochs_text(record))]
    facts.append(Fact("Trials", str(len(record.trials)), join_words(states)))
    if diverged:
        facts.append(Fact("Diverged", str(diverged), "the loss became infinite or NaN; counted as accuracy 0"))
    pruning = pruning_results(record)
    if pruning.with_decision(STOPPED):
        note = f"not trained; pruner {one_line(record.pruner)}"
        facts.append(Fact("Saved by pruning", pluralise(pruning.epochs_saved, "epoch"), note))
    facts.append(Fact("Time of the search", duration(record.seconds_spent)))
    if record.clock:
        seconds = {phase: record.clock.get(phase, 0.0) for phase in PHASES}
        parts = ", ".join(f"{phase} {duration(value)}" for phase, value in seconds.items() if value)
        facts.append(Fact("Time of the whole", duration(sum(seconds.values())), parts))
    if record.finals:
        runs = [run for final in record.finals for run in final.runs]
        epochs = sum(len(run.curve) for run in runs)
        facts.append(Fact("Final runs", str(len(runs)), f"{pluralise(epochs, 'epoch')}, not included in the budget"))
    return tuple(facts)


def _budget_text(record: StudyRecord) -> str:
    if record.epochs_budget is None:
        return record.budget
    return f"{record.budget} full-length trials = {pluralise(record.epochs_budget, 'epoch')}"


def _epochs_text(record: StudyRecord) -> str:
    if not record.epochs_budget:
        return str(record.epochs_spent)
    share = percent(record.epochs_spent / record.epochs_budget, 0)
    return f"{record.epochs_spent} of {record.epochs_budget} ({share})"


_DATA_LABELS = {
    "classes": "Classes",
    "train_images": "Training images",
    "validation_images": "Validation images",
    "test_images": "Test images",
    "imbalance": "Largest / smallest class",
    "unreadable_images": "Unreadable images",
}


def _noise_text(record: StudyRecord) -> str:
    """Returns the standard error of the best trial's value."""
    best, metric = next(iter(record.ranked()), None), METRICS[record.config.metric]
    return error_text(record.noise or 0.0, metric, 0.0 if best is None else best.score(metric.name) or 0.0)


def _study_facts(record: StudyRecord) -> tuple[Fact, ...]:
    config = record.config
    values = {
        "Dataset": one_line(config.dataset),
        "Backbone": one_line(config.backbone),
        "Weights": one_line(config.weights),
        "Search space": one_line(config.space),
        "Metric": METRICS[config.metric].label,
        **{
            label: format_number(record.dataset[key])
            for key, label in _DATA_LABELS.items()
            if record.dataset.get(key) is not None
        },
        "Image size": f"{config.image_size} px",
        "First classes used": config.classes,
        "Labelled images per class": config.shots,
        "Stream": None if config.scenario is None else f"{config.scenario}-incremental, {config.tasks} tasks",
        "Epochs per full-length trial": config.epochs,
        "Standard error of validation": None if record.noise is None else f"± {_noise_text(record)}",
        "Seed": config.seed,
        "Hardware": hardware_text(record) or None,
        "Started": format_timestamp(record.created),
    }
    return tuple(Fact(label, str(value)) for label, value in values.items() if value is not None)

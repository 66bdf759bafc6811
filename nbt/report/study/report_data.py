"""ReportData: all that a report says, computed from a study's record; templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nbt.fit.fit_profile import FitProfile
from nbt.report.fit import text as fit_text
from nbt.report.formatting import (
    DASH,
    Fact,
    duration,
    format_interval,
    format_number,
    format_timestamp,
    one_line,
    percent,
    pluralise,
    points,
    points_interval,
)
from nbt.report.priors.pruning import STOPPED, pruning
from nbt.report.priors.text import (
    CorrelationSection,
    PriorsSection,
    PruningSection,
    correlation_section,
    priors_section,
    pruning_section,
)
from nbt.report.study import text as text
from nbt.report.study.hardware import HardwareSection, hardware_section, hardware_text
from nbt.report.study.recommendation import (
    StudyRecommendation,
    current_recommendation,
    default_pretrain_settings,
    default_recipe_trial,
)
from nbt.report.study.reproduce import Command, commands
from nbt.report.study.tables import (
    Failure,
    FinalRow,
    ImportanceRow,
    SettingRow,
    TestRow,
    TrialRow,
    failures,
    final_row,
    importance_rows,
    setting_rows,
    test_row,
    trial_rows,
)
from nbt.tuning.storage.records import StudyConfig, StudyRecord


@dataclass(frozen=True, kw_only=True)
class FitSection:
    """How well the pretrained weights fit.

    Attributes:
        profile: For the plot.
        sentences: What it suggests.
        uncertainty_text: What that rests on.
        measures: All that were measured.
        left_out: Which were not, and why.
        skill: How well they told this study's trials apart; None of a profile without units.
    """

    profile: FitProfile
    sentences: tuple[str, ...]
    uncertainty_text: str
    measures: tuple[fit_text.MeasureRow, ...]
    left_out: tuple[str, ...]
    skill: CorrelationSection | None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the templates and plots show.

    Attributes:
        record: The study itself, for plots.
        choice: What is recommended; None where nothing can be.
        title: The study's name.
        subtitle: Dataset, backbone and space in a line.
        headline: What to use, how good, how sure, compared to the default recipe.
        explanation: More sentences on it.
        finals_done: Whether the finals are over.
        tiles: The few numbers that matter.
        settings: Every setting of the choice; empty without one.
        finals: Best first.
        optimism: What the search's own number of the choice was; "" before the finals.
        test: Recommended and baseline; empty before the test.
        test_sentence: The test result in words.
        spent: How the budget was spent.
        budget_share_spent: Share of the budget in epochs, 0 ... 1; None for a budget in time.
        places: Where it ran, where that was more than one place or a worker was lost.
        data: Facts on dataset, backbone and study.
        ranking: In which order the trials stand.
        trials: Best first, then what was stopped, failed or runs.
        failures: By reason.
        guide: What guided the search.
        pruning: What was stopped, and how often that was wrong.
        fit: How well the pretrained weights fit; None where it is not known.
        importance: Most important first.
        importance_sentence: What it rests on.
        notes: What else a reader must know.
        commands: How to make it again.
        has_model: `model/` is in the folder and of what is recommended.
    """

    record: StudyRecord
    choice: StudyRecommendation | None
    title: str
    subtitle: str
    headline: str
    explanation: tuple[str, ...]
    finals_done: bool
    tiles: tuple[Fact, ...]
    settings: tuple[SettingRow, ...]
    finals: tuple[FinalRow, ...]
    optimism: str
    test: tuple[TestRow, ...]
    test_sentence: str
    test_model_trained_on: str
    spent: tuple[Fact, ...]
    budget_share_spent: float | None
    places: HardwareSection
    data: tuple[Fact, ...]
    ranking: str
    trials: tuple[TrialRow, ...]
    failures: tuple[Failure, ...]
    guide: PriorsSection
    pruning: PruningSection
    fit: FitSection | None
    importance: tuple[ImportanceRow, ...]
    importance_sentence: str
    notes: tuple[str, ...]
    commands: tuple[Command, ...]
    has_model: bool


def build_report(
    record: StudyRecord,
    folder: Path,
    *,
    has_model: bool = False,
    run_options: Mapping[str, str] = MappingProxyType({}),
) -> ReportData:
    """Returns what a report on the study says.

    Args:
        record: The study, finished or not.
        folder: The report's folder, as commands should name it.
        has_model: The model of what is recommended is in it.
        elsewhere: As in `nbt.report.study.reproduce.commands`.
    """
    choice, config = current_recommendation(record), record.config
    return ReportData(
        record=record,
        choice=choice,
        title=one_line(config.name),
        subtitle=one_line(f"{config.dataset} · {config.backbone} · space {config.space}"),
        headline=text.headline(record, choice),
        explanation=_explanation(choice),
        finals_done=choice is not None and choice.final is not None,
        tiles=_tiles(record, choice),
        settings=() if choice is None else _setting_rows(config, choice),
        finals=tuple(final_row(final, final.name == record.recommended) for final in record.finals),
        optimism=text.optimism(record, choice),
        test=tuple(test_row(test) for test in record.test),
        test_sentence=text.test_sentence(record),
        test_model_trained_on="train + validation" if config.scenario is None else "train, task after task",
        spent=_spent_facts(record),
        budget_share_spent=min(record.epochs_spent / record.epochs_budget, 1.0) if record.epochs_budget else None,
        places=hardware_section(record),
        data=_data_facts(record),
        ranking=text.ranking_sentence(record),
        trials=trial_rows(record),
        failures=failures(record),
        guide=priors_section(record),
        pruning=pruning_section(record),
        fit=_fit_section(record),
        importance=importance_rows(record),
        importance_sentence=text.importance_sentence(record),
        notes=tuple(one_line(note) for note in record.notes),
        commands=tuple(
            commands(record, folder, has_settings=choice is not None, has_model=has_model, run_options=run_options)
        ),
        has_model=has_model,
    )


def _setting_rows(config: StudyConfig, choice: StudyRecommendation) -> tuple[SettingRow, ...]:
    """Returns the settings as `recommended.yaml` has them."""
    return setting_rows(
        config.per_task_settings(choice.settings), config.per_task_settings(default_pretrain_settings(config))
    )


def _fit_section(record: StudyRecord) -> FitSection | None:
    if record.profile is None:
        return None
    profile = FitProfile.from_dict(record.profile)
    return FitSection(
        profile=profile,
        sentences=tuple(fit_text.suggestions(profile)),
        uncertainty_text=fit_text.uncertainty_text([profile]),
        measures=fit_text.measure_rows(profile),
        left_out=tuple(fit_text.missing_measure_lines([profile])),
        skill=correlation_section(record),
    )


def _explanation(choice: StudyRecommendation | None) -> tuple[str, ...]:
    if choice is None:
        return ("recommended.yaml is written as soon as there is a full-length trial.",)
    if choice.is_default:
        return (text.recipe_sentence(choice.settings),)
    return (text.recipe_sentence(choice.settings), "Where it differs from the default recipe is marked below.")


def _tiles(record: StudyRecord, choice: StudyRecommendation | None) -> tuple[Fact, ...]:
    return (
        _validation_tile(record, choice),
        _difference_tile(record, choice),
        _test_tile(record),
        _budget_tile(record),
    )


def _validation_tile(record: StudyRecord, choice: StudyRecommendation | None) -> Fact:
    label = "Validation accuracy"
    if choice is not None and choice.final is not None:
        validation = choice.final.validation
        runs = pluralise(validation.n, "seed")
        return Fact(
            label,
            percent(validation.mean),
            runs if validation.low is None else f"{format_interval(validation)}, {runs}",
        )
    if choice is not None and choice.trial is not None:
        error = "" if record.noise is None else f", ± {points(text.Z95 * record.noise, signed=False)} points"
        return Fact(label, percent(choice.trial.val_accuracy), f"one run{error}")
    return Fact(label, DASH, "no full-length trial yet")


def _difference_tile(record: StudyRecord, choice: StudyRecommendation | None) -> Fact:
    label = "Against the default"
    if choice is not None and choice.is_default:
        return Fact(label, "is the default", "nothing better was found")
    if choice is not None and choice.final is not None:
        versus = choice.final.versus_default
        if versus is None:
            return Fact(label, DASH, "the default was not run beside it")
        note = "one seed" if versus.low is None else f"{points_interval(versus)}, paired"
        return Fact(label, f"{points(versus.mean)} points", note)
    baseline = default_recipe_trial(record)
    if choice is None or choice.trial is None or baseline is None:
        return Fact(label, DASH, "not measured yet")
    return Fact(
        label, points((choice.trial.val_accuracy or 0.0) - (baseline.val_accuracy or 0.0)), "points, one run each"
    )


def _test_tile(record: StudyRecord) -> Fact:
    test = next((test for test in record.test if test.name == "recommended"), None)
    if test is None:
        return Fact("Test accuracy", DASH, "not evaluated yet")
    return Fact("Test accuracy", percent(test.accuracy.mean), f"{format_interval(test.accuracy)}, {test.n} images")


def _budget_tile(record: StudyRecord) -> Fact:
    counts = record.counts()
    ended = pluralise(sum(counts[end] for end in ("complete", "pruned", "failed")), "trial")
    if record.epochs_budget is None:
        return Fact("Time spent", duration(record.seconds_spent), f"of {record.budget}, {ended}")
    note = f"of {record.epochs_budget}, {ended}, {duration(record.seconds_spent)}"
    return Fact("Epochs spent", str(record.epochs_spent), note)


def _spent_facts(record: StudyRecord) -> tuple[Fact, ...]:
    counts = record.counts()
    diverged = sum(trial.diverged for trial in record.trials)
    states = [f"{counts['complete']} to full length", f"{counts['pruned']} pruned", f"{counts['failed']} failed"]
    states += [f"{counts[end]} {end}" for end in ("interrupted", "running") if counts[end]]
    facts = [Fact("Budget", _budget_text(record)), Fact("Epochs spent", _epochs_text(record))]
    facts.append(Fact("Trials", str(len(record.trials)), text.join_words(states)))
    if diverged:
        facts.append(Fact("Diverged", str(diverged), "the loss left the finite numbers: counted as accuracy 0"))
    stopped = pruning(record)
    if stopped.of(STOPPED):
        note = f"not trained; pruner {one_line(record.pruner)}"
        facts.append(Fact("Saved by pruning", pluralise(stopped.saved, "epoch"), note))
    facts.append(Fact("Time of the search", duration(record.seconds_spent)))
    if record.finals:
        runs = [run for final in record.finals for run in final.runs]
        epochs = sum(len(run.curve) for run in runs)
        facts.append(Fact("Final runs", str(len(runs)), f"{pluralise(epochs, 'epoch')}, on top of the budget"))
    return tuple(facts)


def _budget_text(record: StudyRecord) -> str:
    if record.epochs_budget is None:
        return record.budget
    return f"{record.budget} full trials = {pluralise(record.epochs_budget, 'epoch')}"


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
    "imbalance": "Largest class by smallest",
    "unreadable_images": "Images left out",
}


def _data_facts(record: StudyRecord) -> tuple[Fact, ...]:
    config = record.config
    facts = [Fact("Dataset", one_line(config.dataset)), Fact("Backbone", one_line(config.backbone))]
    facts += [Fact("Weights", one_line(config.weights)), Fact("Search space", one_line(config.space))]
    facts += [
        Fact(label, format_number(record.dataset[key]))
        for key, label in _DATA_LABELS.items()
        if record.dataset.get(key) is not None
    ]
    facts.append(Fact("Image size", f"{config.image_size} px"))
    if config.classes is not None:
        facts.append(Fact("Only the first classes", str(config.classes)))
    if config.shots is not None:
        facts.append(Fact("Labelled images a class", str(config.shots)))
    if config.scenario is not None:
        facts.append(Fact("Stream", f"{config.scenario}-incremental, {config.tasks} tasks"))
    facts.append(Fact("Epochs of a full trial", str(config.epochs)))
    if record.noise is not None:
        facts.append(Fact("Standard error of one validation", f"± {points(record.noise, signed=False)} points"))
    facts.append(Fact("Seed", str(config.seed)))
    if where := hardware_text(record):
        facts.append(Fact("Ran on", where))
    facts.append(Fact("Started", format_timestamp(record.created)))
    return tuple(facts)

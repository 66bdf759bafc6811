"""What a comparison of studies shows: test results with paired differences, costs, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbt.metrics import METRICS, Metric
from nbt.report.comparison.same_data import check_same_data
from nbt.report.formatting import DASH, TemplateData, duration, format_number, join_words, one_line
from nbt.report.metric_text import bounds_text, difference_bounds_text, difference_text, value_text
from nbt.report.settings_table import flat_settings, recipe_summary, setting_descriptions, teacher_of
from nbt.report.study.recommendation import StudyRecommendation, current_recommendation, default_recipe_settings
from nbt.report.table import Cell, Column, Row, Table, row, table
from nbt.search_config import default_value, option_fields
from nbt.settings import TransferSettings
from nbt.tuning.finals.bootstrap import metric_difference
from nbt.tuning.finals.test_results import TestResult, TestResults, test_results
from nbt.tuning.intervals import Interval, interval_json, value_interval
from nbt.tuning.job_clock import PHASES
from nbt.tuning.storage.candidates import CandidateConfig
from nbt.tuning.storage.records import StudyConfig, StudyRecord, counts_text

# Options that change neither trials nor results.
_UNINTERESTING = frozenset(("study", "out", "storage", "tracking_uri", "register", "fresh", "images", "ignore"))
# What an option or setting of a backbone is in `CandidateConfig` and, for one backbone, in `StudyConfig`.
_OF_BACKBONE = ("backbone", "weights", "image_size")


@dataclass(frozen=True, eq=False)
class ComparedStudy:
    """A study of a comparison.

    Attributes:
        record: The study.
        recommendation: Its recommended settings; None without a full-length trial.
        test: Its results on the test images; None before the test evaluation.
        difference: Value of the metric minus that of the first study with a 95 % interval, paired by test image; None
            for the first study, and where predictions of the same images are not stored.
    """

    record: StudyRecord
    recommendation: StudyRecommendation | None
    test: TestResults | None
    difference: Interval | None

    @property
    def name(self) -> str:
        """Name of the study."""
        return one_line(self.record.config.name)

    @property
    def seconds(self) -> float:
        """Duration of all phases in seconds; that of the trials for studies of version 0.1."""
        return sum(self.record.clock.get(phase, 0.0) for phase in PHASES) or self.record.seconds_spent

    @property
    def default_backbone(self) -> str:
        """The backbone with which the default recipe ran."""
        return self.record.config.backbone_name(default_recipe_settings(self.record.config))

    def flat_settings(self, settings: TransferSettings) -> dict[str, Any]:
        """Returns backbone, weights and image size that settings of the study choose, and the settings per task."""
        config = self.record.config
        chosen = config.with_backbone_of(settings)
        return {
            **{name: getattr(chosen, name) for name in _OF_BACKBONE},
            **flat_settings(config.per_task_settings(settings).replace(backbone="")),
        }

    def validation(self, metric: str) -> Interval | None:
        """Returns the validation of the final runs; None before them, and for studies of another metric."""
        final = None if self.recommendation is None else self.recommendation.final
        if final is None or self.record.config.metric != metric:
            return None
        return value_interval(final.validation, METRICS[metric])


@dataclass(frozen=True, eq=False)
class StudyComparison:
    """Studies of the same images; the first one is the reference of the others.

    Attributes:
        metric: The metric of the first study.
        studies: The studies.
    """

    metric: Metric
    studies: tuple[ComparedStudy, ...]

    @property
    def title(self) -> str:
        """Names of the studies."""
        return join_words([study.name for study in self.studies])

    @property
    def sentences(self) -> list[str]:
        """One sentence per study that compares it with the first one."""
        return [_sentence(self, study) for study in self.studies[1:]]

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison in JSON types; intervals are of the metric's value, differences from the first."""
        return {"metric": self.metric.name, "studies": [self._study_json(study) for study in self.studies]}

    def _study_json(self, study: ComparedStudy) -> dict[str, Any]:
        record, recommendation = study.record, study.recommendation
        return {
            "study": record.config.name,
            "test": interval_json(_value(study.test, "recommended", self.metric.name)),
            "default_recipe": interval_json(_value(study.test, "baseline", self.metric.name)),
            "validation": interval_json(study.validation(self.metric.name)),
            "difference": interval_json(study.difference),
            "recommended": None if recommendation is None else record.config.named(recommendation.settings).to_dict(),
            "trials": record.counts(),
            "budget": record.budget,
            "epochs": record.epochs_spent,
            "seconds": study.seconds,
        }


def compare_studies(records: Sequence[StudyRecord]) -> StudyComparison:
    """Returns the comparison of studies, finished or not.

    Args:
        records: At least two studies.

    Raises:
        UsageError: They are of different data, see `check_same_data`.
    """
    check_same_data(records)
    metric = METRICS[records[0].config.metric]
    studies = [
        ComparedStudy(record, current_recommendation(record), test_results(record), _difference(record, records[0]))
        for record in records
    ]
    return StudyComparison(metric, tuple(studies))


def _difference(record: StudyRecord, first: StudyRecord) -> Interval | None:
    found, reference = (each.test_predictions("recommended") for each in (record, first))
    if record is first or found is None or reference is None or not np.array_equal(found.labels, reference.labels):
        return None
    return metric_difference(found, reference, first.config.metric)


def comparison_data(comparison: StudyComparison) -> TemplateData:
    """Returns the data of the templates."""
    return TemplateData(
        title=comparison.title,
        subtitle=one_line(f"{comparison.studies[0].record.config.dataset} · {comparison.metric.label}"),
        sentences=comparison.sentences,
        n_differences=sum(study.difference is not None for study in comparison.studies),
        results=_results_table(comparison),
        costs=_cost_table(comparison.studies),
        options=_options_table(comparison.studies),
        settings=_settings_table(comparison.studies),
    )


def _sentence(comparison: StudyComparison, study: ComparedStudy) -> str:
    """Returns the comparison of a study with the first one; "better" and "worse" need an interval without 0."""
    first, metric, difference = comparison.studies[0], comparison.metric, study.difference
    missing = [other.name for other in (first, study) if other.test is None]
    if missing:
        return f"{join_words(missing)}: the test images have not been evaluated."
    if difference is None:
        return (
            f"{study.name} and {first.name}: predictions of the same test images are not stored, so that the "
            "difference has no interval."
        )
    text = f"{difference_text(metric.name, difference.mean)} test {metric.label}"
    bounds = f"95 % interval {difference_bounds_text(metric.name, difference)}, paired by image"
    if difference.low is None or difference.high is None or difference.low <= 0.0 <= difference.high:
        return f"{study.name} cannot be distinguished from {first.name}: {text} ({bounds})."
    word = "better" if (difference.mean > 0) == metric.higher_is_better else "worse"
    return f"{study.name} is {word} than {first.name}: {text} ({bounds})."


def _value(results: TestResults | None, name: str, metric: str) -> Interval | None:
    result: TestResult | None = None if results is None else getattr(results, name)
    return None if result is None else result.metrics.get(metric)


def _results_table(comparison: StudyComparison) -> Table:
    metric = comparison.metric.name
    interval = Column("95 % interval", "n")
    columns = [
        Column("study", "w"),
        Column(f"test {comparison.metric.label}", "n"),
        interval,
        Column(f"difference, {comparison.metric.difference_unit}", "n"),
        interval,
        Column("default recipe", "n wide"),
        Column("validation", "n wide"),
        Column("95 % interval", "n wide"),
    ]
    rows = []
    several = len({study.default_backbone for study in comparison.studies}) > 1 or any(
        study.record.config.candidates for study in comparison.studies
    )
    for study in comparison.studies:
        tested, difference = _value(study.test, "recommended", metric), study.difference
        baseline = _cells(metric, _value(study.test, "baseline", metric))[0]
        default = Cell(baseline, note=study.default_backbone if several else "")
        cells: list[str | Cell] = [*_cells(metric, tested), *_difference_cells(metric, difference), default]
        cells += _cells(metric, study.validation(metric))
        rows.append(row(Cell(study.name, note=_recipe(study, several)), *cells))
    return table("Results on the same test images", columns, rows, n_shown=len(rows))


def _recipe(study: ComparedStudy, with_backbone: bool) -> str:
    if study.recommendation is None:
        return ""
    settings = study.recommendation.settings
    name = f"{study.record.config.backbone_name(settings)}: " if with_backbone else ""
    return f"{name}{recipe_summary(settings, teacher_of(study.record.config, settings))}"


def _cells(metric: str, interval: Interval | None) -> tuple[str, str]:
    return (DASH, DASH) if interval is None else (value_text(metric, interval.mean), bounds_text(metric, interval))


def _difference_cells(metric: str, interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return DASH, DASH
    return difference_text(metric, interval.mean, unit=False), difference_bounds_text(metric, interval)


def _cost_table(studies: Sequence[ComparedStudy]) -> Table:
    columns = [Column("study", "w"), Column("budget", "n"), Column("epochs", "n"), Column("trials", "n")]
    columns += [Column("time of the trials", "n"), Column("whole time", "n"), Column("final runs", "n wide")]
    rows = []
    for study in studies:
        record = study.record
        rows.append(
            row(
                Cell(study.name, note=counts_text(record.trials)),
                record.budget or DASH,
                record.epochs_spent,
                len(record.trials),
                duration(record.seconds_spent),
                duration(study.seconds),
                sum(len(final.runs) for final in record.finals),
            )
        )
    return table("Budget and time", columns, rows, n_shown=len(rows))


def _options_table(studies: Sequence[ComparedStudy]) -> Table:
    """Returns the options of the searches that differ."""
    stored = [_options(study.record) for study in studies]
    rows = []
    for name, option in option_fields().items():
        values = [config.get(name, default_value(name)) for config in stored]
        shown = [(option.when_none or DASH) if value is None else one_line(format_number(value)) for value in values]
        if name not in _UNINTERESTING and len(set(shown)) > 1:
            rows.append(row(name, *shown))
    return _by_study("Options of the searches that differ", "option", studies, rows)


def _options(record: StudyRecord) -> dict[str, Any]:
    """Returns the options of a search, with the backbones, weights and image sizes that it used."""
    options, config = record.search_config().to_record(), record.config
    options.pop("backbones", None)
    backbones: Sequence[CandidateConfig | StudyConfig] = config.candidates or (config,)
    used = {name: ", ".join(str(getattr(backbone, name)) for backbone in backbones) for name in _OF_BACKBONE}
    return options | used


def _settings_table(studies: Sequence[ComparedStudy]) -> Table:
    """Returns the recommended settings that differ, with the default recipe as the last column."""
    recommended = [study for study in studies if study.recommendation is not None]
    flat = [_flat(study) for study in recommended]
    meanings = setting_descriptions()
    defaults = [study.flat_settings(default_recipe_settings(study.record.config)) for study in studies]
    default = {
        name: value if all(other.get(name) == value for other in defaults) else "differs"
        for name, value in defaults[0].items()
    }
    rows = [
        row(Cell(name, note=meanings.get(name, "")), *(format_number(values.get(name)) for values in (*flat, default)))
        for name in dict.fromkeys(name for values in (default, *flat) for name in values)
        if len({values.get(name) for values in flat}) > 1
    ]
    return _by_study("Recommended settings that differ", "setting", recommended, rows, "default recipe")


def _flat(study: ComparedStudy) -> Mapping[str, Any]:
    assert study.recommendation is not None
    return study.flat_settings(study.recommendation.settings)


def _by_study(caption: str, label: str, studies: Sequence[ComparedStudy], rows: Sequence[Row], *more: str) -> Table:
    columns = [Column(label), *(Column(study.name, "n") for study in studies), *(Column(name, "n") for name in more)]
    return table(caption, columns, rows, n_shown=len(rows))

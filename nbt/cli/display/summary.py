"""Summaries of a finished search and of a training with known settings, as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nbt.api.results import TrainResult
from nbt.cli.display.check_lines import check_lines
from nbt.cli.display.output import interval_text, metric_interval_text, relative_path
from nbt.cli.display.tables import grid
from nbt.metrics import METRICS
from nbt.report.formatting import duration, percent, pluralise
from nbt.report.metric_text import guess_text
from nbt.report.study.checks.registry import study_checks
from nbt.report.study.hardware import hardware_summary, lost_workers, used_several_locations
from nbt.report.study.reproduce import commands
from nbt.report.study.test_section import weakest, weakest_classes
from nbt.settings import SETTINGS, TransferSettings
from nbt.tuning.finals.test_results import ClassResult, TestResult, TestResults, test_results
from nbt.tuning.intervals import Interval, difference_interval, value_interval
from nbt.tuning.storage.records import StudyRecord


def search_summary(record: StudyRecord, recommended: TransferSettings, report: Path) -> list[RenderableType]:
    """Returns the summary of a finished search: recommended settings, their results, the cost, and the next steps.

    Args:
        record: The study.
        recommended: The recommended settings.
        report: The report, in the folder of the study.
    """
    name = record.recommended or "recommended settings"
    report = relative_path(report)
    has_model = record.config.scenario is None
    next_commands = commands(record, report.parent, has_settings=True, has_model=has_model)
    return [
        _heading(f"{record.config.name}: {name}"),
        *([_indented(record.verdict)] if record.verdict else []),
        settings_table(recommended),
        _heading("Results"),
        _results_table(record),
        *check_lines(study_checks(record)),
        _heading("Cost"),
        _indented(_cost(record)),
        _heading("Next steps"),
        _indented(f"Read {report}"),
        *(_indented(f"{command.purpose}:\n    {command.text}") for command in next_commands),
    ]


def settings_table(settings: TransferSettings) -> RenderableType:
    """Returns the settings that differ from the default recipe, with their default values."""
    default = TransferSettings(epochs=settings.epochs)
    changed = [name for name in SETTINGS if settings.value(name) != default.value(name)]
    if not changed:
        return _indented("the default recipe: plain full fine-tuning")
    table = grid()
    for name in changed:
        value = Text(_value_text(settings.value(name)), style="bold green")
        table.add_row("", name, value, f"default {_value_text(default.value(name))}")
    table.add_row("", "all others", "as in the default recipe", "")
    return table


def training_summary(result: TrainResult, model: Path | None) -> RenderableType:
    """Returns the results of a training with known settings, and the folder of its model if it was exported."""
    table, metric = grid(), result.result.metric
    _add_test(table, "test", result.result, pluralise(result.test.n, "image"))
    if result.majority is not None:
        _add_test(table, f"test, {guess_text(metric)}", result.majority, "the same images")
    table.add_row("", "validation", interval_text(result.validation), pluralise(result.validation.n, "seed"))
    _add_optimism(table, metric, result.optimism)
    _add_weakest(table, weakest(result.classes))
    if model is not None:
        table.add_row("", "model", str(model), "")
    return table


def _results_table(record: StudyRecord) -> RenderableType:
    table, results = grid(), test_results(record)
    if results is not None:
        _add_test(table, "test", results.recommended, pluralise(results.recommended.n, "image"))
        if results.baseline is not None:
            _add_test(table, "test of the default recipe", results.baseline, _difference_remark(results))
        if results.majority is not None:
            guess = guess_text(results.recommended.metric)
            _add_test(table, f"test of {guess}", results.majority, "the same images")
    final, metric = record.final(record.recommended or ""), METRICS[record.config.metric]
    if final is not None:
        validation = metric_interval_text(metric.name, value_interval(final.validation, metric))
        table.add_row("", "validation", validation, _runs_text(record, final.validation.n))
        versus = final.versus_default
        if versus is not None:
            difference = difference_interval(versus, metric, final.validation.mean - versus.mean)
            text = metric_interval_text(metric.name, difference, signed=True)
            table.add_row("", "against the default recipe", text, "validation, paired")
    if results is not None:
        _add_optimism(table, results.recommended.metric, results.optimism)
    _add_weakest(table, weakest_classes(record))
    return table


def _add_test(table: Table, name: str, result: TestResult, remark: str) -> None:
    if result.value is not None:
        label = "" if result.metric == "accuracy" else f"{METRICS[result.metric].label}, "
        table.add_row("", name, metric_interval_text(result.metric, result.value), f"{label}{remark}")
    if result.without_copies is not None:
        n = pluralise(result.n - result.without_copies.n, "image")
        _add_test(table, f"{name}, without copies", result.without_copies, f"without {n} copied from training")


def _difference_remark(results: TestResults) -> str:
    difference = results.difference
    if difference is None:
        return "the same images"
    text = metric_interval_text(results.recommended.metric, difference, signed=True)
    return f"the same images; recommended minus default {text}"


def _add_optimism(table: Table, metric: str, optimism: Interval | None) -> None:
    if optimism is not None:
        table.add_row("", "optimism", metric_interval_text(metric, optimism, signed=True), "validation minus test")


def _add_weakest(table: Table, classes: Sequence[ClassResult]) -> None:
    if classes:
        recalls = [f"{row.name} ({percent(row.recall)} of {pluralise(row.images, 'image')})" for row in classes]
        table.add_row("", "lowest recall", ", ".join(recalls), "classes of the test images")


def _runs_text(record: StudyRecord, n: int) -> str:
    if record.has_fixed_validation:
        return f"{pluralise(n, 'seed')}, the same validation images"
    return "1 seed and split" if n == 1 else f"{n} seeds and splits"


def _cost(record: StudyRecord) -> str:
    counts = record.counts()
    ends = ("complete", "pruned", "failed", *(["interrupted"] if counts["interrupted"] else []))
    trials = ", ".join(f"{counts[end]} {end}" for end in ends)
    allowed = "" if record.epochs_budget is None else f" of {record.epochs_budget}"
    hardware = f" on {hardware_summary(record.trials)}" if used_several_locations(record.trials) else ""
    lost = len(lost_workers(record.trials))
    return (
        f"{pluralise(len(record.trials), 'trial')} ({trials}), {record.epochs_spent}{allowed} epochs in "
        f"{duration(record.seconds_spent)}{hardware}" + (f"; {pluralise(lost, 'worker')} lost" if lost else "")
    )


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value_text(item) for item in value)
    return str(value)


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _indented(text: str) -> Text:
    return Text(f"  {text}", overflow="fold")

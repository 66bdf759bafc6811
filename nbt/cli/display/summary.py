"""Summaries of a finished search and of a training with known settings, as text of a few lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nbt.api.results import TrainResult
from nbt.checks import CheckResult
from nbt.cli.display.output import metric_interval_text, relative_path
from nbt.cli.display.tables import grid
from nbt.data.checks.imbalance import Imbalance
from nbt.metrics import DEFAULT_METRIC, METRICS
from nbt.report.formatting import duration, join_words, one_line, percent, pluralise
from nbt.report.metric_text import guess_text, value_text
from nbt.report.settings_table import recipe_summary
from nbt.report.study.checks.registry import study_checks
from nbt.report.study.hardware import hardware_summary, lost_workers, used_several_locations
from nbt.report.study.test_section import weakest_classes
from nbt.settings import TransferSettings
from nbt.tuning.finals.test_results import TestResult, TestResults, test_results
from nbt.tuning.intervals import Interval, value_interval
from nbt.tuning.storage.records import StudyRecord

_MAX_CHECKS = 2
_LABEL_WIDTH = 14
_STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold"}


def search_summary(record: StudyRecord, recommended: TransferSettings, report: Path) -> list[RenderableType]:
    """Returns the summary of a finished search, in at most 12 lines of 80 columns if paths are short.

    Args:
        record: The study.
        recommended: The recommended settings.
        report: The report, in the folder of the study.
    """
    report = relative_path(report)
    name = record.recommended or "recommended settings"
    table = _facts()
    table.add_row("", "settings", _one_line(f"{name}: {recipe_summary(recommended)}"))
    table.add_row("", "cost", _one_line(_cost(record)))
    checks = study_checks(record)
    return [
        Text(f"{record.config.name}: {record.verdict or f'{name} is recommended.'}", style="bold"),
        _results_table(record, checks),
        *_check_lines(checks),
        table,
        _whole_line("report", str(report)),
        *([] if record.config.scenario else [_predict_line(report.parent / "model")]),
    ]


def training_summary(result: TrainResult, model: Path | None) -> list[RenderableType]:
    """Returns the results of a training with known settings, and the folder of its model if it was exported."""
    table = _results()
    _add_model(table, result.result)
    others = [
        f"{METRICS[n].label} {value_text(n, v.mean)}" for n, v in result.result.metrics.items() if n != DEFAULT_METRIC
    ]
    if others:
        table.add_row("", "other metrics", _one_line(", ".join(others)))
    _add_test(table, "guessing", result.majority, guess_text(result.result.metric))
    _add_validation(table, DEFAULT_METRIC, result.validation, pluralise(result.validation.n, "seed"), result.optimism)
    return [table, *([] if model is None else [_whole_line("model", str(model)), _predict_line(model)])]


def _facts() -> Table:
    """Returns a table of labels and texts, in which long texts are cut off or wrapped."""
    table = grid()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, min_width=_LABEL_WIDTH)
    table.add_column()
    return table


def _results() -> Table:
    """Returns a table of labels, values with intervals, and remarks, which alone are cut off on narrow terminals."""
    table = _facts()
    table.columns[2].no_wrap = True
    table.add_column()
    return table


def _predict_line(model: Path) -> Text:
    return _whole_line("next", f"nbt predict {shlex.quote(str(model))} IMAGES...")


def _whole_line(label: str, text: str) -> Text:
    """Returns a line for copying: the terminal wraps it, so that it stays one line."""
    return Text(f"  {label:<{_LABEL_WIDTH}}  {text}", no_wrap=True, overflow="ignore")


def _results_table(record: StudyRecord, checks: Sequence[CheckResult]) -> Table:
    table, results = _results(), test_results(record)
    if results is not None:
        metric = results.recommended.metric
        _add_model(table, results.recommended)
        _add_test(table, "default recipe", results.baseline, _difference_remark(results))
        _add_test(table, "guessing", results.majority, guess_text(metric))
    final, chosen = record.final(record.recommended or ""), METRICS[record.config.metric]
    if final is not None:
        validation = value_interval(final.validation, chosen)
        runs = pluralise(final.validation.n, "run")
        _add_validation(table, chosen.name, validation, runs, None if results is None else results.optimism)
    recalls = [f"{row.name} {percent(row.recall)} of {row.images}" for row in weakest_classes(record)]
    is_imbalanced = any(check.code == Imbalance.code and check.is_failed for check in checks)
    if recalls and (chosen.class_mean or is_imbalanced):
        table.add_row("", "lowest recall", _one_line(join_words(recalls)))
    return table


def _add_model(table: Table, result: TestResult) -> None:
    """Adds the test result of the model, also without the test images that have a copy in training or validation."""
    _add_test(table, f"test {METRICS[result.metric].label}", result, pluralise(result.n, "image"))
    if result.without_copies is not None:
        copies = pluralise(result.n - result.without_copies.n, "image")
        _add_test(table, "without copies", result.without_copies, f"without {copies} copied from training")


def _add_test(table: Table, label: str, result: TestResult | None, remark: str) -> None:
    if result is not None and result.value is not None:
        table.add_row("", label, metric_interval_text(result.metric, result.value), _one_line(remark))


def _add_validation(table: Table, metric: str, validation: Interval, runs: str, optimism: Interval | None) -> None:
    difference = "" if optimism is None else f"; minus test {_difference(metric, optimism)}"
    table.add_row("", "validation", metric_interval_text(metric, validation), _one_line(f"{runs}{difference}"))


def _difference_remark(results: TestResults) -> str:
    if results.difference is None:
        return "the same images"
    return f"difference {_difference(results.recommended.metric, results.difference)}"


def _difference(metric: str, interval: Interval) -> str:
    return metric_interval_text(metric, interval, signed=True).replace(f" {METRICS[metric].difference_unit}", "")


def _check_lines(results: Sequence[CheckResult]) -> list[RenderableType]:
    """Returns one line per failed check, the worst first; the codes of what is too much share the last line."""
    failed = [result for result in results if result.is_failed]
    shown = failed if len(failed) <= _MAX_CHECKS else failed[: _MAX_CHECKS - 1]
    lines = []
    for result in shown:
        line = Text("  ", no_wrap=True, overflow="ellipsis")
        line.append(f"{result.severity} {result.code}", style=_STYLES[result.severity])
        lines.append(line.append(f"  {one_line(result.message)}"))
    if len(shown) < len(failed):
        codes = join_words([result.code for result in failed[len(shown) :]])
        lines.append(_one_line(f"  {len(failed) - len(shown)} more failed checks in the report: {codes}"))
    return [*lines]


def _cost(record: StudyRecord) -> str:
    counts = record.counts()
    trials = ", ".join(f"{count} {end}" for end, count in counts.items() if count)
    allowed = "" if record.epochs_budget is None else f" of {record.epochs_budget}"
    hardware = f" on {hardware_summary(record.trials)}" if used_several_locations(record.trials) else ""
    lost = len(lost_workers(record.trials))
    return (
        f"{duration(record.seconds_spent)}{hardware}, {record.epochs_spent}{allowed} epochs, "
        f"{pluralise(len(record.trials), 'trial')} ({trials})" + (f"; {pluralise(lost, 'worker')} lost" if lost else "")
    )


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")

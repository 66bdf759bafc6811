"""Summaries of a finished search and of a training with known settings, as text of a few lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nbt.api.results import TrainResult, training_rows
from nbt.checks import CheckResult
from nbt.cli.display.output import relative_path
from nbt.cli.display.tables import grid
from nbt.report.formatting import duration, join_words, one_line, pluralise
from nbt.report.settings_table import study_recipe_summary
from nbt.report.study.checks.registry import study_checks
from nbt.report.study.hardware import hardware_summary, lost_workers, used_several_locations
from nbt.report.study.headline import verdict_line
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.result_rows import ResultRow, study_rows
from nbt.report.study.transfer_evidence import is_transfer_advised
from nbt.settings import TransferSettings
from nbt.tuning.storage.records import StudyRecord, counts_text

_MAX_CHECKS = 2
_LABEL_WIDTH = 15
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
    table.add_row("", "settings", _one_line(f"{name}: {study_recipe_summary(record.config, recommended)}"))
    if is_transfer_advised(record, current_recommendation(record)) is False:
        table.add_row("", "transfer", "none: the recommended settings train from random weights")
    table.add_row("", "cost", _one_line(_cost(record)))
    return [
        Text(verdict_line(record), style="bold"),
        _results(study_rows(record)),
        *_check_lines(study_checks(record)),
        table,
        _whole_line("report", str(report)),
        *([] if record.config.scenario else [_predict_line(report.parent / "model")]),
    ]


def training_summary(result: TrainResult, model: Path | None) -> list[RenderableType]:
    """Returns the results of a training with known settings, and the folder of its model if it was exported."""
    rows = training_rows(result)
    facts = _facts()
    for row in rows:
        if not row.remark:
            facts.add_row("", row.label, _one_line(row.value))
    return [_results(rows), facts, *([] if model is None else [_whole_line("model", str(model)), _predict_line(model)])]


def _facts() -> Table:
    """Returns a table of labels and texts, in which long texts are cut off or wrapped."""
    table = grid()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, min_width=_LABEL_WIDTH)
    table.add_column()
    return table


def _results(rows: Sequence[ResultRow]) -> Table:
    """Returns a table of the results with remarks, which alone are cut off on narrow terminals."""
    table = _facts()
    table.columns[2].no_wrap = True
    table.add_column()
    for row in rows:
        if row.remark:
            table.add_row("", row.label, row.value, _one_line(row.remark))
    return table


def _predict_line(model: Path) -> Text:
    return _whole_line("next", f"nbt predict {shlex.quote(str(model))} IMAGES...")


def _whole_line(label: str, text: str) -> Text:
    """Returns a line for copying: the terminal wraps it, so that it stays one line."""
    return Text(f"  {label:<{_LABEL_WIDTH}}  {text}", no_wrap=True, overflow="ignore")


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
    spent = "" if record.cost_budget is None else f"{record.cost:.1f} of the budget of {record.cost_budget}, "
    hardware = f" on {hardware_summary(record.trials)}" if used_several_locations(record.trials) else ""
    lost = len(lost_workers(record.trials))
    return (
        f"{duration(record.seconds_spent)}{hardware}, {spent}"
        f"{pluralise(len(record.trials), 'trial')} ({counts_text(record.trials)})"
        + (f"; {pluralise(lost, 'worker')} lost" if lost else "")
        + (f"; the search ended because {record.ended}" if record.ended else "")
    )


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")

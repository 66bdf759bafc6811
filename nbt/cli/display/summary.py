"""Summaries of a finished search and of a training with known settings, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from nbt.cli.display.check_lines import check_lines
from nbt.cli.display.output import interval_text, relative_path
from nbt.cli.display.tables import grid
from nbt.report.formatting import duration, pluralise
from nbt.report.study.checks.registry import study_checks
from nbt.report.study.hardware import hardware_summary, lost_workers, used_several_locations
from nbt.report.study.reproduce import commands
from nbt.settings import SETTINGS, TransferSettings
from nbt.tuning.intervals import Interval
from nbt.tuning.storage.records import StudyRecord, TestRecord


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


def training_summary(validation: Interval, test: TestRecord, model: Path | None) -> RenderableType:
    """Returns the results of a training with known settings, and the folder of its model if it was exported."""
    table = grid()
    table.add_row("validation", interval_text(validation), pluralise(validation.n, "seed"))
    table.add_row("test", interval_text(test.accuracy), f"{test.n} images")
    if model is not None:
        table.add_row("model", str(model), "")
    return table


def _results_table(record: StudyRecord) -> RenderableType:
    table = grid()
    final = record.final(record.recommended or "")
    if final is not None:
        table.add_row("", "validation", interval_text(final.validation), _runs_text(record, final.validation.n))
        if final.versus_default is not None:
            difference = interval_text(final.versus_default, signed=True).replace(" %", " points")
            table.add_row("", "against the default recipe", difference, "paired")
    for test in record.test:
        name = {"recommended": "test", "baseline": "test of the default recipe"}.get(test.name, test.name)
        table.add_row("", name, interval_text(test.accuracy), f"{test.n} images")
    return table


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
        f"{len(record.trials)} trials ({trials}), {record.epochs_spent}{allowed} epochs in "
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

"""The list of the studies: a table, or two lines per study where the table is too wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nbt.cli.display.output import stdout_console
from nbt.report.metric_text import value_text
from nbt.tuning.storage.records import count_ended

_GAP = 2
_EMPTY = "no studies yet; nbt search --dataset numbers --shots 8 --budget 12 creates one"
_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0))


def study_lines(studies: Sequence[Mapping[str, Any]], now: datetime | None = None) -> list[RenderableType]:
    """Returns the list, in the order of the studies.

    Args:
        studies: As returned by `nbt.api.studies`.
        now: The current time; the clock of the machine when None.
    """
    if not studies:
        return [Text(_EMPTY)]
    rows = [_row(study, now or datetime.now(UTC)) for study in studies]
    widths = [max(len(name), *(cell_len(row[name]) for row in rows)) for name in rows[0]]
    if sum(widths) + _GAP * (len(widths) - 1) > stdout_console().width:
        return [line for row in rows for line in _two_lines(**row)]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for name in rows[0]:
        table.add_column(name, justify="right" if name in ("trials", "best") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    return [table]


def _row(study: Mapping[str, Any], now: datetime) -> dict[str, str]:
    return {
        "study": study["name"],
        "dataset": Path(study["dataset"]).name,
        "backbone": study["backbone"],
        "trials": str(count_ended(study["trials"])),
        "best": value_text(study["metric"], study["best"]),
        "when": age_text(study["created"], now),
        "state": "finished" if study["finished"] else "unfinished",
    }


def _two_lines(study: str, dataset: str, backbone: str, trials: str, best: str, when: str, state: str) -> list[Text]:
    facts = f"  {state}, {when}; {trials} trials, best {best}; {dataset}, {backbone}"
    return [Text(study, style="bold", overflow="fold"), Text(facts, no_wrap=True, overflow="ellipsis")]


def age_text(created: datetime | None, now: datetime) -> str:
    """Returns how long ago a study was created, as in "3 hours ago", or the date if that is more than a month ago."""
    if created is None:
        return ""
    seconds = (now - created).total_seconds()
    if seconds > 30 * _UNITS[0][1]:
        return f"{created.astimezone():%Y-%m-%d}"
    for unit, length in _UNITS:
        if count := int(seconds // length):
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"

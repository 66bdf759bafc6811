"""Studies as cards see them, and what cards show."""

from collections.abc import Iterable
from pathlib import Path

from nbt.report.formatting import Fact, TemplateData
from nbt.report.study.cards.card import Card, NotApplicable, StudyView, make_cards
from nbt.report.table import Row, Table
from nbt.tuning.storage.records import StudyRecord


def view(record: StudyRecord, *, has_model: bool = False) -> StudyView:
    return StudyView(record, Path("reports/birds"), has_model)


def content(card: Card, record: StudyRecord, *, has_model: bool = False) -> TemplateData:
    found = card.content(view(record, has_model=has_model))
    assert not isinstance(found, NotApplicable), found.reason
    return found


def reason(card: Card, record: StudyRecord) -> str:
    found = card.content(view(record))
    assert isinstance(found, NotApplicable)
    return found.reason


def rendered(card: Card, record: StudyRecord, kind: str = "html", *, has_model: bool = False) -> str:
    [made] = make_cards([card], view(record, has_model=has_model))
    return str(made.render(kind)).replace("\N{NO-BREAK SPACE}", " ")


def facts(rows: Iterable[Fact]) -> dict[str, str]:
    return {row.label: f"{row.value} {row.note}".strip() for row in rows}


def texts(row: Row) -> list[str]:
    return [cell.text for cell in row.cells]


def columns(table: Table) -> list[str]:
    return [column.label for column in table.columns]

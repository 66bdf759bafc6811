"""Tables of reports: what the macros `table` of the HTML and Markdown templates lay out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MAX_ROWS_SHOWN = 15


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: Its heading.
        style: Classes of the style sheet: "n" for numbers, "w" for words that are not divided, "wide" for columns that
            narrow windows leave out.
    """

    label: str
    style: str = ""

    @property
    def is_number(self) -> bool:
        """Whether its values are aligned to the right."""
        return "n" in self.style.split()


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a text with badges and a remark below it.

    Attributes:
        text: The text.
        badges: Words in frames beside it; their first word is their class in the style sheet.
        note: The remark.
    """

    text: str
    badges: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table, and whether it is emphasised."""

    cells: tuple[Cell, ...]
    chosen: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows, for screen readers.
        columns: Its columns.
        rows: Its rows, each with a cell per column.
        n_shown: Number of rows that are not folded.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    n_shown: int = MAX_ROWS_SHOWN

    @property
    def parts(self) -> tuple[Table, Table]:
        """The table of the rows that are shown, and that of the folded ones."""
        return replace(self, rows=self.rows[: self.n_shown]), replace(self, rows=self.rows[self.n_shown :])


def row(*cells: Cell | str | int, chosen: bool = False) -> Row:
    """Returns a row of cells or plain values."""
    return Row(tuple(cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in cells), chosen)


def table(caption: str, columns: Sequence[Column | str], rows: Iterable[Row], n_shown: int = MAX_ROWS_SHOWN) -> Table:
    """Returns a table; a column that is a text has no style."""
    listed = tuple(column if isinstance(column, Column) else Column(column) for column in columns)
    return Table(caption, listed, tuple(rows), n_shown)


def table_of(caption: str, items: Iterable[object], n_shown: int = MAX_ROWS_SHOWN, **columns: Column | str) -> Table:
    """Returns a table with a row per item.

    Args:
        caption: What it shows.
        items: Objects with the attributes that `columns` name.
        n_shown: Number of rows that are not folded.
        **columns: Attribute to column; a column that is a text has no style.
    """
    listed = (row(*(getattr(item, name) for name in columns)) for item in items)
    return table(caption, list(columns.values()), listed, n_shown)

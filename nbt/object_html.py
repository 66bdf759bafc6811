"""HTML of objects for notebooks: a title and a table; all texts are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table_html(title: str, rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Returns a title, a table without header, and a note.

    Args:
        title: Name and kind of the object.
        rows: Cells of each row.
        note: Text below the table; "" for none.
    """
    cells = "".join(
        "<tr>" + "".join(f'<td style="text-align: left">{escape(str(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    below = f"<div>{escape(note)}</div>" if note else ""
    return f"<div><strong>{escape(title)}</strong><table>{cells}</table>{below}</div>"


def short_repr(name: str, facts: Iterable[str], limit: int = 280) -> str:
    """Returns "Name(fact, fact, ...)" with as many facts as fit.

    Args:
        name: Name of the class.
        facts: The facts, the most important first.
        limit: Largest length of the text.
    """
    left, text, separator = list(facts), "", ""
    while left and len(name) + len(text) + len(left[0]) + 20 <= limit:
        text += separator + left.pop(0)
        separator = ", "
    more = f"{separator}and {len(left)} more" if left else ""
    return f"{name}({text}{more})"

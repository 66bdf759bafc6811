"""Jinja environments for HTML and Markdown, and the filters of the templates."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


class Verbatim(str):
    """Text that is written to Markdown without escaping."""


def style_sheet() -> Markup:
    """Returns the style sheet of all pages."""
    return Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))


def collapse_blank_lines(text: str) -> str:
    """Returns Markdown without the surplus blank lines of a rendered template."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def environment(kind: str) -> Environment:
    """Returns the Jinja environment for "html" or "md" templates; it escapes all values for that format."""
    jinja = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=kind == "html",
        finalize=escape_markdown if kind == "md" else _non_breaking_percent,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters |= {"fenced": fenced, "verbatim": Verbatim}
    return jinja


def _non_breaking_percent(value: Any) -> Any:
    """Returns text with non-breaking spaces before percent signs; other values unchanged."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def escape_markdown(value: Any) -> Any:
    """Returns text with Markdown and HTML markup escaped, in one line; other values unchanged."""
    if isinstance(value, Verbatim) or not isinstance(value, str):
        return value
    text = " ".join(value.split())
    text = re.sub(r"([\\`*|<>\[\]~])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return text.replace("&", "&amp;")


def fenced(text: str) -> Verbatim:
    """Returns the text as a Markdown code block whose fence is longer than any fence in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Verbatim(f"{fence}\n{text}\n{fence}")

"""Render: a report's data become HTML and Markdown text."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nbt._version import __version__
from nbt.report import plots
from nbt.report.data import ReportData
from nbt.report.fit_plots import layer_curves
from nbt.report.forecast_plot import unpromising_trials

_TEMPLATES = Path(__file__).parent / "templates"
_MAX_TRIALS_SHOWN = 15


class Verbatim(str):
    """Text that goes into Markdown as it is."""


def render_html(data: ReportData) -> str:
    """Returns the report as one HTML page that needs nothing else: drawings and style are inside.

    Whatever comes from outside (names, reasons, paths) is escaped.
    """
    record = data.record
    drawings = {
        "curves": plots.learning_curves(record),
        "trials": plots.accuracy_by_trial(record),
        "finals": plots.finalists(record),
        "importance": plots.importance_bars(record),
        "forecasts": unpromising_trials(record),
        "fit": None if data.fit is None else layer_curves(data.fit.profile),
    }
    return (
        environment("html")
        .get_template("report.html.j2")
        .render(
            data=data,
            # Only drawings made here are trusted as they are; their texts were escaped when they were drawn.
            plots={name: None if svg is None else Markup(svg) for name, svg in drawings.items()},
            style=style_sheet(),
            shown=_MAX_TRIALS_SHOWN,
            version=__version__,
        )
    )


def render_markdown(data: ReportData) -> str:
    """Returns the report as Markdown (GitHub's tables); curves are rows of block characters."""
    text = (
        environment("md").get_template("report.md.j2").render(data=data, shown=_MAX_TRIALS_SHOWN, version=__version__)
    )
    return collapse_blank_lines(text)


def style_sheet() -> Markup:
    """Returns the style of all pages."""
    return Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))


def collapse_blank_lines(text: str) -> str:
    """Returns Markdown without the empty lines that a template leaves."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def environment(kind: str) -> Environment:
    """Returns where templates of "html" or "md" are rendered; what is put in is escaped for either."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=kind == "html",
        finalize=escape_markdown if kind == "md" else _non_breaking_percent,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"fenced": fenced, "verbatim": Verbatim}
    return made


def _non_breaking_percent(value: Any) -> Any:
    """Returns text whose numbers no line break parts from their percent sign."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def escape_markdown(value: Any) -> Any:
    """Returns text of which Markdown (and the HTML in it) sees only letters; anything but text is returned as it is."""
    if isinstance(value, Verbatim) or not isinstance(value, str):
        return value
    text = " ".join(value.split())
    text = re.sub(r"([\\`*|<>\[\]~])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    return text.replace("&", "&amp;")


def fenced(text: str) -> Verbatim:
    """Returns text as a Markdown code block; its fence is longer than any inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Verbatim(f"{fence}\n{text}\n{fence}")

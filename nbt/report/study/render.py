"""Rendering of a study's report data to HTML and Markdown."""

from __future__ import annotations

from markupsafe import Markup

from nbt._version import __version__
from nbt.report.fit.plots import layer_curves
from nbt.report.formatting import TemplateData
from nbt.report.priors.forecast_plot import unpromising_trials
from nbt.report.study import plots
from nbt.report.templating import collapse_blank_lines, environment, style_sheet

_MAX_TRIALS_SHOWN = 15


def render_html(data: TemplateData) -> str:
    """Returns the report as one self-contained HTML page, including drawings and style.

    All text from outside (names, reasons, paths) is escaped.
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
        .get_template("study.html.j2")
        .render(
            data=data,
            # Drawings are inserted without escaping; their texts were escaped when they were drawn.
            plots={name: None if svg is None else Markup(svg) for name, svg in drawings.items()},
            style=style_sheet(),
            shown=_MAX_TRIALS_SHOWN,
            version=__version__,
        )
    )


def render_markdown(data: TemplateData) -> str:
    """Returns the report as GitHub-flavoured Markdown; learning curves are rows of block characters."""
    text = environment("md").get_template("study.md.j2").render(data=data, shown=_MAX_TRIALS_SHOWN, version=__version__)
    return collapse_blank_lines(text)

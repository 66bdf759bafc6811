"""Rendering of a study's report to HTML and Markdown."""

from __future__ import annotations

from nbt._version import __version__
from nbt.report.study.report_data import StudyReport
from nbt.report.templating import collapse_blank_lines, environment, style_sheet


def render_html(report: StudyReport) -> str:
    """Returns the report as one self-contained HTML page, including drawings, images and style.

    All text from outside (names, reasons, paths) is escaped.
    """
    template = environment("html").get_template("study.html.j2")
    return template.render(data=report, style=style_sheet(), version=__version__)


def render_markdown(report: StudyReport) -> str:
    """Returns the report as GitHub-flavoured Markdown; learning curves are rows of block characters."""
    return collapse_blank_lines(environment("md").get_template("study.md.j2").render(data=report, version=__version__))

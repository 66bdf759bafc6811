"""Files of the report of streams."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from nbt._version import __version__
from nbt.report.files import report_folder, write_report_files
from nbt.report.formatting import TemplateData
from nbt.report.streams import plots
from nbt.report.streams.comparison import Comparison
from nbt.report.streams.report_data import build_stream_report, matrix_file
from nbt.report.templating import collapse_blank_lines, environment, style_sheet

STREAM_FILE, CURVES_FILE = "stream.json", "accuracy.svg"
FILES = ("report.html", "report.md", STREAM_FILE)
"""Report files that are uploaded to a tracking server; the HTML page comes first."""


def write_streams(comparison: Comparison, out: str | Path) -> Path:
    """Writes the report of streams to its folder in `out`.

    The files are `report.html` (self-contained), `report.md`, `stream.json` with all data, `accuracy.svg` and one
    `matrix-METHOD.svg` per method. A report that is up to date is not written again.

    Returns:
        The path of `report.html`.

    Raises:
        NbtError: The folder cannot be written.
    """
    folder = report_folder(out, comparison.name)
    document = json.dumps(comparison.to_json(), indent=1) + "\n"
    if _is_up_to_date(folder, comparison, document):
        return folder / FILES[0]
    data = build_stream_report(comparison)
    drawings = {CURVES_FILE: plots.average_curves(comparison)}
    drawings |= {matrix_file(runs.method): plots.matrix_heatmap(runs) for runs in comparison.methods}
    texts: dict[str, str | None] = {name: plots.standalone_svg(svg) for name, svg in drawings.items()}
    texts["report.md"] = render_markdown(data)
    texts[STREAM_FILE] = document
    texts["report.html"] = render_html(data, comparison, drawings)
    write_report_files(folder, texts)
    return folder / "report.html"


def _is_up_to_date(folder: Path, comparison: Comparison, document: str) -> bool:
    names = (*FILES, CURVES_FILE, *(matrix_file(runs.method) for runs in comparison.methods))
    try:
        return all((folder / name).is_file() for name in names) and (folder / STREAM_FILE).read_text() == document
    except (OSError, ValueError):
        return False


def render_html(data: TemplateData, comparison: Comparison, drawings: dict[str, str]) -> str:
    """Returns the report as one self-contained HTML page; all text from outside is escaped."""
    curves = {runs.method: Markup(plots.task_curves(runs)) for runs in comparison.methods}
    template = environment("html").get_template("stream.html.j2")
    return template.render(
        data=data,
        averages=Markup(drawings[CURVES_FILE]),
        matrices={runs.method: Markup(drawings[matrix_file(runs.method)]) for runs in comparison.methods},
        curves=curves,
        style=style_sheet(),
        version=__version__,
    )


def render_markdown(data: TemplateData) -> str:
    """Returns the report as Markdown, which links to the drawings in the same folder."""
    text = environment("md").get_template("stream.md.j2").render(data=data, curves=CURVES_FILE, version=__version__)
    return collapse_blank_lines(text)

"""Write: the report of streams, each file whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from nbt._version import __version__
from nbt.errors import NbtError
from nbt.files import write_all
from nbt.report.files import report_folder
from nbt.report.streams import plots
from nbt.report.streams.comparison import Comparison
from nbt.report.streams.report_data import StreamReport, build_stream_report, matrix_file
from nbt.report.templating import collapse_blank_lines, environment, style_sheet

STREAM_FILE, CURVES_FILE = "stream.json", "accuracy.svg"
FILES = ("report.html", "report.md", STREAM_FILE)
"""Of those that `write_streams` writes, the ones that a tracking server is given; the page comes first."""


def write_streams(comparison: Comparison, out: str | Path) -> Path:
    """Writes the report of streams to the folder of its name in `out`.

    `report.html` (one file, which needs nothing else), `report.md`, `stream.json` with everything in it, `accuracy.svg`
    and `matrix-METHOD.svg`. A report that says the same already is left as it is.

    Returns:
        The path of `report.html`.

    Raises:
        NbtError: The folder cannot be written.
    """
    folder = report_folder(out, comparison.name)
    everything = json.dumps(comparison.to_json(), indent=1) + "\n"
    if _is_up_to_date(folder, comparison, everything):
        return folder / FILES[0]
    data = build_stream_report(comparison)
    drawings = {CURVES_FILE: plots.average_curves(comparison)}
    drawings |= {matrix_file(runs.method): plots.matrix_heatmap(runs) for runs in comparison.methods}
    texts: dict[str, str | None] = {name: plots.standalone_svg(svg) for name, svg in drawings.items()}
    texts["report.md"] = render_markdown(data)
    texts[STREAM_FILE] = everything
    texts["report.html"] = render_html(data, comparison, drawings)
    try:
        write_all(folder, texts)
    except OSError as error:
        raise NbtError(f"{folder}: cannot write the report ({error.strerror or error}); --out names another") from error
    return folder / "report.html"


def _is_up_to_date(folder: Path, comparison: Comparison, everything: str) -> bool:
    names = (*FILES, CURVES_FILE, *(matrix_file(runs.method) for runs in comparison.methods))
    try:
        return all((folder / name).is_file() for name in names) and (folder / STREAM_FILE).read_text() == everything
    except (OSError, ValueError):
        return False


def render_html(data: StreamReport, comparison: Comparison, drawings: dict[str, str]) -> str:
    """Returns the report as one page; whatever comes from outside is escaped."""
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


def render_markdown(data: StreamReport) -> str:
    """Returns the report as Markdown; its drawings are the files beside it."""
    text = environment("md").get_template("stream.md.j2").render(data=data, curves=CURVES_FILE, version=__version__)
    return collapse_blank_lines(text)

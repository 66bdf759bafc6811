"""Files of a comparison of studies, and its drawing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from nbt._version import __version__
from nbt.report import svg
from nbt.report.comparison.content import StudyComparison, comparison_data
from nbt.report.files import report_folder, write_report_files
from nbt.report.formatting import truncated
from nbt.report.templating import collapse_blank_lines, environment, style_sheet
from nbt.tuning.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NAME_LENGTH = 200
_MAX_LABEL_LENGTH = 26


def write_comparison(comparison: StudyComparison, out: str | Path) -> Path:
    """Writes `report.html` and `report.md` of a comparison to a folder in `out` that is named after its studies.

    Returns:
        The path of `report.html`.

    Raises:
        NbtError: The folder cannot be written.
    """
    folder = report_folder(out, comparison_name([study.record.config.name for study in comparison.studies]))
    data = comparison_data(comparison)
    page = environment("html").get_template("comparison.html.j2")
    text = environment("md").get_template("comparison.md.j2").render(data=data, version=__version__)
    drawing = draw_test_intervals(comparison)
    texts = {
        "report.md": collapse_blank_lines(text),
        "report.html": page.render(data=data, drawing=drawing, style=style_sheet(), version=__version__),
    }
    write_report_files(folder, texts)
    return folder / "report.html"


def comparison_name(names: list[str]) -> str:
    """Returns the name of the folder, which cannot be that of a study, whose name has no "+"."""
    name = "+".join(names)
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{names[0]}+{len(names) - 1}-others-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def draw_test_intervals(comparison: StudyComparison) -> str | None:
    """Draws the test result of each study and of the default recipe in it; None without any."""
    metric = comparison.metric
    rows = [study for study in reversed(comparison.studies) if study.test is not None]
    if not rows:
        return None

    def draw(axes: Axes) -> svg.Handles:
        handles: svg.Handles = {}
        for position, study in enumerate(rows):
            assert study.test is not None
            results = {"recommended": (study.test.recommended, svg.BEST, "D", 0.1)}
            if study.test.baseline is not None:
                results["default recipe"] = (study.test.baseline, svg.DEFAULT, "s", -0.14)
            for label, (result, color, marker, shift) in results.items():
                value = result.metrics.get(metric.name)
                if value is not None:
                    handles.setdefault(label, _draw_interval(axes, position + shift, value, color, marker))
        axes.set_yticks(range(len(rows)), [truncated(study.name, _MAX_LABEL_LENGTH) for study in rows])
        axes.tick_params(axis="y", length=0, labelcolor=svg.INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"test {metric.label}: value and 95 % interval")
        if metric.is_share:
            svg.percent_axis(axes.xaxis)
        return handles

    return svg.render_svg("comparison", "Test results of the studies", 1.0 + 0.5 * len(rows), draw)


def _draw_interval(axes: Axes, height: float, value: Interval, color: str, marker: str) -> object:
    if value.low is not None and value.high is not None:
        axes.plot([value.low, value.high], [height] * 2, color=color, linewidth=2.4, solid_capstyle="round")
    (point,) = axes.plot(
        [value.mean], [height], linestyle="", marker=marker, markersize=6, color=color, markeredgecolor=svg.PAPER
    )
    return point

"""Plots of fit profiles by depth: one profile for a report page, several profiles for a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import NbtError, UsageError, nearest
from nbt.files import atomic_file
from nbt.fit.fit_profile import FitProfile
from nbt.report import svg
from nbt.report.figures import LIGHT_COLORS, light_style, notebook_figure
from nbt.report.fit.measures import accuracy_text, gain_of_unit, images, knee_unit_count, profile_names, weights_names
from nbt.report.formatting import one_line, truncated
from nbt.tuning.intervals import accuracy_standard_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")

# Palette of Okabe and Ito; dashes distinguish random from pretrained weights, and markers distinguish the backbones.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX"
_DASHED = (0, (5, 2))
_MAX_NAME_LENGTH = 44


def layer_curves(profile: FitProfile) -> str | None:
    """Draws the ridge probe of every unit at the measured and at random weights, with bands of one standard error.

    Returns:
        Inline SVG that takes its colours from the page; None for a profile without units.
    """
    if not len(profile.layers):
        return None
    n, knee = images(profile), knee_unit_count(profile)
    measured, random = weights_names(profile)
    units = [one_line(str(unit)) for unit in profile.layers["unit"]]

    def draw(axes: Axes) -> dict[str, Any]:
        numbers = range(1, len(units) + 1)
        styles: tuple[tuple[str, str, str, Any, str], ...] = (
            ("ridge_accuracy_random", random, svg.DEFAULT, _DASHED, "s"),
            ("ridge_accuracy", measured, svg.BEST, "-", "o"),
        )
        handles: dict[str, Any] = {}
        for column, label, color, dashes, marker in styles:
            values = [float(value) for value in profile.layers[column]]
            _band(axes, numbers, values, [accuracy_standard_error(value, n) for value in values], color)
            (line,) = axes.plot(numbers, values, color=color, linestyle=dashes, linewidth=1.8)
            for number, unit, value in zip(numbers, units, values, strict=True):
                tip = svg.tooltip_id(f"unit {number}, {unit}: {accuracy_text(value, n)}, {label}")
                axes.plot([number], [value], color=color, marker=marker, markersize=3.6, gid=tip)
            handles = {label: line, **handles}
        if knee:
            handles["knee"] = axes.axvline(knee, color=svg.MUTED, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
        axes.set(xlabel="unit, from the input", ylabel="ridge probe accuracy")
        axes.set_ylim(bottom=0)
        svg.integer_axis(axes.xaxis)
        svg.percent_axis(axes.yaxis)
        return handles

    return svg.render_svg("fit", f"Ridge probe accuracy of each unit, {measured} and {random}", 3.2, draw)


def check_plot_file(file: str | Path) -> Path:
    """Returns the path of a plot file.

    Raises:
        UsageError: The suffix is not supported, the folder does not exist, or the path is a folder.
    """
    path = Path(file)
    if path.suffix.lower() not in SUFFIXES:
        hint = nearest(path.suffix.lower(), SUFFIXES) if path.suffix else f"end it in {' or '.join(SUFFIXES)}"
        raise UsageError(f"--plot {file}: a plot must be a PNG or SVG file; {hint}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {file}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"--plot {file}: this is a folder, not a file")
    return path


def write_fit_plot(profiles: Sequence[FitProfile], file: str | Path) -> Path:
    """Draws several profiles by depth into one file, written completely or not at all.

    The left panel shows the ridge probes, dashed at random weights; the right panel shows the gain. Bands are one
    standard error; a ring marks the knee.

    Args:
        profiles: At least one profile.
        file: Path that ends in .png or .svg.

    Raises:
        UsageError: The path is not a valid plot file.
        NbtError: The file cannot be written.
    """
    path = check_plot_file(file)
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(fit_figure(profiles, path.suffix.lower().lstrip(".")))
    except OSError as error:
        raise NbtError(f"{path}: cannot write the plot ({error.strerror or error})") from error
    return path


def fit_figure(profiles: Sequence[FitProfile], kind: str) -> bytes:
    """Returns the figure of `write_fit_plot` as bytes.

    Args:
        profiles: At least one profile.
        kind: "png" or "svg".
    """
    buffer = io.BytesIO()
    # Without a date, equal profiles yield equal files.
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with light_style("fit"):
        draw_profiles(profiles).savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def draw_profiles(profiles: Sequence[FitProfile]) -> Figure:
    """Returns the figure of `write_fit_plot`.

    Raises:
        ValueError: A profile has no units.
    """
    if not all(len(profile.layers) for profile in profiles):
        raise ValueError("a profile has no units, so there is nothing to draw")
    names = [truncated(name, _MAX_NAME_LENGTH) for name in profile_names(profiles)]
    with light_style("fit"):
        figure = notebook_figure(9.6, 3.6 + 0.2 * -(-len(profiles) // 2))
        left, right = figure.subplots(1, 2)
        for index, (name, profile) in enumerate(zip(names, profiles, strict=True)):
            _draw_profile(left, right, index, name, profile)
        left.set_title("ridge probe of each unit (dashed: random weights)", loc="left", fontsize=9)
        right.set_title("gain over random weights (ring: knee)", loc="left", fontsize=9)
        left.set_ylabel("accuracy")
        right.set_ylabel("points of accuracy")
        right.axhline(0, color=LIGHT_COLORS[svg.MUTED], linewidth=0.8)
        for axes in (left, right):
            axes.set_xlabel("depth: share of the units, from the input")
            svg.percent_axis(axes.xaxis)
        svg.percent_axis(left.yaxis)
        right.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.4g}" if value else "0")
        figure.legend(handles=left.get_legend_handles_labels()[0], loc="outside upper left", ncols=2)
    return figure


def _draw_profile(left: Axes, right: Axes, index: int, name: str, profile: FitProfile) -> None:
    layers, n, knee = profile.layers, images(profile), knee_unit_count(profile)
    color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
    depth = [float(value) for value in layers["depth"]]
    pretrained, random_init = (
        [float(v) for v in layers[column]] for column in ("ridge_accuracy", "ridge_accuracy_random")
    )
    _band(left, depth, pretrained, [accuracy_standard_error(value, n) for value in pretrained], color)
    style: dict[str, Any] = {"color": color, "marker": marker, "markersize": 3.6, "linewidth": 1.6}
    left.plot(depth, pretrained, label=name, **style)
    left.plot(depth, random_init, color=color, linewidth=1.1, linestyle=_DASHED)
    gains = [gain_of_unit(profile, unit) for unit in range(len(layers))]
    _band(right, depth, [gain for gain, _ in gains], [error for _, error in gains], color)
    right.plot(depth, [gain for gain, _ in gains], **style)
    if knee:
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": color, "markeredgewidth": 1.5}
        right.plot(depth[knee - 1], gains[knee - 1][0], marker="o", linestyle="", markersize=10, **ring)


def _band(axes: Axes, x: Sequence[float], values: Sequence[float], errors: Sequence[float], color: str) -> None:
    low = [value - error for value, error in zip(values, errors, strict=True)]
    high = [value + error for value, error in zip(values, errors, strict=True)]
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)

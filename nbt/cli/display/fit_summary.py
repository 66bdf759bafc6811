"""Fit profiles and recommended settings as text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nbt.cli.display.fit_chart import draw_bars, draw_columns
from nbt.cli.display.output import Output, stdout_console
from nbt.cli.display.tables import grid
from nbt.fit.fit_profile import FitProfile
from nbt.report.fit import conclusions, measures
from nbt.report.formatting import join_words
from nbt.tuning.baseline_recipes import FROM_SCRATCH

if TYPE_CHECKING:
    from nbt.api import Recommendation
    from nbt.settings import TransferSettings

_TUNED_BASIS = (
    "the recipe that was best on other datasets; on further ones, it was better than the default recipe on average."
)


def print_profiles(out: Output, profiles: Sequence[FitProfile], plot: str | None) -> None:
    """Prints the measures as tables with definitions, the probe charts, and the conclusions as sentences."""
    scalars = profiles[0].scalars
    sizes = [f"{size:.0f}" for size in sorted({profile.scalars["image_size"] for profile in profiles})]
    out.print(
        Text(
            f"{profiles[0].facts['dataset']}: {scalars['classes']:.0f} classes, {scalars['train_images']:.0f} training "
            f"images, {measures.images(profiles[0])} of them measured at {join_words(sizes)} px\n"
        )
    )
    _print_table(out, profiles, measures.MEASURES)
    if any(measures.appendix_rows(profile) for profile in profiles):
        out.print("", _heading(measures.APPENDIX_TITLE))
        _print_table(out, profiles, measures.APPENDIX_MEASURES)
    lines = measures.missing_measure_lines(profiles)
    if lines:
        out.print("", _heading("Left out"), *(Text(f"  {line}") for line in lines))
    if optional := measures.optional_measures_sentence(profiles):
        out.print("", Text(optional))
    names = measures.profile_names(profiles)
    for name, profile in zip(names, profiles, strict=True):
        out.print("", _heading(f"{name}: ridge probe by unit"), *_probe_chart(profile))
        out.print("", *(Text(sentence) for sentence in conclusions.suggestions(profile)))
    if len(profiles) > 1:
        out.print("", _heading("Compared"), *(Text(sentence) for sentence in conclusions.comparison(profiles)))
    out.print("", Text(conclusions.uncertainty_text(profiles)))
    if plot is not None:
        out.print("", Text(f"plot: {plot}"))


def _print_table(out: Output, profiles: Sequence[FitProfile], columns: Sequence[measures.Measure]) -> None:
    """Prints measures as a table, in as many parts as the terminal needs, and their definitions."""
    for part in split_columns(measures.table_rows(profiles, columns), stdout_console().width):
        out.print_rows(part, right_aligned=set(part[0]) - {"backbone"}, empty_text="")
        out.print("")
    out.print(_definitions(measures.legend(profiles, columns)))


def print_recommendations(
    out: Output, profiles: Sequence[FitProfile], recommendations: Sequence[Recommendation]
) -> None:
    """Prints the recommended settings of each profile, and which suggestions of profile and experience they follow.

    Each has an empty line below it, for the profiles that follow.
    """
    for name, recommendation in zip(measures.profile_names(profiles), recommendations, strict=False):
        out.print(_heading(f"{name}: recommended settings, before any training"))
        if recommendation.name:
            out.print(Text(f"{_why(recommendation.name)}\n"))
        out.print(Text(_changes(recommendation.settings)))
        followed_heading = "Suggestions that the settings follow" if recommendation.name else "Reasons"
        for heading, followed in ((followed_heading, True), ("Suggestions that the settings do not follow", False)):
            if reasons := _reasons(recommendation.guide["sources"], followed):
                out.print("", _heading(heading), _definitions(reasons))
        if not recommendation.name:
            out.print("", *_basis(recommendation.guide))
        out.print("")


def _why(name: str) -> str:
    """Returns the sentence on a recommended recipe with a name of its own."""
    if name == FROM_SCRATCH:
        return (
            "Training from scratch, because no pretrained unit has clearly better features for these images than the "
            "best unit with random weights. nbt search tries it second."
        )
    return f"The {name}, {_TUNED_BASIS} nbt search tries it early."


def _basis(guide: Mapping[str, Any]) -> list[Text]:
    """Returns what settings without a name of their own are based on, as sentences."""
    unjudged, tables = guide["unjudged"], guide["tables"]
    basis = f"the priors and {len(tables)} recorded tables" if tables else "the priors alone, without recorded tables"
    sentences = [f"They are based on {basis}. nbt search runs them after the baseline recipes."]
    if unjudged:
        sentences.insert(0, f"No prior and no recorded task judges {join_words(unjudged)}: neutral values.")
    return [Text(sentence) for sentence in sentences]


def _changes(settings: TransferSettings) -> str:
    """Returns the settings that differ from the default recipe as YAML, which `nbt train --settings` reads."""
    from nbt.settings import TransferSettings
    from nbt.yaml_loader import dump_yaml_mapping

    default = TransferSettings().to_dict()
    changes = {name: value for name, value in settings.to_dict().items() if value != default[name] or name == "epochs"}
    return dump_yaml_mapping(changes) + "# All other settings are those of the default recipe."


def _reasons(sources: Sequence[Mapping[str, Any]], followed: bool) -> list[tuple[str, str]]:
    """Returns the sources and texts of the statements that are true (or not true) of the recommended settings."""
    return [
        (source["name"], f"{reason['text']}; here {reason['value']} ({reason['because']})")
        for source in sources
        for reason in source["statements"]
        if reason["holds"] is followed
    ]


def split_columns(rows: Sequence[dict[str, str]], width: int) -> list[list[dict[str, str]]]:
    """Splits a table by columns into as few parts as fit the width; every part begins with the first column.

    Args:
        rows: Rows with the same keys.
        width: Width of the terminal in characters.
    """
    first, *others = rows[0]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) + 2 for name in rows[0]}
    parts: list[list[str]] = [[]]
    for name in others:
        if parts[-1] and widths[first] + sum(widths[other] for other in (*parts[-1], name)) > width + 2:
            parts.append([])
        parts[-1].append(name)
    return [[{name: row[name] for name in (first, *part)} for row in rows] for part in parts]


def _probe_chart(profile: FitProfile) -> list[RenderableType]:
    if not len(profile.layers):
        return []
    console = stdout_console()
    if console.is_terminal and "utf" in (sys.stdout.encoding or "").lower():
        return [*draw_columns(profile, console.width)]
    return [Text(line) for line in draw_bars(profile)]


def _definitions(entries: Sequence[tuple[str, str]]) -> Table:
    """Returns terms and their definitions as a table of two columns."""
    table = grid()
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for term, definition in entries:
        table.add_row(term, definition)
    return table


def _heading(text: str) -> Text:
    return Text(text, style="bold")

"""`nbt fit`: measures how well pretrained weights fit a target, before any training."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nbt.cli.display.output import Output, stdout_console
from nbt.cli.options.checks import check_experience, check_task
from nbt.cli.options.common import AT_LEAST_ONE, SEED, Command, comparison_options, experience_option
from nbt.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nbt.api import Recommendation
    from nbt.fit.fit_profile import FitProfile

_RECOMMENDATION_OPTIONS = ("space", "epochs", "experience")


@click.command(cls=Command)
@comparison_options
@click.option(
    "--samples",
    metavar="N",
    type=AT_LEAST_ONE,
    show_default="1000, or two per class if that is more",
    help="Maximum number of training images to measure.",
)
@click.option(
    "--source-data",
    metavar="FOLDER",
    show_default="none",
    help="Images that the weights were trained on, one subfolder per class.",
)
@click.option(
    "--plot", metavar="FILE.png|.svg", show_default="none", help="Write a figure of the probe accuracy by depth."
)
@click.option("--recommend", is_flag=True, help="Also recommend settings from the profile and experience.")
@click.option(
    "--space",
    metavar="NAME|FILE",
    default="non_binary",
    show_default=True,
    help="With --recommend: search space of the settings.",
)
@click.option(
    "--epochs",
    metavar="N",
    type=AT_LEAST_ONE,
    default=12,
    show_default=True,
    help="With --recommend: epochs of the training.",
)
@experience_option
@click.option(
    "--seed", metavar="N", type=SEED, default=0, show_default=True, help="Seed of split, sample and random weights."
)
def command(
    out: Output,
    dataset: str,
    backbone: tuple[str, ...],
    weights: tuple[str, ...],
    plot: str | None,
    source_data: str | None,
    recommend: bool,
    space: str,
    epochs: int,
    experience: str | None,
    **options: Any,
) -> None:
    """Measure how well pretrained weights fit, before any training.

    The command measures the features of a sample of the training images, of the whole network and unit by unit, with
    pretrained and with random weights. Repeat --backbone to compare several; give --weights once for all backbones, or
    once per backbone in the same order.
    """
    _check_option_combination(click.get_current_context())
    pairs = pair_backbones_with_weights(backbone, weights)
    for name, file in pairs:
        check_task({"dataset": dataset, "backbone": name, "weights": file, **options})
    check_files(plot, source_data)
    check_experience(experience)
    check_space(space)
    from nbt.cli.display.progress import Progress

    with Progress(out) as progress:
        from nbt import api

        profiles = api.fit(dataset, pairs, source_data=source_data, progress=progress.update, **options)
        recommendations = [
            api.recommend(profile, space=space, epochs=epochs, experience=experience)
            for profile in (profiles if recommend else ())
        ]
    if plot is not None:
        from nbt.report.fit.plots import write_fit_plot

        write_fit_plot(profiles, plot)
    if out.json:
        documents = [profile.to_dict() for profile in profiles]
        for document, recommendation in zip(documents, recommendations, strict=False):
            document |= {"recommended": recommendation.settings.to_dict(), "guide": dict(recommendation.guide)}
        out.print_json(documents[0] if len(documents) == 1 else {"profiles": documents})
    else:
        print_profiles(out, profiles, plot)
        print_recommendations(out, profiles, recommendations)


def _check_option_combination(ctx: click.Context) -> None:
    """Rejects options of a recommendation without `--recommend`.

    Raises:
        UsageError: Such an option was given.
    """
    if ctx.params["recommend"]:
        return
    for param in ctx.command.params:
        is_given = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if is_given and param.name in _RECOMMENDATION_OPTIONS:
            raise UsageError(f"{param.opts[0]} is an option of --recommend; add --recommend, or leave it out")


def pair_backbones_with_weights(backbones: Sequence[str], weights: Sequence[str]) -> list[tuple[str | None, str]]:
    """Returns each backbone with its weights.

    Args:
        backbones: Architectures; empty for the dataset's backbone, which is returned as None.
        weights: None ("default"), one for all backbones, or one per backbone in the same order.

    Raises:
        UsageError: The number of weights does not match the number of backbones.
    """
    names: Sequence[str | None] = backbones or [None]
    files = list(weights) or ["default"]
    if len(files) == 1:
        files *= len(names)
    if len(files) != len(names):
        raise UsageError(
            f"--weights is given {len(files)} times for {len(names)} --backbone: give it once for all, or once for each"
        )
    return list(zip(names, files, strict=True))


def check_files(plot: str | None, source_data: str | None) -> None:
    """Checks `--plot` and `--source-data` without importing torch.

    Raises:
        UsageError: The plot cannot be written, or the folder does not exist.
    """
    if plot is not None:
        from nbt.report.fit.plots import check_plot_file

        check_plot_file(plot)
    if source_data is not None and not Path(source_data).is_dir():
        raise UsageError(f"--source-data {source_data}: no such folder; expected one subfolder of images per class")


def print_profiles(out: Output, profiles: Sequence[FitProfile], plot: str | None) -> None:
    """Prints the measures as a table with definitions, the probe charts, and the conclusions as sentences."""
    from rich.text import Text

    from nbt.report.fit import text
    from nbt.report.formatting import join_words

    rows = text.table_rows(profiles)
    scalars = profiles[0].scalars
    sizes = [f"{size:.0f}" for size in sorted({profile.scalars["image_size"] for profile in profiles})]
    out.print(
        Text(
            f"{profiles[0].facts['dataset']}: {scalars['classes']:.0f} classes, {scalars['train_images']:.0f} training "
            f"images, {text.images(profiles[0])} of them measured at {join_words(sizes)} px\n"
        )
    )
    for part in split_columns(rows, stdout_console().width):
        out.print_rows(part, right_aligned=set(part[0]) - {"backbone"}, empty_text="")
        out.print("")
    out.print(*_definitions(text.legend(profiles)))
    lines = text.missing_measure_lines(profiles)
    if lines:
        out.print("", _heading("Left out"), *(Text(f"  {line}") for line in lines))
    names = text.profile_names(profiles)
    for name, profile in zip(names, profiles, strict=True):
        out.print("", _heading(f"{name}: ridge probe by unit"), *_probe_chart(profile))
        out.print("", *(Text(sentence) for sentence in text.suggestions(profile)))
    if len(profiles) > 1:
        out.print("", _heading("Compared"), *(Text(sentence) for sentence in text.comparison(profiles)))
    out.print("", Text(text.uncertainty_text(profiles)))
    if plot is not None:
        out.print("", Text(f"plot: {plot}"))


def print_recommendations(
    out: Output, profiles: Sequence[FitProfile], recommendations: Sequence[Recommendation]
) -> None:
    """Prints the recommended settings of each profile and the reasons that are true of them, then the other ones."""
    from rich.text import Text

    from nbt.report.fit.text import profile_names
    from nbt.report.formatting import join_words

    for name, recommendation in zip(profile_names(profiles), recommendations, strict=False):
        out.print("", _heading(f"{name}: recommended settings, before any training"))
        out.print(Text(recommendation.settings.to_yaml().rstrip()))
        for heading, followed in (("Reasons", True), ("Suggestions that the settings do not follow", False)):
            if reasons := _reasons(recommendation.guide["sources"], followed):
                out.print("", _heading(heading), *_definitions(reasons))
        unjudged = recommendation.guide["unjudged"]
        if unjudged:
            out.print("", Text(f"No prior and no recorded task judges {join_words(unjudged)}: neutral values."))
        tables = recommendation.guide["tables"]
        basis = f"the priors and {len(tables)} recorded tasks" if tables else "the priors alone, without recorded tasks"
        out.print("", Text(f"They are based on {basis}. nbt search runs them after the baseline recipes."))


def check_space(space: str) -> None:
    """Checks `--space`.

    Raises:
        UsageError: No space has that name, or the file is invalid.
    """
    from nbt.tuning.space.space import Space

    Space.load(space)


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
    from rich.text import Text

    from nbt.cli.display.fit_chart import draw_bars, draw_columns

    if not len(profile.layers):
        return []
    console = stdout_console()
    if console.is_terminal and "utf" in (sys.stdout.encoding or "").lower():
        return [*draw_columns(profile, console.width)]
    return [Text(line) for line in draw_bars(profile)]


def _definitions(entries: Sequence[tuple[str, str]]) -> list[RenderableType]:
    """Returns terms and their definitions as a table of two columns."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for term, definition in entries:
        table.add_row(term, definition)
    return [table]


def _heading(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text, style="bold")

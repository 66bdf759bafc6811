"""`nbt fit`: how well pretrained weights fit a target, before any training."""

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
@click.option("--samples", metavar="N", type=AT_LEAST_ONE, help="Training images to look at; 1000 when not given.")
@click.option("--source-data", metavar="FOLDER", help="The images that the weights were trained on, a folder a class.")
@click.option("--plot", metavar="FILE.png|.svg", help="Draw the probes by depth into a file.")
@click.option("--recommend", is_flag=True, help="Also say which settings profile and experience suggest.")
@click.option("--space", metavar="NAME|FILE", default="non_binary", show_default=True, help="Of the settings.")
@click.option("--epochs", metavar="N", type=AT_LEAST_ONE, default=12, show_default=True, help="Of the training.")
@experience_option
@click.option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="Of split, sample, random weights.")
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
    """Tell how well pretrained weights fit, before any training.

    Features of a sample of the training images are measured, overall and unit by unit, beside those of random
    weights. Give --backbone several times to compare; --weights then once for all, or once for each in order.
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
        found = [
            api.recommend(profile, space=space, epochs=epochs, experience=experience)
            for profile in (profiles if recommend else ())
        ]
    if plot is not None:
        from nbt.report.fit.plots import write_fit_plot

        write_fit_plot(profiles, plot)
    if out.json:
        documents = [profile.to_dict() for profile in profiles]
        for document, one in zip(documents, found, strict=False):
            document |= {"recommended": one.settings.to_dict(), "guide": dict(one.guide)}
        out.print_json(documents[0] if len(documents) == 1 else {"profiles": documents})
    else:
        print_profiles(out, profiles, plot)
        print_recommendations(out, profiles, found)


def _check_option_combination(ctx: click.Context) -> None:
    """Refuses options of a recommendation where none is asked for."""
    if ctx.params["recommend"]:
        return
    for param in ctx.command.params:
        given = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if given and param.name in _RECOMMENDATION_OPTIONS:
            raise UsageError(f"{param.opts[0]} is an option of --recommend; add that, or leave this out")


def pair_backbones_with_weights(backbones: Sequence[str], weights: Sequence[str]) -> list[tuple[str | None, str]]:
    """Returns each backbone with its weights: one for all, or as many as backbones, in order.

    Raises:
        UsageError: There are more or fewer weights.
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
    """Checks `--plot` and `--source-data` without torch.

    Raises:
        UsageError: One is wrong.
    """
    if plot is not None:
        from nbt.report.fit.plots import check_plot_file

        check_plot_file(plot)
    if source_data is not None and not Path(source_data).is_dir():
        raise UsageError(f"--source-data {source_data}: no such folder; expected one subfolder of images a class")


def print_profiles(out: Output, profiles: Sequence[FitProfile], plot: str | None) -> None:
    """Writes what was found for people: table, what its columns mean, the curves, and what they suggest."""
    from rich.text import Text

    from nbt.report.fit import text as text

    rows = text.table_rows(profiles)
    scalars = profiles[0].scalars
    out.print(
        Text(
            f"{profiles[0].facts['dataset']}: {scalars['classes']:.0f} classes, {scalars['train_images']:.0f} training "
            f"images, {text.images(profiles[0])} of them measured at {scalars['image_size']:.0f} px\n"
        )
    )
    for part in split_columns(rows, stdout_console().width):
        out.print_rows(part, right=set(part[0]) - {"backbone"}, none="")
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


def print_recommendations(out: Output, profiles: Sequence[FitProfile], found: Sequence[Recommendation]) -> None:
    """Writes which settings are suggested, why, and how to train with them."""
    from rich.text import Text

    from nbt.report.fit.text import profile_names

    for name, one in zip(profile_names(profiles), found, strict=False):
        out.print("", _heading(f"{name}: suggested settings, before any training"))
        out.print(Text(one.settings.to_yaml().rstrip()))
        out.print("", _source_definitions(one.guide["sources"]))
        tables = one.guide["tables"]
        known = f"{len(tables)} recorded tasks" if tables else "no recorded tasks: the rules alone"
        out.print("", Text(f"It rests on {known}. nbt search runs it after the recipes that a user would try anyway."))


def check_space(space: str) -> None:
    """Checks `--space`.

    Raises:
        UsageError: There is none of that name, or the file is wrong.
    """
    from nbt.tuning.space.space import Space

    Space.load(space)


def _source_definitions(sources: Sequence[Mapping[str, Any]]) -> RenderableType:
    return _definitions([(source["name"], source["words"]) for source in sources])[0]


def split_columns(rows: Sequence[dict[str, str]], width: int) -> list[list[dict[str, str]]]:
    """Returns the table in as few parts as its columns need side by side; each part has the first column.

    Args:
        rows: All with the same keys.
        width: Of the terminal in characters.
    """
    first, *others = rows[0]
    wide = {name: max(len(name), *(len(row[name]) for row in rows)) + 2 for name in rows[0]}
    parts: list[list[str]] = [[]]
    for name in others:
        if parts[-1] and wide[first] + sum(wide[other] for other in (*parts[-1], name)) > width + 2:
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
    """Returns words with what they mean, the meanings below each other."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for word, meaning in entries:
        table.add_row(word, meaning)
    return [table]


def _heading(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text, style="bold")

"""`nbt fit`: measures how well pretrained weights fit a target, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nbt.cli.display.output import Output
from nbt.cli.options.checks import check_experience, check_task, pair_backbones_with_weights
from nbt.cli.options.common import AT_LEAST_ONE, Command, comparison_options, config_option, given_parameters
from nbt.errors import UsageError
from nbt.paths import check_outside

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
    "--all-measures",
    is_flag=True,
    help="Also compute N-LEEP, LEEP, NCE, TransRate and the plain H-score, which have shown no skill.",
)
@click.option(
    "--plot", metavar="FILE.png|.svg", show_default="none", help="Write a figure of the probe accuracy by depth."
)
@click.option("--recommend", is_flag=True, help="Also recommend settings from the profile and experience.")
@config_option("space", help="With --recommend: search space of the settings.")
@click.option(
    "--epochs",
    metavar="N",
    type=AT_LEAST_ONE,
    show_default="as many as the recipe has",
    help="With --recommend: epochs of the training.",
)
@config_option("experience")
@config_option("tracking_uri")
@config_option("seed", help="Seed of split, sample and random weights.")
def command(
    out: Output,
    dataset: str,
    backbone: tuple[str, ...],
    weights: tuple[str, ...],
    plot: str | None,
    source_data: str | None,
    recommend: bool,
    space: str,
    epochs: int | None,
    experience: str | None,
    tracking_uri: str | None,
    **options: Any,
) -> None:
    """Measure how well pretrained weights fit, before any training.

    The command measures the features of a sample of the training images, of the whole network and unit by unit, with
    pretrained and with random weights. Repeat --backbone to compare several; give --weights once for all backbones, or
    once per backbone in the same order.
    """
    from nbt.tracking import resolve_uri

    _check_option_combination(click.get_current_context())
    pairs = pair_backbones_with_weights(backbone, weights)
    for name, file in pairs:
        task = check_task({"dataset": dataset, "backbone": name, "weights": file, **options})
    check_files(plot, source_data)
    if plot is not None:
        check_outside("--plot", plot, task.source.path)
    check_experience(experience)
    check_space(space)
    uri = resolve_uri(tracking_uri)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        from nbt import api

        profiles = api.fit(
            dataset, pairs, source_data=source_data, tracking_uri=uri, progress=progress.update, **options
        )
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
        from nbt.cli.display.fit_summary import print_profiles, print_recommendations

        print_recommendations(out, profiles, recommendations)
        print_profiles(out, profiles, plot)


def _check_option_combination(ctx: click.Context) -> None:
    """Rejects options of a recommendation without `--recommend`.

    Raises:
        UsageError: Such an option was given.
    """
    for name, param in given_parameters(ctx).items():
        if name in _RECOMMENDATION_OPTIONS and not ctx.params["recommend"]:
            raise UsageError(f"{param.opts[0]} is an option of --recommend; add --recommend, or leave it out")


def check_files(plot: str | None, source_data: str | None) -> None:
    """Checks `--plot` and `--source-data` without importing torch.

    Raises:
        UsageError: The plot cannot be written, or the folder does not exist.
    """
    if plot is not None:
        from nbt.report.fit.plots import check_plot_file

        check_plot_file(plot)
    if source_data is not None and not Path(source_data).is_dir():
        raise UsageError(f"--source-data {source_data}: no such folder; expected one subfolder per class")


def check_space(space: str) -> None:
    """Checks `--space`.

    Raises:
        UsageError: No space has that name, or the file is invalid.
    """
    from nbt.tuning.space.space import Space

    Space.load(space)

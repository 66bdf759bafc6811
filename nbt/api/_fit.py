"""Fit profiles of several backbones, and recommended settings, before any training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from nbt.api._load_task import TaskOptions, callback_of, load_silently, load_task
from nbt.api._strategy import load_transferred_priors
from nbt.errors import UsageError, require_positive
from nbt.search_config import DEFAULT_EPOCHS
from nbt.settings import TransferSettings
from nbt.tracking.command_tracker import CommandRun, dataset_of, track_command

if TYPE_CHECKING:
    from nbt.fit.fit_profile import FitProfile
    from nbt.task.task import Task


def fit(
    dataset: str | Path,
    backbones: Sequence[tuple[str | None, str | Path]] = ((None, "default"),),
    *,
    samples: int | None = None,
    all_measures: bool = False,
    tracking_uri: str | None = None,
    **options: Unpack[TaskOptions],
) -> list[FitProfile]:
    """Measures how well several backbones fit one dataset, before any training; see `nbt.profile_fit`.

    Args:
        dataset: Dataset as in `load_task`.
        backbones: Pairs of a backbone and its weights, see `TaskOptions`.
        samples: Maximum number of training images to measure; see `nbt.profile_fit`.
        all_measures: Whether to compute the optional measures, too; see `nbt.profile_fit`.
        tracking_uri: URI of the MLflow tracking store that records the profiles; they are not recorded when None.
        **options: Other options of the task; `backbones` replaces `backbone` and `weights`; `source_data`, here a
            folder, has the images that the weights were trained on, for the similarity of the classes.

    Returns:
        One profile per backbone, in the given order.

    Raises:
        UsageError: An argument is invalid, or the sample is smaller than the number of classes.
        NbtError: A file cannot be downloaded or written.
    """
    from nbt.fit.profile_builder import profile_fit
    from nbt.fit.source_means import source_class_means

    seed, progress, source_data = options.get("seed", 0), callback_of(options), options.get("source_data")
    profiles: list[FitProfile] = []
    for backbone, weights in backbones:
        started = time.monotonic()
        task_options: TaskOptions = {**options, "backbone": backbone, "weights": weights, "source_data": None}
        # The data are the same for all backbones, and so are most checks.
        task = (load_silently if profiles else load_task)(dataset, **task_options)
        means = None
        if source_data is not None:
            means = source_class_means(task, source_data, seed=seed, progress=progress)
        try:
            profiles.append(
                profile_fit(
                    task,
                    samples=samples,
                    seed=seed,
                    source_means=means,
                    all_measures=all_measures,
                    progress=progress,
                )
            )
        except ValueError as error:
            raise UsageError(f"--{error}" if str(error).startswith("samples:") else str(error)) from error
        if tracking_uri is not None:
            track_command(_tracked_run(task, profiles[-1], time.monotonic() - started), tracking_uri)
    return profiles


def _tracked_run(task: Task, profile: FitProfile, seconds: float) -> CommandRun:
    """Returns the MLflow run of a fit profile: its measures of the whole network; those of the units are in a file."""
    from nbt.report.study.write import FIT_FILE, fit_file

    values = profile.to_dict()
    names = ("dataset", "weights", "image_size", "classes", "shots", "resize", "seed")
    return CommandRun(
        command="fit",
        name=f"fit {task.backbone.text}",
        params={"backbone": task.backbone.text, **{name: getattr(task, name) for name in names}},
        metrics=values["scalars"],
        dataset=dataset_of(task),
        texts={FIT_FILE: fit_file(values)},
        seconds=seconds,
    )


@dataclass(frozen=True)
class Recommendation:
    """Recommended settings before any training.

    Attributes:
        settings: The recommended settings.
        guide: What the priors and recorded tasks say of them, see
            `nbt.tuning.surrogate.prior_surrogate.PriorSurrogate.explain`.
        name: Name of the recommended recipe; "" if the settings follow from the priors and recorded tasks.
    """

    settings: TransferSettings
    guide: Mapping[str, Any]
    name: str = ""


def recommend(
    profile: FitProfile,
    *,
    space: str | Path = "non_binary",
    epochs: int | None = None,
    experience: str | Path | None = None,
) -> Recommendation:
    """Returns the settings to start with, and what the fit profile and recorded tasks say of them.

    They are the tuned default if the space contains it, which is better than the default recipe on other datasets
    (`studies/tuned_default.py`). With tables of your own, and in other spaces, they are the settings with the
    greatest prior mean. A search runs both after the baseline recipes. Where the profile shows that the weights have no
    advantage over random ones, training from scratch is recommended in any case, which such a search runs second.

    Args:
        profile: Fit profile from `fit` or `nbt.profile_fit`.
        space: Name or file of the search space.
        epochs: Epochs of the training; as many as the recipe has when None.
        experience: Folder of recorded tables; the tables shipped with nbt when None.

    Raises:
        UsageError: An argument is invalid.
    """
    from nbt.tuning.baseline_recipes import FROM_SCRATCH, from_scratch_recipe
    from nbt.tuning.samplers.recommendation import recommend_settings
    from nbt.tuning.samplers.without_transfer import starts_without_transfer
    from nbt.tuning.space.applicability import unconditional_space
    from nbt.tuning.space.space import Space
    from nbt.tuning.target import Target
    from nbt.tuning.tuned_recipes import TUNED_DEFAULT, tuned_default

    if epochs is not None:
        require_positive(epochs=epochs)
    whole = Space.load(space).with_fixed_epochs()
    searched = unconditional_space(whole)
    tuned, scratch = tuned_default(epochs), from_scratch_recipe(epochs or DEFAULT_EPOCHS)
    is_tuned = experience is None and searched.can_express(tuned)
    target = Target.of({}, profile.to_dict(), epochs or DEFAULT_EPOCHS)
    models = load_transferred_priors(experience, whole)
    surrogate = models.surrogate(target, searched)
    if starts_without_transfer(surrogate):
        return Recommendation(scratch, surrogate.explain(scratch), FROM_SCRATCH)
    if is_tuned:  # priors and tables reason with the length of the training that is recommended
        surrogate = models.surrogate(dataclasses.replace(target, epochs=tuned.epochs), searched)
    settings = tuned if is_tuned else recommend_settings(surrogate, searched)
    return Recommendation(settings, surrogate.explain(settings), TUNED_DEFAULT if is_tuned else "")

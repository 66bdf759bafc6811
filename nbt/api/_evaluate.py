"""Evaluation of a trained model on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbt.api._predict import as_model

if TYPE_CHECKING:
    from nbt.data.resolve import DatasetSource
    from nbt.inference.evaluation import ModelEvaluation
    from nbt.inference.model import TransferModel
    from nbt.progress import Progress as ProgressCallback
    from nbt.task.task import Task


def evaluate(
    model: TransferModel | str | Path,
    data: str | Path | DatasetSource | Task,
    *,
    part: str | None = None,
    metric: str | None = None,
    ignore_unknown: bool = False,
    device: str | None = None,
    progress: ProgressCallback | bool | None = None,
) -> ModelEvaluation:
    """Evaluates a trained model; a shortcut for `nbt.load_model(model, device).evaluate(data)`.

    Args:
        model: A loaded model, or a model folder.
        data: A folder of class folders, a CSV manifest, the name of a known dataset, or a task; see
            `nbt.TransferModel.evaluate`.
        part: "test", "val", "train", "all", or None.
        metric: The metric that stands first; that of the training when None.
        ignore_unknown: Whether images of classes that the model does not know are left out.
        device: Device of a model that is loaded, see `nbt.load_model`.
        progress: As in `nbt.predict`.

    Raises:
        UsageError: The model cannot be loaded, or as in `nbt.TransferModel.evaluate`.

    Examples:
        >>> import nbt
        >>> nbt.evaluate("model", "labelled/").value
        Interval(mean=0.8, low=0.682..., high=0.881..., n=60)
    """
    from nbt.display.progress import Progress, shown_progress

    with shown_progress(progress, Progress) as (callback, _):
        return as_model(model, device).evaluate(
            data, part=part, metric=metric, ignore_unknown=ignore_unknown, progress=callback
        )

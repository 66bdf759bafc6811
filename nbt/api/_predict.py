"""Predictions with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from nbt.inference.model import TransferModel
    from nbt.progress import Progress as ProgressCallback


def predict(
    model: TransferModel | str | Path,
    images: Any,
    *,
    top: int = 5,
    recursive: bool = True,
    device: str | None = None,
    progress: ProgressCallback | bool | None = None,
) -> pd.DataFrame:
    """Classifies images with a trained model; a shortcut for `nbt.load_model(model, device).predict(images)`.

    Args:
        model: A loaded model, or a model folder.
        images: Paths of files and folders, or images in memory; see `nbt.TransferModel.predict`.
        top: Number of most likely classes per image, 1 or more.
        recursive: Whether folders are searched recursively.
        device: Device of a model that is loaded, see `nbt.load_model`.
        progress: Callback, called as progress(activity, done, total); False shows no progress, None shows it in a
            notebook or on a terminal, True shows lines of text elsewhere, too.

    Returns:
        One row per image with the columns `path`, `label`, `probability`, ..., `error`; see
        `nbt.TransferModel.predict`.

    Raises:
        UsageError: The model cannot be loaded, a path does not exist, or a folder contains no images.

    Examples:
        >>> import nbt
        >>> nbt.predict("model", ["photos/a.png"], top=1).round(2)
                   path  label  probability error
        0  photos/a.png  rings         0.94
    """
    from nbt.display.progress import Progress, shown_progress
    from nbt.inference.images import find_images

    source = find_images(images, recursive=recursive)
    with shown_progress(progress, Progress) as (callback, _):
        return as_model(model, device).predict(source, top=top, progress=callback)


def as_model(model: TransferModel | str | Path, device: str | None = None) -> TransferModel:
    """Returns a loaded model unchanged, or loads the model of a folder."""
    from nbt.inference.model import load_model

    return load_model(model, device) if isinstance(model, (str, Path)) else model

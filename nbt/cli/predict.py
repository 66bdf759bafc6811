"""`nbt predict`: classifies images with an exported model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from nbt.cli.display.output import Output, percent
from nbt.cli.options.common import Command
from nbt.errors import UsageError


@click.command(cls=Command)
@click.argument("model_dir", metavar="MODEL_DIR")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
def command(out: Output, model_dir: str, images: Sequence[str]) -> int:
    """Classify images with a model that search or train exported.

    MODEL_DIR is the folder model/ of a study or a folder written by nbt train --export. IMAGES are image files, or
    folders that are searched recursively. Images that cannot be read are listed on stderr; the exit code is 1 if no
    image can be read.
    """
    folder = find_model(Path(model_dir))
    files = find_images(images)
    from nbt.cli.display.progress import Progress

    with Progress(out) as progress:
        progress.announce("loading the model")
        from nbt import api

        if not out.verbose:
            logging.getLogger("nbt").setLevel(logging.ERROR)  # the unreadable images are listed below
        predictions = api.predict(folder, files)
    unreadable = [prediction for prediction in predictions if prediction.error]
    if out.json:
        out.print_json(
            [
                {
                    "path": prediction.path,
                    "label": prediction.label or None,
                    "probability": None if prediction.error else prediction.probability,
                    "top": [{"label": label, "probability": share} for label, share in prediction.top],
                    "error": prediction.error or None,
                }
                for prediction in predictions
            ]
        )
    else:
        rows = [
            {"image": prediction.path, "label": prediction.label, "probability": percent(prediction.probability)}
            for prediction in predictions
            if not prediction.error
        ]
        out.print_rows(rows, right_aligned=["probability"], empty_text="no image could be read")
    for prediction in unreadable:
        print(f"{prediction.path}: {prediction.error}", file=sys.stderr)
    return 1 if len(unreadable) == len(predictions) else 0


def find_model(folder: Path) -> Path:
    """Returns the model folder.

    Raises:
        UsageError: The folder is not a model folder; if it contains one, the message names it.
    """
    if (folder / "model.json").is_file():
        return folder
    if (folder / "model" / "model.json").is_file():
        raise UsageError(f"{folder} is not a model folder; did you mean {folder / 'model'}?")
    reason = "not a model folder (it has no model.json)" if folder.is_dir() else "no such folder"
    raise UsageError(f"{folder}: {reason}; give model/ of a study, or a folder written by nbt train --export")


def find_images(names: Iterable[str]) -> list[Path]:
    """Returns the files in the given order, with each folder replaced by the images below it in a fixed order.

    Raises:
        UsageError: A path does not exist, or a folder contains no images.
    """
    from nbt.data.image_files import image_files

    files: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            images = list(image_files(path))
            if not images:
                raise UsageError(f"{name}: the folder contains no images")
            files += images
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{name}: no such file or folder")
    return files

"""`nbt predict`: what an exported model says of images."""

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

    MODEL_DIR is a study's model/ or what train --export wrote; IMAGES are files, or folders that are searched through.
    Images that cannot be read are named; the exit code is 1 where none can.
    """
    folder = find_model(Path(model_dir))
    files = find_images(images)
    from nbt.cli.display.progress import Progress

    with Progress(out) as progress:
        progress.note("loading the model")
        from nbt import api

        if not out.verbose:
            logging.getLogger("nbt").setLevel(logging.ERROR)  # what cannot be read is named below, once
        predictions = api.predict(folder, files)
    bad = [prediction for prediction in predictions if prediction.error]
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
        out.print_rows(rows, right=["probability"], none="no image could be read")
    for prediction in bad:
        print(f"{prediction.path}: {prediction.error}", file=sys.stderr)
    return 1 if len(bad) == len(predictions) else 0


def find_model(folder: Path) -> Path:
    """Returns the model folder.

    Raises:
        UsageError: It is none; the one inside a study's folder is suggested.
    """
    if (folder / "model.json").is_file():
        return folder
    if (folder / "model" / "model.json").is_file():
        raise UsageError(f"{folder} is not a model folder; did you mean {folder / 'model'}?")
    what = "not a model folder (it has no model.json)" if folder.is_dir() else "no such folder"
    raise UsageError(f"{folder}: {what}; give a study's model/ or what nbt train --export wrote")


def find_images(names: Iterable[str]) -> list[Path]:
    """Returns the files, and in place of a folder the images below it, in a fixed order.

    Raises:
        UsageError: Something does not exist, or a folder holds no images.
    """
    from nbt.data.image_files import image_files

    files: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            images = list(image_files(path))
            if not images:
                raise UsageError(f"{name}: a folder without images")
            files += images
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{name}: no such file or folder")
    return files

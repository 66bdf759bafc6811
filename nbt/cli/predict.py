"""`nbt predict`: classifies images with an exported model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from nbt.cli.display.output import Output, percent
from nbt.cli.options.common import Command
from nbt.data.formats import HIDDEN
from nbt.data.image_files import PassedOver, describe_passed_over, scan_files
from nbt.errors import UsageError


@click.command(cls=Command)
@click.argument("model_dir", metavar="MODEL_DIR")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
def command(out: Output, model_dir: str, images: Sequence[str]) -> int:
    """Classify images with a model that search or train exported.

    MODEL_DIR is the folder model/ of a study or a folder written by nbt train --export. IMAGES are image files, or
    folders that are searched recursively. Images are decoded as in the training. Images that cannot be read are listed
    on stderr with the reason, and files in the folders that are no images are counted there; --json lists both. The
    exit code is 1 if no image can be read.
    """
    folder = find_model(Path(model_dir))
    files, passed_over = find_images(images)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        progress.announce("loading the model")
        from nbt import api
        from nbt.training.export.exported_model import Prediction

        if not out.verbose:
            logging.getLogger("nbt").setLevel(logging.ERROR)  # the unreadable images are listed below
        predictions = api.predict(folder, files)
    skipped = [Prediction(str(file.path), error=file.reason) for file in passed_over]
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
                for prediction in [*predictions, *skipped]
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
    if passed_over:
        print(f"passed over: {describe_passed_over(passed_over)}", file=sys.stderr)
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


def find_images(names: Iterable[str]) -> tuple[list[Path], list[PassedOver]]:
    """Returns the image files and the files that are passed over.

    The files are in the given order, with each folder replaced by the images below it in a fixed order. Of a folder,
    files that are no images are passed over; hidden files are left out.

    Raises:
        UsageError: A path does not exist, or a folder contains no images.
    """
    files: list[Path] = []
    passed_over: list[PassedOver] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = list(scan_files(path))
            images = [file for file in found if isinstance(file, Path)]
            others = [file for file in found if isinstance(file, PassedOver) and file.reason != HIDDEN]
            if not images:
                instead = f"; found {describe_passed_over(others)}" if others else ""
                raise UsageError(f"{name}: the folder contains no images{instead}")
            files += images
            passed_over += others
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{name}: no such file or folder")
    return files, passed_over

"""`nbt predict`: classifies images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output, percent, print_to_stderr
from nbt.cli.options.common import AT_LEAST_ONE, Command

if TYPE_CHECKING:
    import pandas as pd

_TOP = 5


@click.command(cls=Command)
@click.argument("model_dir", metavar="MODEL_DIR")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@click.option(
    "--top",
    metavar="K",
    type=AT_LEAST_ONE,
    show_default=f"{_TOP} in JSON and CSV, 1 on screen",
    help="Number of most likely classes to list per image.",
)
@click.option(
    "--csv",
    metavar="FILE",
    show_default="none",
    help="Write the predictions to a CSV file, one line per image, with a header.",
)
@click.option(
    "--recursive/--no-recursive", default=True, show_default=True, help="Search folders inside the folders, too."
)
def command(
    out: Output, model_dir: str, images: Sequence[str], top: int | None, csv: str | None, recursive: bool
) -> int:
    """Classify images with a model that search or train exported.

    MODEL_DIR is the folder model/ of a study or a folder written by nbt train --export. IMAGES are image files, or
    folders that are searched recursively. Images are decoded as in the training. Images that cannot be read are listed
    on stderr with the reason, and files in the folders that are no images are counted there; --json and --csv list
    both. The exit code is 1 if no image can be read.
    """
    from nbt.data.image_files import describe_passed_over
    from nbt.inference.images import find_images
    from nbt.paths import check_writable_file
    from nbt.training.export.model_folder import find_model

    folder = find_model(Path(model_dir))
    source = find_images(list(images), recursive=recursive)
    if csv is not None:
        check_writable_file("--csv", csv)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        progress.announce("loading the model")
        from nbt import api

        frame = api.predict(folder, source, top=top or _TOP, progress=progress.update)
    predicted = frame[: len(source.items)]
    unreadable = predicted[predicted["error"] != ""]
    if csv is not None:
        from nbt.files import write_all

        text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_all(Path(csv).parent, {Path(csv).name: text})
        out.note(f"wrote {csv}")
    if out.json:
        out.print_json(prediction_list(frame))
    elif csv is None:
        _print_table(out, predicted[predicted["error"] == ""], top or 1)
    for path, error in zip(unreadable["path"], unreadable["error"], strict=True):
        print_to_stderr(f"{path}: {error}")
    if source.passed_over:
        print_to_stderr(f"passed over: {describe_passed_over(source.passed_over)}")
    return 1 if len(unreadable) == len(predicted) else 0


def prediction_list(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the rows of a frame of predictions in JSON types, with the most likely classes as a list `top`."""
    return [
        {
            "path": row["path"],
            "label": None if row["error"] else row["label"],
            "probability": None if row["error"] else row["probability"],
            "top": [] if row["error"] else [{"label": label, "probability": value} for label, value in _ranked(row)],
            "error": row["error"] or None,
        }
        for row in frame.to_dict("records")
    ]


def _ranked(row: dict[str, Any]) -> list[tuple[str, float]]:
    """Returns the most likely classes of a row with their probabilities, best first."""
    suffixes = [name.removeprefix("label") for name in row if name.startswith("label")]
    return [(row[f"label{suffix}"], row[f"probability{suffix}"]) for suffix in suffixes]


def _print_table(out: Output, frame: pd.DataFrame, top: int) -> None:
    """Prints the readable images with their `top` most likely classes."""
    rows = []
    for row in frame.to_dict("records"):
        cells = {"image": row["path"]}
        for rank, (label, probability) in enumerate(_ranked(row)[:top], start=1):
            number = f" {rank}" if rank > 1 else ""
            cells |= {f"label{number}": label, f"probability{number}": percent(probability)}
        rows.append(cells)
    right = [name for name in (rows[0] if rows else ()) if name.startswith("probability")]
    out.print_rows(rows, right_aligned=right, empty_text="no image could be read")

"""`nbt evaluate`: evaluates a trained model on labelled images."""

from __future__ import annotations

from pathlib import Path

import click

from nbt.cli.display.output import Output, print_to_stderr
from nbt.cli.options.common import Command, choice_option, config_option
from nbt.metrics import METRICS

_PARTS = ("test", "val", "train", "all")


@click.command(cls=Command)
@click.argument("model_dir", metavar="MODEL_DIR")
@click.argument("dataset", metavar="DATASET")
@config_option("data_dir")
@choice_option(
    "--part",
    _PARTS,
    show_default="test if there are test images, else all",
    help="Images to evaluate; test: the official test images, or those that nbt held out.",
)
@choice_option("--metric", tuple(METRICS), show_default="that of the training", help="The metric that stands first.")
@click.option(
    "--ignore-unknown", is_flag=True, help="Leave out images of classes that the model does not know, without an error."
)
@click.option(
    "--csv",
    metavar="FILE",
    show_default="none",
    help="Write true class, predicted class and probability of every image to a CSV file.",
)
def command(
    out: Output,
    model_dir: str,
    dataset: str,
    data_dir: str | None,
    part: str | None,
    metric: str | None,
    ignore_unknown: bool,
    csv: str | None,
) -> None:
    """Evaluate a trained model on labelled images.

    MODEL_DIR is the folder model/ of a study or a folder written by nbt train --export. DATASET is a folder with one
    subfolder per class, such a folder with train, val and test parts, a CSV file with the columns path,label[,split],
    or the name of a known dataset; its classes must have the names of those of the model. All metrics have 95 %
    intervals over the images. If the dataset has no test part, but the name of the one that the model was trained on,
    the images that nbt held out are evaluated. Images that cannot be read are listed on stderr with the reason.
    """
    from nbt.data.image_files import describe_passed_over
    from nbt.inference.labelled import check_labelled
    from nbt.paths import check_outside, check_writable_file
    from nbt.training.export.model_folder import find_model

    folder, source = find_model(Path(model_dir)), check_labelled(dataset, data_dir)
    if csv is not None:
        check_writable_file("--csv", csv)
        check_outside("--csv", csv, source.path)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        progress.announce("loading the model")
        from nbt import api

        result = api.evaluate(
            folder, source, part=part, metric=metric, ignore_unknown=ignore_unknown, progress=progress.update
        )
    if csv is not None:
        from nbt.files import write_all

        text = result.predictions.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_all(Path(csv).parent, {Path(csv).name: text})
        out.note(f"wrote {csv}")
    if out.json:
        out.print_json({"model": model_dir, "dataset": dataset, **result.to_json()})
    else:
        from nbt.cli.display.evaluation import evaluation_summary

        out.print(*evaluation_summary(result, dataset))
    for position, reason in result.errors.items():
        print_to_stderr(f"{result.paths[position]}: {reason}")
    if result.passed_over:
        print_to_stderr(f"passed over: {describe_passed_over(result.passed_over)}")

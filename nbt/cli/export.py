"""`nbt export`: writes a trained model to one file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from rich.filesize import decimal

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command, choice_option

_FORMATS = ("safetensors", "torch", "onnx")


@click.command(cls=Command)
@click.argument("model_dir", metavar="MODEL_DIR")
@choice_option("--format", _FORMATS, required=True, help="Format of the file.")
@click.option("--out", "file", metavar="FILE", required=True, help="The file; an existing one is replaced.")
def command(out: Output, model_dir: str, format: str, file: str) -> None:  # noqa: A002 - the name of the option
    """Write a trained model to one file for use without its folder.

    MODEL_DIR is the folder model/ of a study or a folder written by nbt train --export. safetensors: weights, for
    nbt.load_model. torch: a program for torch.export.load. onnx: a graph for onnxruntime and others; it needs pip
    install 'nbt-transfer[onnx]'. The last two need no nbt: they map RGB images, uint8 (n, 3, H, H), to probabilities.
    Normalisation and temperature are inside, class names and resize rule in the metadata "nbt". The outputs of the file
    are compared with those of the model before it is written under its name.
    """
    from nbt.paths import check_writable_file
    from nbt.training.export.model_folder import find_model

    folder = find_model(Path(model_dir))
    check_writable_file("--out", file)
    from nbt.display.progress import Progress

    with Progress(out.progress_mode) as progress:
        progress.announce(f"exporting the model to {file}")
        from nbt import api

        result = api.export(folder, file, format)
    if out.json:
        out.print_json(dataclasses.asdict(result))
    else:
        out.print(
            f"{result.path} ({decimal(result.size)}): its probabilities equal those of the model within "
            f"{max(result.max_difference, 1e-9):.0e} (accepted: {result.tolerance:.0e})"
        )

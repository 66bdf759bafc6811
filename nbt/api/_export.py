"""Export of a trained model to one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbt.api._predict import as_model

if TYPE_CHECKING:
    from nbt.inference.export import ExportedFile
    from nbt.inference.model import TransferModel


def export(model: TransferModel | str | Path, file: str | Path, format: str) -> ExportedFile:  # noqa: A002
    """Writes a trained model to one file, and compares the outputs of the file with those of the model.

    Args:
        model: A loaded model, or a model folder.
        file: The file, which is replaced.
        format: "safetensors" (for `nbt.load_model`), "torch" (for `torch.export.load`) or "onnx".

    Raises:
        UsageError: The model cannot be loaded, the format is unknown or needs a package that is not installed, or it
            cannot hold this model.
        NbtError: The outputs differ, or the file cannot be written.

    Examples:
        >>> import nbt
        >>> file = nbt.export("model", "model.pt2", "torch")
        >>> file.max_difference <= file.tolerance
        True
        >>> classify = torch.export.load("model.pt2").module()
        >>> classify(torch.zeros(4, 3, 28, 28, dtype=torch.uint8)).shape
        torch.Size([4, 3])
    """
    from nbt.inference.export import check_format, export_file

    check_format(format)
    return export_file(as_model(model, "cpu"), file, format)

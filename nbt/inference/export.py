"""Export of a trained model to one file: safetensors, a program of PyTorch, or ONNX.

The file holds the normalisation, the temperature, and the card of the model with class names and resize rule. It is
written under its name only after its outputs were compared with those of the model.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nbt.errors import NbtError, UsageError, nearest, one_line_message
from nbt.files import atomic_file
from nbt.inference.model import TransferModel, load_model
from nbt.training.export.model_folder import CARD_KEY

INPUT, OUTPUT, BATCH = "images", "probabilities", "batch"

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_BATCHES = (1, 5)

Probabilities = npt.NDArray[np.float32]
Classify = Callable[[torch.Tensor], Probabilities]


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format of exported files.

    Attributes:
        suffix: Usual suffix of its files.
        tolerance: Largest accepted difference of a probability from that of the model.
        write: Writes a model, on the CPU, to a file.
        load: Returns the function of a file that maps images, uint8 (n, 3, H, H), to probabilities, without use of the
            model.
    """

    suffix: str
    tolerance: float
    write: Callable[[TransferModel, Path], None]
    load: Callable[[Path], Classify]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """An exported file.

    Attributes:
        path: The file.
        format: Name of its format, one of `FORMATS`.
        size: Its size in bytes.
        max_difference: Largest difference of a probability from that of the model, over the images of the check.
        tolerance: Largest accepted difference.
    """

    path: Path
    format: str
    size: int
    max_difference: float
    tolerance: float


def export_file(model: TransferModel, file: str | Path, format_name: str) -> ExportedFile:
    """Writes a model to one file, and compares the outputs of the file with those of the model.

    Args:
        model: The model.
        file: The file, which is replaced; its folder is created.
        format_name: One of `FORMATS`.

    Raises:
        UsageError: The format is unknown or needs a package that is not installed, it cannot hold this model, or the
            file is part of the model folder or has the suffix of another format.
        NbtError: The outputs of the file differ from those of the model, or the file cannot be written.
    """
    check_format(format_name)
    path, form = Path(file), FORMATS[format_name]
    _check_file(path, model.path, format_name)
    model = TransferModel(copy.deepcopy(model.module).to("cpu"), model.metadata, model.path, torch.device("cpu"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's exporters warn of their own internals
            form.write(model, temporary)
            difference = _max_difference(model, form.load(temporary))
            if not difference <= form.tolerance:
                raise NbtError(
                    f"{path}: the outputs of the {format_name} file differ from those of the model by "
                    f"{difference:.2g}, more than {form.tolerance:.0e}; nothing was written"
                )
            size = temporary.stat().st_size
    except OSError as error:
        raise NbtError(f"{path}: cannot be written ({error})") from error
    return ExportedFile(path=path, format=format_name, size=size, max_difference=difference, tolerance=form.tolerance)


def _check_file(file: Path, model: Path, format_name: str) -> None:
    """Raises UsageError for a file of the model itself, and for a name with the suffix of another format."""
    folder = model if model.is_dir() else None
    if file.resolve() == model.resolve() or (folder is not None and folder.resolve() in file.resolve().parents):
        raise UsageError(f"{file}: that is a file of the model {model}; give another file")
    other = next((name for name, form in FORMATS.items() if form.suffix == file.suffix and name != format_name), None)
    if other is not None:
        usual = FORMATS[format_name].suffix
        raise UsageError(f"{file}: {file.suffix} is the suffix of the format {other}; give a name with {usual}")


def check_format(name: str) -> None:
    """Checks that a format is known and that its packages are installed.

    Raises:
        UsageError: It is unknown, or a package is missing.
    """
    if name not in FORMATS:
        raise UsageError(f"format {name!r}: {nearest(name, FORMATS)}")
    missing = [package for package in _ONNX_PACKAGES if importlib.util.find_spec(package) is None]
    if name == "onnx" and missing:
        raise UsageError(f"onnx needs {', '.join(missing)}: pip install 'nbt-transfer[onnx]'")


def example_images(size: int, n: int) -> torch.Tensor:
    """Returns n images of random smooth colours with noise, the same at every call, uint8 (n, 3, size, size)."""
    random = torch.Generator().manual_seed(n)
    smooth = nn.functional.interpolate(
        torch.rand(n, 3, 4, 4, generator=random), size=(size, size), mode="bilinear", align_corners=False
    )
    noise = torch.rand(n, 3, size, size, generator=random)
    return (255.0 * (0.8 * smooth + 0.2 * noise)).byte()


@torch.no_grad()
def _max_difference(model: TransferModel, classify: Classify) -> float:
    """Returns the largest difference of a probability on images in batches of several sizes."""
    module, differences = model.to_torch(), []
    for n in _CHECKED_BATCHES:
        images = example_images(model.image_size, n)
        differences.append(np.abs(classify(images) - module(images).numpy()).max())
    return float(max(differences))


def _write_safetensors(model: TransferModel, path: Path) -> None:
    from safetensors.torch import save

    state = {name: tensor.contiguous().clone() for name, tensor in model.module.state_dict().items()}
    path.write_bytes(save(state, metadata={CARD_KEY: json.dumps(model.metadata)}))


def _load_safetensors(path: Path) -> Classify:
    module = load_model(path, "cpu").to_torch()
    return lambda images: module(images).detach().numpy()


def _write_program(model: TransferModel, path: Path) -> None:
    buffer = io.BytesIO()
    torch.export.save(_traced(model, "torch"), buffer, extra_files={f"{CARD_KEY}.json": json.dumps(model.metadata)})
    path.write_bytes(buffer.getvalue())


def _load_program(path: Path) -> Classify:
    module = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return lambda images: module(images).detach().numpy()


def _write_onnx(model: TransferModel, path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), _quiet_loggers("torch.onnx", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            _traced(model, "onnx"), dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    assert program is not None
    proto = program.model_proto
    proto.producer_name = "nbt"
    _name_batch_axis(proto)
    card = proto.metadata_props.add()
    card.key, card.value = CARD_KEY, json.dumps(model.metadata)
    path.write_bytes(proto.SerializeToString())


def _name_batch_axis(proto: Any) -> None:
    """Names the first axis of input and output `BATCH`; PyTorch names it after a symbol of its tracer, such as s34."""
    symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == symbol:
                dimension.dim_param = BATCH


def _load_onnx(path: Path) -> Classify:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images.numpy()})[0]


def _traced(model: TransferModel, format_name: str) -> torch.export.ExportedProgram:
    """Returns the program of a model for batches of any size.

    Raises:
        UsageError: PyTorch cannot trace the model.
    """
    images = example_images(model.image_size, 2)
    batch = torch.export.Dim(BATCH, min=1, max=2**16)
    try:
        return torch.export.export(model.to_torch(), (images,), dynamic_shapes=({0: batch},))
    except Exception as error:  # the tracer raises errors of many types
        raise UsageError(
            f"{model.metadata['backbone']} cannot be exported as {format_name}, because PyTorch cannot trace it "
            f"({one_line_message(error)}); use --format safetensors"
        ) from error


@contextlib.contextmanager
def _quiet_loggers(*names: str) -> Any:
    """Hides the messages of loggers below errors inside the context."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


FORMATS: Mapping[str, ExportFormat] = MappingProxyType(
    {
        "safetensors": ExportFormat(
            suffix=".safetensors", tolerance=1e-6, write=_write_safetensors, load=_load_safetensors
        ),
        "torch": ExportFormat(suffix=".pt2", tolerance=1e-5, write=_write_program, load=_load_program),
        "onnx": ExportFormat(suffix=".onnx", tolerance=1e-4, write=_write_onnx, load=_load_onnx),
    }
)
"""Formats of exported files by name."""

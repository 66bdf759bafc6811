"""Export of a trained model to a folder with its weights and model card, loading of the folder, and predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nbt._version import __version__
from nbt.data.image_store import decode_images
from nbt.devices import autocast, inference_batch_size, pick_device
from nbt.errors import UsageError
from nbt.models.backbone import Backbone, build_backbone
from nbt.models.backbone_spec import parse_backbone
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.export.model_folder import CARD_FILE, WEIGHTS_FILE, replace_folder
from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise
from nbt.transfer.fast import FeatureNorm, make_feature_norm
from nbt.transfer.linearize import FirstOrder

FORMAT = 1
NORM_FORMAT = 2
"""Format of a model with feature standardisation, which a reader of format 1 would ignore."""
LINEARIZED_FORMAT = 3
"""Format of a linearised model, which has its weights and the weights around which it is expanded."""

DECODING_FORMAT = 4
"""Format of a model whose images are decoded in a way that a reader of the formats before would ignore."""

_FORMATS = (FORMAT, NORM_FORMAT, LINEARIZED_FORMAT, DECODING_FORMAT)
_BATCH_SIZE = 64
# Images of up to 224 px that are decoded at a time; 1024 of them take 150 MB.
_DECODE_CHUNK_SIZE = 1024


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image.

    Attributes:
        path: Path of the image.
        label: Most likely class; "" if the image cannot be read.
        probability: Probability of that class, 0 ... 1.
        top: Most likely classes with their probabilities, best first.
        error: Reason why the image cannot be read, else "".
    """

    path: str
    label: str = ""
    probability: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    error: str = ""


def export_model(model: Backbone | FirstOrder, task: Task, settings: TransferSettings, folder: Path) -> None:
    """Writes a model folder atomically; an existing model folder is replaced.

    Args:
        model: The trained model, or a trained linearised model.
        task: The task of the training, with its classes, image size and normalisation.
        settings: The settings of the training.
        folder: Folder to write: missing, empty, or a model folder. Its parents are created.

    Raises:
        UsageError: The folder holds other files, which are kept, or cannot be written.
    """
    from safetensors.torch import save_file

    backbone = model.model if isinstance(model, FirstOrder) else model
    norm = backbone.feature_norm.mode if isinstance(backbone.feature_norm, FeatureNorm) else "none"
    card = {
        "format": FORMAT if norm == "none" else NORM_FORMAT,
        "nbt": __version__,
        "backbone": task.backbone.text,
        "image_size": task.image_size,
        "mean": list(task.mean),
        "std": list(task.std),
        "class_names": list(task.class_names),
        "dataset": Path(task.dataset).name,
        "settings": settings.to_dict(),
    }
    if norm != "none":
        card["feature_norm"] = norm
    if isinstance(model, FirstOrder):
        card |= {"format": LINEARIZED_FORMAT, "linearized": True}
    if task.resize != "crop":
        card |= {"format": DECODING_FORMAT, "resize": task.resize}
    if task.images.value_ranges:
        card |= {"format": DECODING_FORMAT, "value_ranges": dict(task.images.value_ranges)}
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with replace_folder(folder) as temporary:
        save_file(state, temporary / WEIGHTS_FILE)
        (temporary / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """Returns the model card of a model folder.

    Raises:
        UsageError: The folder is not a model folder, or its format is unknown.
    """
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is not a model folder of nbt ({CARD_FILE}: {error})") from error
    if not isinstance(card, dict) or card.get("format") not in _FORMATS:
        card_format = card.get("format") if isinstance(card, dict) else card
        known = ", ".join(map(str, _FORMATS))
        raise UsageError(
            f"{path}: format {card_format!r} cannot be read by nbt {__version__}, which reads formats {known}"
        )
    return card


def load_model(folder: Path) -> tuple[Backbone | FirstOrder, dict[str, Any]]:
    """Returns the model of a folder, in evaluation mode on the CPU, and its model card.

    The model divides its logits by the temperature of the card, which calibrates its probabilities, if there is one.

    Raises:
        UsageError: The folder is not a model folder, or its weights do not match its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(folder)
    spec = parse_backbone(card["backbone"])
    backbone = build_backbone(spec, len(card["class_names"]), image_size=card["image_size"])
    backbone.feature_norm = make_feature_norm(card.get("feature_norm", "none"), backbone.feature_dim)
    model = FirstOrder(backbone) if card.get("linearized") else backbone
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{folder / WEIGHTS_FILE}: the weights cannot be loaded ({reason})") from error
    if card.get("temperature", 1.0) != 1.0:
        model.register_forward_hook(partial(_divide_logits, card["temperature"]))
    return model.eval(), card


def _divide_logits(temperature: float, _model: nn.Module, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
    return logits / temperature


@torch.no_grad()
def predict(folder: Path, images: Sequence[Path], *, top: int = 5, device: str | None = None) -> list[Prediction]:
    """Classifies image files with an exported model.

    Args:
        folder: Model folder of `nbt search` or `nbt train --export`.
        images: Image files; the prediction of an unreadable file has `error` set.
        top: Number of most likely classes per prediction.
        device: "cpu", "cuda" or "cuda:1"; None selects the first GPU if there is one, else the CPU.

    Returns:
        One prediction per image, in the order of `images`.

    Raises:
        UsageError: As in `load_model`.
    """
    model, card = load_model(folder)
    target_device = pick_device(device)
    model = model.to(target_device).to(memory_format=torch.channels_last)
    names, size = card["class_names"], card["image_size"]
    files = list(dict.fromkeys(images))
    probabilities: dict[Path, torch.Tensor] = {}
    reasons: dict[str, str] = {}
    ranges = {kind: (low, high) for kind, (low, high) in card.get("value_ranges", {}).items()}
    chunk_size = inference_batch_size(_DECODE_CHUNK_SIZE, size)
    for start in range(0, len(files), chunk_size):
        chunk = files[start : start + chunk_size]
        resize = card.get("resize", "crop")
        store, kept = decode_images(chunk, size, cache=False, resize=resize, value_ranges=ranges)
        reasons.update(zip(store.unreadable, store.reasons, strict=True))
        rows = _classify(model, np.asarray(store.array), card, target_device)
        probabilities.update(zip((chunk[position] for position in kept.tolist()), rows, strict=True))
    return [
        _make_prediction(path, probabilities[path], names, top)
        if path in probabilities
        else Prediction(str(path), error=reasons[str(path)])
        for path in images
    ]


def _classify(
    model: nn.Module, pixels: np.ndarray[Any, Any], card: dict[str, Any], device: torch.device
) -> torch.Tensor:
    """Returns the class probabilities of images, uint8 (n, H, H, 3), as float32 (n, C) on the CPU."""
    mean, std = torch.tensor(card["mean"], device=device), torch.tensor(card["std"], device=device)
    batch_size = inference_batch_size(_BATCH_SIZE, card["image_size"])
    batches = []
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(pixels[start : start + batch_size]).to(device)
        with autocast(device):
            logits = model(augment_and_normalise(batch, AugmentationPlan(), mean, std))
        batches.append(logits.float().softmax(dim=1).cpu())
    return torch.cat(batches) if batches else torch.empty(0, len(card["class_names"]))


def _make_prediction(path: Path, probabilities: torch.Tensor, names: list[str], top: int) -> Prediction:
    values, classes = probabilities.topk(min(top, len(names)))
    best = tuple((names[c], float(v)) for v, c in zip(values, classes.tolist(), strict=True))
    return Prediction(str(path), best[0][0], best[0][1], best)

"""Export of a trained model to a folder with its weights and its card, and loading of its module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nbt._version import __version__
from nbt.errors import UsageError, one_line_message
from nbt.models.backbone import Backbone, build_backbone
from nbt.models.backbone_spec import MissingTimmError, parse_backbone
from nbt.models.state_dict import check_state_dict
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.export.model_folder import (
    CARD_FILE,
    CARD_KEY,
    DECODING_FORMAT,
    DIGEST_KEY,
    FORMAT,
    LINEARIZED_FORMAT,
    NORM_FORMAT,
    WEIGHTS_FILE,
    check_card,
    damaged_card,
    has_intact_weights,
    read_card,
    replace_folder,
    weights_digest,
)
from nbt.transfer.fast import FeatureNorm, make_feature_norm
from nbt.transfer.linearize import FirstOrder


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
    from safetensors.torch import save

    backbone = model.model if isinstance(model, FirstOrder) else model
    norm = backbone.feature_norm.mode if isinstance(backbone.feature_norm, FeatureNorm) else "none"
    card = {
        "format": FORMAT if norm == "none" else NORM_FORMAT,
        "nbt": __version__,
        "backbone": task.backbone.text,
        "weights": Path(task.weights).name,
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
        # Not save_file, which gives the file the mode 0600.
        (temporary / WEIGHTS_FILE).write_bytes(save(state))
        card[DIGEST_KEY] = weights_digest(temporary)
        (temporary / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_module(path: Path) -> tuple[Backbone | FirstOrder, dict[str, Any]]:
    """Returns the model of a folder or file, in evaluation mode on the CPU, and its card.

    The model divides its logits by the temperature of the card, which calibrates its probabilities, if there is one.

    Args:
        path: A model folder, or a file of `nbt export --format safetensors`.

    Raises:
        UsageError: It is not a model, or its weights do not match its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card, weights = (_read_file_card(path), path) if path.is_file() else (read_card(path), path / WEIGHTS_FILE)
    backbone = _build_backbone(card, str(path if path.is_file() else path / CARD_FILE))
    model = FirstOrder(backbone) if card.get("linearized") else backbone
    try:
        if path.is_dir() and not has_intact_weights(path, card):
            raise UsageError(
                f"{weights}: damaged: the file has changed since the export; train or export the model again"
            )
        state = load_file(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UsageError(f"{weights}: the weights cannot be loaded ({one_line_message(error, 200)})") from error
    _load_weights(model, state, card, weights)
    if card.get("temperature", 1.0) != 1.0:
        model.register_forward_hook(partial(_divide_logits, card["temperature"]))
    return model.eval(), card


def _load_weights(
    model: Backbone | FirstOrder, state: Mapping[str, torch.Tensor], card: Mapping[str, Any], weights: Path
) -> None:
    """Loads the weights into the model that the card describes.

    Raises:
        UsageError: They do not fit; one line names what differs.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        described = f"its card, which says {card['backbone']} with {len(card['class_names'])} classes"
        # PyTorch's message has a line per tensor.
        check_state_dict(state, model.state_dict(), ignored_prefixes=(), source=str(weights), backbone=described)
        raise UsageError(f"{weights}: the weights cannot be loaded ({one_line_message(error, 200)})") from error


def _build_backbone(card: Mapping[str, Any], source: str) -> Backbone:
    """Returns the backbone of a card, with new weights.

    Raises:
        UsageError: There is no such backbone, it refuses the image size, or timm is missing.
    """
    try:
        spec = parse_backbone(card["backbone"])
        backbone = build_backbone(spec, len(card["class_names"]), image_size=card["image_size"])
        backbone.feature_norm = make_feature_norm(card.get("feature_norm", "none"), backbone.feature_dim)
    except MissingTimmError:
        raise
    except UsageError as error:  # its advice is for options of other commands
        raise damaged_card(source, str(error).split(";")[0]) from error
    return backbone


def _read_file_card(path: Path) -> dict[str, Any]:
    """Returns the card in the metadata of a file of safetensors.

    Raises:
        UsageError: The file is damaged or has no card.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads(file.metadata()[CARD_KEY])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a model of nbt export ({one_line_message(error)})") from error
    return check_card(card, str(path))


def _divide_logits(temperature: float, _model: nn.Module, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
    return logits / temperature

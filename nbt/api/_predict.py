"""Predictions with an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbt.training.export.exported_model import Prediction


def predict(model_dir: Path, images: Sequence[Path]) -> list[Prediction]:
    """Returns the predictions of an exported model for images; see `nbt.training.export.exported_model.predict`."""
    from nbt.training.export.exported_model import predict as classify

    return classify(model_dir, images)

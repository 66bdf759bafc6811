"""Model cards: what a model folder says of its model; they are read without torch."""

from __future__ import annotations

import json
from pathlib import Path

from nbt.settings import TransferSettings, repair

CARD = "model.json"


def is_trained_with(folder: Path, settings: TransferSettings) -> bool:
    """Tells whether a folder has a model that says it was trained with some settings."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return TransferSettings.from_dict(card["settings"]) == repair(settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False

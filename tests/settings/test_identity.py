"""Hashes and checkpoints that are stored stay valid when a setting is added."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import pytest

from nbt.settings import TransferSettings
from nbt.settings.continual import ContinualSettings
from nbt.settings.identity import SINCE
from nbt.settings.pretrain import PretrainSettings
from nbt.tuning.storage.codec import settings_hash


@dataclass(frozen=True, kw_only=True)
class LaterSettings(TransferSettings):
    """The settings of a later version, with one more field."""

    frozen_top: float = field(default=0.0, metadata={SINCE: "9.9"})

    def __post_init__(self) -> None:
        """Skips the checks of the fields, which know the fields of today's version."""


@pytest.mark.parametrize("changes", [{}, {"head_lr": 0.3, "layer_lr_shape": (-1.0, 0.0, 0.5)}])
def test_a_new_field_at_its_default_changes_no_identity(changes: dict[str, object]) -> None:
    today, later = TransferSettings(**changes), LaterSettings(**changes)  # type: ignore[arg-type]
    assert "frozen_top" in later.to_dict()
    assert later.identity() == today.identity()
    assert settings_hash(later) == settings_hash(today)


def test_a_new_field_with_another_value_is_part_of_the_identity() -> None:
    later = LaterSettings(frozen_top=0.25)
    assert later.identity() == {**TransferSettings().identity(), "frozen_top": 0.25}
    assert settings_hash(later) != settings_hash(TransferSettings())


def test_the_hash_is_that_of_version_0_1() -> None:
    """All of its fields enter, also at their defaults: the final runs of stored studies are found by it."""
    settings = TransferSettings(head_lr=0.2, epochs=6)
    text = json.dumps(settings.to_dict(), sort_keys=True)
    assert settings_hash(settings) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert settings_hash(TransferSettings()) == "8eea6e92b2a3ab7a"


def test_streams_and_sources_have_identities_of_the_same_kind() -> None:
    recipe = LaterSettings()
    stream = ContinualSettings(scenario="task", recipe=recipe)
    assert stream.identity() == ContinualSettings(scenario="task", recipe=TransferSettings()).identity()
    assert stream.identity() == {**stream.to_dict(), "recipe": TransferSettings().to_dict()}
    assert PretrainSettings().identity() == PretrainSettings().to_dict()

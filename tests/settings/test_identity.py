"""Hashes and checkpoints that are stored stay valid when a setting is added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nbt.settings import FieldRule, Setting, Technique, TransferSettings, register, unregister
from nbt.settings.continual import ContinualSettings
from nbt.settings.identity import SINCE
from nbt.settings.pretrain import PretrainSettings
from nbt.tuning.storage.codec import settings_hash


@dataclass(frozen=True, kw_only=True)
class LaterSettings(PretrainSettings):
    """The settings of a later version, with one more field."""

    later: float = field(default=0.0, metadata={SINCE: "9.9"})


@pytest.fixture
def later_setting() -> Iterator[str]:
    """A setting of a later version, as a technique that is registered at run time brings it."""
    setting = Setting(name="later", rule=FieldRule(0.0, 1.0), default=0.0, text="Later.", technique="test", since="9.9")
    register(Technique(name="test", source="", settings=(setting,), hooks=lambda run: None))
    yield setting.name
    unregister("test")


@pytest.mark.parametrize("changes", [{}, {"head_lr": 0.3, "layer_lr_shape": (-1.0, 0.0, 0.5)}])
def test_a_new_setting_at_its_default_changes_no_identity(changes: dict[str, Any], later_setting: str) -> None:
    later, before = TransferSettings(**changes), TransferSettings(**changes).identity()
    assert later.replace(later=0.5).replace(later=0.0).identity() == before
    assert settings_hash(later) == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:16]


def test_a_new_setting_with_another_value_is_part_of_the_identity(later_setting: str) -> None:
    later = TransferSettings(later=0.25)
    assert later.identity() == {**TransferSettings().identity(), "later": 0.25}
    assert settings_hash(later) != settings_hash(TransferSettings())


def test_the_hash_is_that_of_version_0_1() -> None:
    """All of its fields enter, also at their defaults: the final runs of stored studies are found by it."""
    settings = TransferSettings(head_lr=0.2, epochs=6)
    text = json.dumps(settings.identity(), sort_keys=True)
    assert len(settings.identity()) == 35
    assert settings_hash(settings) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert settings_hash(TransferSettings()) == "8eea6e92b2a3ab7a"


def test_hashes_of_version_0_1_with_other_values() -> None:
    """Computed with the code of version 0.1 (commit c8d5bce)."""
    hashes = {
        "f041774749f8ce0a": {"init": "inject", "teacher": "resnet18", "blend": 0.5, "transfer_depth": 0.4},
        "8621333977dedd2b": {"method": "dlcft", "linearized": True, "target_scale": 15.0, "curvature": "diagonal"},
        "d389c0f5a708b428": {"pretrain_scheme": "asb", "pretrain_zap_period": 1, "zap_period": 2},
        "0c07a74f535a0102": {"layer_lr_shape": (-1.0, 0.0, 0.5), "optimizer": "adamw", "epochs": 3},
    }
    for expected, changes in hashes.items():
        assert settings_hash(TransferSettings(**changes)) == expected


def test_streams_and_sources_have_identities_of_the_same_kind() -> None:
    stream = ContinualSettings(scenario="task", recipe=TransferSettings())
    assert stream.identity() == {**stream.to_dict(), "recipe": TransferSettings().identity()}
    assert LaterSettings().identity() == PretrainSettings().identity() == PretrainSettings().to_dict()
    assert LaterSettings(later=0.5).identity() == {**PretrainSettings().to_dict(), "later": 0.5}

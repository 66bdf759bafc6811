from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbt.settings import TransferSettings, repair
from nbt.training.model_card import CARD, is_trained_with

SETTINGS = TransferSettings(frozen_depth=0.3, head_lr=0.0123456789, layer_lr_shape=(-1.0, -0.5, 0.0), epochs=7)


def lay(folder: Path, card: object) -> None:
    (folder / CARD).write_text(json.dumps(card))


def test_a_model_is_known_by_its_settings(tmp_path: Path) -> None:
    lay(tmp_path, {"settings": SETTINGS.to_dict()})
    assert is_trained_with(tmp_path, SETTINGS)
    assert not is_trained_with(tmp_path, SETTINGS.replace(epochs=8))
    assert not is_trained_with(tmp_path, SETTINGS.replace(head_lr=0.01234567891))


def test_settings_that_repair_alike_are_the_same(tmp_path: Path) -> None:
    given = TransferSettings(frozen_depth=0.5, transfer_depth=0.25)
    assert repair(given) != given
    lay(tmp_path, {"settings": repair(given).to_dict()})
    assert is_trained_with(tmp_path, given)


def test_what_a_card_of_before_does_not_name_is_the_default(tmp_path: Path) -> None:
    lay(tmp_path, {"settings": {"epochs": 7}})
    assert is_trained_with(tmp_path, TransferSettings(epochs=7))


@pytest.mark.parametrize("card", [{}, [], None, {"settings": 3}, {"settings": []}, {"settings": {"later": 1}}])
def test_a_card_that_does_not_say_is_of_another_model(card: object, tmp_path: Path) -> None:
    lay(tmp_path, card)
    assert not is_trained_with(tmp_path, TransferSettings(epochs=3))


def test_no_folder_and_no_card_are_no_model(tmp_path: Path) -> None:
    assert not is_trained_with(tmp_path, SETTINGS)
    assert not is_trained_with(tmp_path / "nowhere", SETTINGS)
    (tmp_path / CARD).write_bytes(b"\xff{")
    assert not is_trained_with(tmp_path, SETTINGS)

"""Checkpoints of trainings: atomic writes, and files that cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from nbt.training.checkpoint import checkpoint_identity, load_checkpoint, save_checkpoint

IDENTITY = {"seed": 1}


def test_round_trip_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trial.pt"
    save_checkpoint(path, {"identity": IDENTITY, "w": torch.arange(3)})
    state = load_checkpoint(path, IDENTITY)
    assert state is not None
    assert state["w"].tolist() == [0, 1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none.pt", IDENTITY) is None


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "of another trial"])
def test_an_unusable_checkpoint_is_logged_and_training_starts_over(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trial.pt"
    save_checkpoint(path, {"identity": {"seed": 2} if damage == "of another trial" else IDENTITY, "w": torch.arange(9)})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "foreign":
        path.write_bytes(b"not a checkpoint")
    elif damage == "empty":
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="nbt"):
        assert load_checkpoint(path, IDENTITY) is None
    assert "starts over" in caplog.text


def test_a_checkpoint_of_other_bytes_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "trial.pt"
    save_checkpoint(path, {"identity": {**IDENTITY, "content_hash": "before"}})
    assert load_checkpoint(path, {**IDENTITY, "content_hash": "now"}) is None
    assert load_checkpoint(path, {**IDENTITY, "content_hash": "before"}) is not None
    save_checkpoint(path, {"identity": IDENTITY})  # of an earlier version
    assert load_checkpoint(path, {**IDENTITY, "content_hash": "now"}) is not None


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trial.pt"
    save_checkpoint(path, {"identity": IDENTITY, "w": torch.arange(3)})

    def fail(state: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"identity": IDENTITY, "w": torch.arange(5)})
    monkeypatch.undo()
    state = load_checkpoint(path, IDENTITY)
    assert state is not None
    assert state["w"].tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_version_0_1_continues_while_the_training_version_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has neither the hash of its weights nor a training version."""
    path = tmp_path / "trial.pt"
    save_checkpoint(path, {"identity": IDENTITY})
    wanted = {**IDENTITY, "weights_hash": "abc"}
    assert load_checkpoint(path, checkpoint_identity(**wanted)) is not None
    assert load_checkpoint(path, checkpoint_identity(**{**wanted, "seed": 2})) is None
    monkeypatch.setattr("nbt.training.checkpoint.TRAINING_VERSION", 2)
    assert load_checkpoint(path, checkpoint_identity(**wanted)) is None


def test_a_value_that_this_version_does_not_know_makes_another_trial(tmp_path: Path) -> None:
    path = tmp_path / "trial.pt"
    save_checkpoint(path, {"identity": {**IDENTITY, "precision": "float16"}})
    assert load_checkpoint(path, IDENTITY) is None

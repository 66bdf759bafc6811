"""Files that workers send by content, on the driver's side."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.tuning.engines.protocol import WorkerMessage
from nbt.tuning.engines.ray.file_transfer import read_checkpoint, store_files


def make_spec(checkpoint: Path | None = None, export: Path | None = None) -> TrialSpec:
    return TrialSpec(key="t", settings=TransferSettings(), checkpoint=checkpoint, export=export)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_checkpoint_is_stored_and_read_again(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "c" / "t.pt")
    assert read_checkpoint(spec) is None
    assert read_checkpoint(make_spec()) is None
    for message in (WorkerMessage(checkpoint=b"one"), WorkerMessage(checkpoint=b"two"), WorkerMessage()):
        store_files(spec, message)
    assert read_checkpoint(spec) == b"two"
    assert names(tmp_path / "c") == {"t.pt"}, "no temporary file is left"
    store_files(spec, WorkerMessage(outcome=TrialOutcome(error="ValueError: no")))
    assert names(tmp_path / "c") == {"t.pt"}, "the search controller decides about the checkpoints of failed trials"


def test_the_checkpoint_of_a_finished_trial_is_removed(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "t.pt")
    store_files(spec, WorkerMessage(checkpoint=b"one"))
    (tmp_path / "t.pt.task").touch()
    (tmp_path / "other.pt").touch()
    store_files(spec, WorkerMessage(outcome=TrialOutcome()))
    assert names(tmp_path) == {"other.pt"}


def test_a_model_replaces_an_older_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("old")
    export = {"model.json": b"{}", "weights.safetensors": b"w"}
    store_files(make_spec(export=tmp_path / "model"), WorkerMessage(outcome=TrialOutcome(), export=export))
    assert (tmp_path / "model" / "model.json").read_text() == "{}"
    assert names(tmp_path / "model") == {"model.json", "weights.safetensors"}
    assert names(tmp_path) == {"model"}


def test_a_model_replaces_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"is not a model folder.*notes\.txt"):
        store_files(make_spec(export=tmp_path), WorkerMessage(outcome=TrialOutcome(), export={"model.json": b"{}"}))
    assert names(tmp_path) == {"notes.txt"}

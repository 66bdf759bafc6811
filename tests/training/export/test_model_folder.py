"""Replacement of model folders; other files are never deleted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings, repair
from nbt.training.export.model_folder import (
    CARD_FILE,
    DIGEST_KEY,
    WEIGHTS_FILE,
    check_export,
    model_problem,
    replace_folder,
    was_trained_with,
    weights_digest,
)

SETTINGS = TransferSettings(frozen_depth=0.3, head_lr=0.0123456789, layer_lr_shape=(-1.0, -0.5, 0.0), epochs=7)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("old")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(folder: Path) -> None:
    with replace_folder(folder) as temporary:
        for name in (CARD_FILE, WEIGHTS_FILE):
            (temporary / name).write_text("new")


@pytest.mark.parametrize("names", [None, (), (CARD_FILE,), (CARD_FILE, WEIGHTS_FILE)])
def test_new_empty_and_model_folders_are_written(working_folder: Path, names: tuple[str, ...] | None) -> None:
    if names is not None:
        fill(working_folder / "a/model", *names)
    assert check_export("a/model") == working_folder / "a/model"
    write(Path("a/model"))
    assert contents(working_folder) == {f"a/model/{CARD_FILE}": "new", f"a/model/{WEIGHTS_FILE}": "new"}
    assert [path.name for path in (working_folder / "a").iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (("thesis.tex",), "thesis.tex"),
        ((CARD_FILE, WEIGHTS_FILE, "notes.txt"), "notes.txt"),
        ((WEIGHTS_FILE,), WEIGHTS_FILE),
        (("a", "b", "c", "d"), r"a, b, c, \.\.\."),
    ],
)
def test_a_folder_with_other_files_is_not_changed(working_folder: Path, names: tuple[str, ...], listed: str) -> None:
    folder = fill(working_folder / "models", *names)
    for export in (lambda: check_export("models", "--export"), lambda: write(Path("models"))):
        with pytest.raises(UsageError, match=rf"export models: {folder} is not a model folder, .*\({listed}\)"):
            export()
    assert contents(working_folder) == {f"models/{name}": "old" for name in names}


@pytest.mark.parametrize("path", [".", "..", "../here", "link"])
def test_relative_paths_and_links_are_resolved(working_folder: Path, path: str) -> None:
    fill(working_folder, "mine")
    (working_folder / "link").symlink_to(working_folder.parent)
    with pytest.raises(UsageError, match="is not a model folder"):
        write(Path(path))
    assert contents(working_folder.parent) == {"here/mine": "old"}


def test_subfolders_are_kept(working_folder: Path) -> None:
    fill(working_folder / "model" / CARD_FILE, "mine")
    with pytest.raises(UsageError, match="is not a model folder"):
        write(Path("model"))
    assert contents(working_folder) == {f"model/{CARD_FILE}/mine": "old"}


def test_the_working_directory_is_refused(working_folder: Path) -> None:
    with pytest.raises(UsageError, match="is the working directory; give a folder in it"):
        check_export(".")
    assert working_folder.is_dir()


def test_a_mount_point_is_refused(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(working_folder / "disk")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "disk")
    with pytest.raises(UsageError, match="is a mount point; give a folder in it"):
        check_export("disk")
    check_export("disk/model")


def test_a_file_in_the_path_is_named(working_folder: Path) -> None:
    (working_folder / "file").write_text("old")
    for path in ("file", "file/model"):
        with pytest.raises(UsageError, match=f"^--export {path}: .*file is no folder"):
            check_export(path, "--export")


def test_a_link_to_a_model_folder_points_to_the_new_model(working_folder: Path) -> None:
    fill(working_folder / "real", CARD_FILE, WEIGHTS_FILE)
    (working_folder / "link").symlink_to("real")
    write(Path("link"))
    assert (working_folder / "link").is_symlink()
    assert contents(working_folder / "real") == {CARD_FILE: "new", WEIGHTS_FILE: "new"}


def test_a_failed_write_keeps_the_old_model(working_folder: Path) -> None:
    fill(working_folder / "model", CARD_FILE, WEIGHTS_FILE)
    with pytest.raises(RuntimeError), replace_folder(Path("model")) as temporary:
        (temporary / CARD_FILE).write_text("new")
        raise RuntimeError
    assert contents(working_folder) == {f"model/{CARD_FILE}": "old", f"model/{WEIGHTS_FILE}": "old"}


def test_files_that_appear_during_the_write_are_kept(working_folder: Path) -> None:
    with pytest.raises(UsageError, match="mine"), replace_folder(Path("model")):
        fill(working_folder / "model", "mine")
    assert contents(working_folder) == {"model/mine": "old"}


def write_card(folder: Path, card: object) -> None:
    (folder / CARD_FILE).write_text(json.dumps(card))
    (folder / WEIGHTS_FILE).write_text("weights")


def test_a_model_is_identified_by_its_settings(tmp_path: Path) -> None:
    write_card(tmp_path, {"settings": SETTINGS.to_dict()})
    assert was_trained_with(tmp_path, SETTINGS)
    assert not was_trained_with(tmp_path, SETTINGS.replace(epochs=8))
    assert model_problem(tmp_path, SETTINGS.replace(epochs=8)) == "has other settings"
    assert not was_trained_with(tmp_path, SETTINGS.replace(head_lr=0.01234567891))


def test_a_model_with_damaged_weights_is_none(tmp_path: Path) -> None:
    write_card(tmp_path, {})
    write_card(tmp_path, {"settings": SETTINGS.to_dict(), DIGEST_KEY: weights_digest(tmp_path)})
    assert was_trained_with(tmp_path, SETTINGS)
    (tmp_path / WEIGHTS_FILE).write_text("weightz")
    assert model_problem(tmp_path, SETTINGS) == "is damaged"
    (tmp_path / WEIGHTS_FILE).unlink()
    assert model_problem(tmp_path, SETTINGS) == "is damaged"
    assert model_problem(tmp_path / "nowhere", SETTINGS) == "is missing"


def test_settings_are_compared_after_repair(tmp_path: Path) -> None:
    settings = TransferSettings(frozen_depth=0.5, transfer_depth=0.25)
    assert repair(settings) != settings
    write_card(tmp_path, {"settings": repair(settings).to_dict()})
    assert was_trained_with(tmp_path, settings)


def test_settings_that_a_card_does_not_have_are_defaults(tmp_path: Path) -> None:
    write_card(tmp_path, {"settings": {"epochs": 7}})
    assert was_trained_with(tmp_path, TransferSettings(epochs=7))


@pytest.mark.parametrize("card", [{}, [], None, {"settings": 3}, {"settings": []}, {"settings": {"later": 1}}])
def test_a_card_without_valid_settings_is_another_model(card: object, tmp_path: Path) -> None:
    write_card(tmp_path, card)
    assert not was_trained_with(tmp_path, TransferSettings(epochs=3))


def test_a_folder_without_a_readable_card_is_another_model(tmp_path: Path) -> None:
    assert not was_trained_with(tmp_path, SETTINGS)
    assert not was_trained_with(tmp_path / "nowhere", SETTINGS)
    (tmp_path / CARD_FILE).write_bytes(b"\xff{")
    assert not was_trained_with(tmp_path, SETTINGS)

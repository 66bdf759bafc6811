"""Model folders are replaced, and nothing else is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings, repair
from nbt.training.export.model_folder import CARD_FILE, WEIGHTS_FILE, check_export, replace_folder, was_trained_with

SETTINGS = TransferSettings(frozen_depth=0.3, head_lr=0.0123456789, layer_lr_shape=(-1.0, -0.5, 0.0), epochs=7)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("old")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(one.relative_to(folder)): one.read_text() for one in sorted(folder.rglob("*")) if one.is_file()}


def write(folder: Path) -> None:
    with replace_folder(folder) as place:
        for name in (CARD_FILE, WEIGHTS_FILE):
            (place / name).write_text("new")


@pytest.mark.parametrize("names", [None, (), (CARD_FILE,), (CARD_FILE, WEIGHTS_FILE)])
def test_a_new_an_empty_and_a_model_folder_are_written(own_folder: Path, names: tuple[str, ...] | None) -> None:
    if names is not None:
        fill(own_folder / "a/model", *names)
    assert check_export("a/model") == own_folder / "a/model"
    write(Path("a/model"))
    assert contents(own_folder) == {f"a/model/{CARD_FILE}": "new", f"a/model/{WEIGHTS_FILE}": "new"}
    assert [one.name for one in (own_folder / "a").iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("thesis.tex",), "thesis.tex"),
        ((CARD_FILE, WEIGHTS_FILE, "notes.txt"), "notes.txt"),
        ((WEIGHTS_FILE,), WEIGHTS_FILE),
        (("a", "b", "c", "d"), r"a, b, c, \.\.\."),
    ],
)
def test_a_folder_with_anything_else_stays_as_it_is(own_folder: Path, names: tuple[str, ...], said: str) -> None:
    folder = fill(own_folder / "models", *names)
    for refused in (lambda: check_export("models", "--export"), lambda: write(Path("models"))):
        with pytest.raises(UsageError, match=rf"export models: {folder} is no model folder, .*\({said}\)"):
            refused()
    assert contents(own_folder) == {f"models/{name}": "old" for name in names}


@pytest.mark.parametrize("given", [".", "..", "../here", "link"])
def test_folders_by_other_names_are_the_same_folders(own_folder: Path, given: str) -> None:
    fill(own_folder, "mine")
    (own_folder / "link").symlink_to(own_folder.parent)
    with pytest.raises(UsageError, match="is no model folder"):
        write(Path(given))
    assert contents(own_folder.parent) == {"here/mine": "old"}


def test_folders_inside_are_kept_too(own_folder: Path) -> None:
    fill(own_folder / "model" / CARD_FILE, "mine")
    with pytest.raises(UsageError, match="is no model folder"):
        write(Path("model"))
    assert contents(own_folder) == {f"model/{CARD_FILE}/mine": "old"}


def test_the_working_directory_stays_where_it_is(own_folder: Path) -> None:
    with pytest.raises(UsageError, match="is the working directory; give a folder in it"):
        check_export(".")
    assert own_folder.is_dir()


def test_a_mount_point_cannot_be_replaced(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(own_folder / "disk")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "disk")
    with pytest.raises(UsageError, match="is a mount point; give a folder in it"):
        check_export("disk")
    check_export("disk/model")


def test_a_file_in_the_way_is_named(own_folder: Path) -> None:
    (own_folder / "file").write_text("old")
    for given in ("file", "file/model"):
        with pytest.raises(UsageError, match=f"^--export {given}: .*file is no folder"):
            check_export(given, "--export")


def test_a_link_to_a_model_folder_leads_to_the_new_one(own_folder: Path) -> None:
    fill(own_folder / "real", CARD_FILE, WEIGHTS_FILE)
    (own_folder / "link").symlink_to("real")
    write(Path("link"))
    assert (own_folder / "link").is_symlink()
    assert contents(own_folder / "real") == {CARD_FILE: "new", WEIGHTS_FILE: "new"}


def test_what_fails_half_way_leaves_the_old_model(own_folder: Path) -> None:
    fill(own_folder / "model", CARD_FILE, WEIGHTS_FILE)
    with pytest.raises(RuntimeError), replace_folder(Path("model")) as place:
        (place / CARD_FILE).write_text("new")
        raise RuntimeError
    assert contents(own_folder) == {f"model/{CARD_FILE}": "old", f"model/{WEIGHTS_FILE}": "old"}


def test_what_comes_while_the_model_is_written_is_kept(own_folder: Path) -> None:
    with pytest.raises(UsageError, match="mine"), replace_folder(Path("model")):
        fill(own_folder / "model", "mine")
    assert contents(own_folder) == {"model/mine": "old"}


def lay(folder: Path, card: object) -> None:
    (folder / CARD_FILE).write_text(json.dumps(card))


def test_a_model_is_known_by_its_settings(tmp_path: Path) -> None:
    lay(tmp_path, {"settings": SETTINGS.to_dict()})
    assert was_trained_with(tmp_path, SETTINGS)
    assert not was_trained_with(tmp_path, SETTINGS.replace(epochs=8))
    assert not was_trained_with(tmp_path, SETTINGS.replace(head_lr=0.01234567891))


def test_settings_that_repair_alike_are_the_same(tmp_path: Path) -> None:
    given = TransferSettings(frozen_depth=0.5, transfer_depth=0.25)
    assert repair(given) != given
    lay(tmp_path, {"settings": repair(given).to_dict()})
    assert was_trained_with(tmp_path, given)


def test_what_a_card_of_before_does_not_name_is_the_default(tmp_path: Path) -> None:
    lay(tmp_path, {"settings": {"epochs": 7}})
    assert was_trained_with(tmp_path, TransferSettings(epochs=7))


@pytest.mark.parametrize("card", [{}, [], None, {"settings": 3}, {"settings": []}, {"settings": {"later": 1}}])
def test_a_card_that_does_not_say_is_of_another_model(card: object, tmp_path: Path) -> None:
    lay(tmp_path, card)
    assert not was_trained_with(tmp_path, TransferSettings(epochs=3))


def test_no_folder_and_no_card_are_no_model(tmp_path: Path) -> None:
    assert not was_trained_with(tmp_path, SETTINGS)
    assert not was_trained_with(tmp_path / "nowhere", SETTINGS)
    (tmp_path / CARD_FILE).write_bytes(b"\xff{")
    assert not was_trained_with(tmp_path, SETTINGS)

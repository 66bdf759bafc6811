"""What changed between two lists of images."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from nbt.data.contents import Contents, describe_changes
from nbt.data.image_files import LabelledFile
from nbt.data.listing import listing_from_files

FILES = [(f"cat/{number}.png", "cat", "train") for number in range(8)] + [("dog/0.png", "dog", "test")]


def contents(folder: Path, files: list[tuple[str, str, str]] = FILES, changed: tuple[str, ...] = ()) -> Contents:
    """Writes files, of which the content is their number in `FILES` or their name, and returns their contents."""
    original = {name: str(number) for number, (name, _, _) in enumerate(FILES)}
    for name, _, _ in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("other" + name if name in changed else original.get(name, name))
    rows = [LabelledFile(folder / name, label, role) for name, label, role in files]
    found = Contents.of(listing_from_files("d", rows).with_hashes(), ("--resize crop",))
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def before(tmp_path: Path) -> Contents:
    return contents(tmp_path / "before")


def test_a_moved_folder_is_the_same(before: Contents, tmp_path: Path) -> None:
    moved = contents(tmp_path / "moved")
    assert before == moved and describe_changes(before, moved) == ""


def test_every_kind_of_change_is_counted_and_named(before: Contents, tmp_path: Path) -> None:
    files = [*FILES[2:7], ("cat/new.png", "cat", "train"), ("dog/0.png", "dog", "train")]
    (tmp_path / "now/dog").mkdir(parents=True)
    now = contents(tmp_path / "now", files, changed=("cat/3.png",))
    assert describe_changes(before, now) == (
        "1 changed (cat/3.png), 1 in another part (dog/0.png: test, now train), "
        "3 removed (cat/0.png; cat/1.png; cat/7.png), 1 added (cat/new.png)"
    )


def test_a_file_in_the_folder_of_another_class_has_another_label(before: Contents, tmp_path: Path) -> None:
    now = contents(tmp_path / "now")
    names = ("dog/moved.png", *now.names[1:])
    moved = dataclasses.replace(now, names=names, labels=(1, *now.labels[1:]))
    assert describe_changes(before, moved) == "1 with another label (dog/moved.png: cat, now dog)"


def test_renamed_files(before: Contents, tmp_path: Path) -> None:
    now = contents(tmp_path / "now")
    renamed = dataclasses.replace(now, names=tuple(f"{name}.png" for name in now.names))
    assert before.equals_apart_from_names(renamed) and not before.equals_apart_from_names(contents(tmp_path, FILES[1:]))
    assert describe_changes(before, renamed).startswith("9 renamed (cat/0.png, now cat/0.png.png; ")
    assert describe_changes(before, renamed).endswith(" ...)")


def test_other_options(before: Contents) -> None:
    now = dataclasses.replace(before, options=("--resize pad",))
    assert describe_changes(before, now) == "--resize crop before, --resize pad now"
    assert not before.equals_apart_from_names(now)


def test_the_stored_form_is_small_and_complete(before: Contents) -> None:
    assert Contents.from_bytes(before.to_bytes()) == before
    rng = random.Random(0)
    many = Contents(
        classes=("a", "b"),
        names=tuple(f"train/a/img_{number:05d}.jpg" for number in range(10_000)),
        hashes=tuple(f"{rng.getrandbits(64):016x}" for _ in range(10_000)),
        labels=(0,) * 10_000,
        roles=("train",) * 10_000,
    )
    assert len(many.to_bytes()) < 16 * 10_000
    for damaged in (b"", before.to_bytes()[:-3], b"x" * 50):
        with pytest.raises(ValueError, match="damaged"):
            Contents.from_bytes(damaged)

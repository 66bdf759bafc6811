from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nbt.data.image_files import LabelledFile
from nbt.data.listing import Listing, listing_from_files, relative_names
from nbt.data.readers.digits import read_digits
from nbt.data.registry import read_dataset
from nbt.data.resolve import resolve
from nbt.errors import UsageError
from tests.data.pictures import save_classes, save_cub


def small(folder: Path) -> Listing:
    return read_dataset(resolve(save_classes(folder, {"ant": 2, "bee": 1, "cow": 3})))


def test_digits_five_to_nine_are_the_target_and_the_others_the_source() -> None:
    target, source = read_dataset(resolve("digits")), read_digits(source=True)
    assert (target.class_names, source.class_names) == (tuple("56789"), tuple("01234"))
    assert len(target) == resolve("digits").spec.images == 896 and len(source) == 901
    for listing in (target, source):
        assert isinstance(listing.items, np.ndarray)
        assert listing.items.shape[1:] == (8, 8, 3) and listing.items.dtype == np.uint8
        assert (listing.items.min(), listing.items.max()) == (0, 255)
        assert (listing.items[..., 0] == listing.items[..., 2]).all()
        assert set(listing.labels.tolist()) == set(range(5)) and set(listing.roles.tolist()) == {""}


def test_labels_follow_the_class_order(tmp_path: Path) -> None:
    listing = small(tmp_path)
    assert listing.class_names == ("ant", "bee", "cow")
    assert listing.labels.tolist() == [0, 0, 1, 2, 2, 2] and listing.labels.dtype == np.int64
    assert [path.parent.name for path in listing.items] == ["ant", "ant", "bee", "cow", "cow", "cow"]
    assert listing.name == tmp_path.name


def test_select_classes_takes_the_first_classes(tmp_path: Path) -> None:
    listing = small(tmp_path)
    two = listing.select_classes(2)
    assert two.class_names == ("ant", "bee") and two.labels.tolist() == [0, 0, 1]
    assert len(two.items) == len(two.roles) == 3
    assert listing.select_classes(None) is listing
    for n in (1, 4):
        with pytest.raises(UsageError, match=f"--classes {n}: .* has 3 classes"):
            listing.select_classes(n)


def test_the_digest_changes_with_the_contents_but_not_with_the_location(tmp_path: Path) -> None:
    listing = small(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert read_dataset(resolve(tmp_path / "two")).digest() == listing.digest()
    digests = {listing.digest(), listing.take(np.arange(5)).digest(), listing.select_classes(2).digest()}
    swapped = Listing(listing.name, ("ant", "cow", "bee"), listing.items, listing.labels, listing.roles)
    digests.add(swapped.digest())
    relabelled = Listing(listing.name, listing.class_names, listing.items, listing.labels[::-1].copy(), listing.roles)
    digests.add(relabelled.digest())
    parts = Listing(listing.name, listing.class_names, listing.items, listing.labels, np.array(["test"] * 6))
    digests.add(parts.digest())
    with (tmp_path / "two" / "ant" / "000.png").open("ab") as file:
        file.write(b"more")
    digests.add(read_dataset(resolve(tmp_path / "two")).digest())
    (tmp_path / "two" / "ant" / "000.png").unlink()  # a file that was removed meanwhile
    digests.add(Listing("x", listing.class_names, [tmp_path / "two"] * 6, listing.labels, listing.roles).digest())
    assert len(digests) == 8


def test_the_digest_of_images_in_memory_depends_on_their_pixels() -> None:
    listing = read_digits()
    assert isinstance(listing.items, np.ndarray)
    changed = listing.items.copy()
    changed[0, 0, 0, 0] ^= 1
    other = Listing(listing.name, listing.class_names, changed, listing.labels, listing.roles)
    assert listing.digest() == read_digits().digest() != other.digest()


def test_names_are_relative_to_the_common_folder() -> None:
    assert relative_names([Path("/a/b/c.png"), Path("/a/d/e.png")]) == ["b/c.png", "d/e.png"]
    assert relative_names([Path("/a/b/c.png")]) == ["c.png"]
    assert relative_names([Path("/c.png"), Path("/d/e.png")]) == ["c.png", "d/e.png"]
    assert relative_names([]) == []


def test_the_class_order_can_be_given() -> None:
    rows = [LabelledFile(Path("a.png"), "x", "train"), LabelledFile(Path("b.png"), "y", "test")]
    listing = listing_from_files("d", rows, ["y", "x"])
    assert listing.labels.tolist() == [1, 0] and listing.roles.tolist() == ["train", "test"]


def test_a_cub_folder_with_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 1 classes with images"):
        read_dataset(resolve(save_cub(tmp_path, classes=1)))


@pytest.mark.parametrize(("name", "images", "counts"), [("dtd10", 1200, {120}), ("sketch7", 680, {100, 80})])
def test_real_folders(shared: Path, name: str, images: int, counts: set[int]) -> None:
    listing = read_dataset(resolve(shared / "data" / name))
    assert len(listing) == images
    assert set(np.bincount(listing.labels).tolist()) == counts
    assert len(listing.class_names) == int(name[-2:].lstrip("dh"))

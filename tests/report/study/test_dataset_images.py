import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbt.errors import NbtError
from nbt.report.study.dataset_images import evenly_spaced, read_dataset_images
from tests.report.study.image_study import image_study, write_images


def opened(uri: str) -> Image.Image:
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_images_have_the_order_of_the_task(tmp_path: Path) -> None:
    record = image_study(tmp_path)
    images = read_dataset_images(record)
    assert images.names[0] == "blue/0.png" and len(images.names) == len(images.listing) == 24
    uris = images.thumbnails([0, 23], 40)
    assert [opened(uri).size for uri in uris.values()] == [(40, 40)] * 2
    red, green, blue = np.asarray(opened(uris[0])).mean(axis=(0, 1))
    assert blue > 200 and red < 50 and green < 50


def test_a_file_that_is_gone_has_no_thumbnail(tmp_path: Path) -> None:
    images = read_dataset_images(image_study(tmp_path))
    (tmp_path / "blue" / "0.png").write_bytes(b"damaged")
    assert list(images.thumbnails([0, 1], 40)) == [1]


def test_a_changed_dataset_is_not_shown(tmp_path: Path) -> None:
    record = image_study(tmp_path)
    (tmp_path / "blue" / "new.png").write_bytes((tmp_path / "blue" / "0.png").read_bytes())
    with pytest.raises(NbtError, match="has changed since the search"):
        read_dataset_images(record)


def test_a_dataset_that_is_gone_is_named(tmp_path: Path) -> None:
    record = image_study(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "elsewhere")
    with pytest.raises(NbtError, match="the dataset cannot be read any more"):
        read_dataset_images(record)


def test_images_that_could_not_be_read_in_the_search_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "blue" / "00.png").write_bytes(b"damaged")
    record = image_study(tmp_path)
    assert record.dataset["unreadable_images"] == 1
    assert read_dataset_images(record).names[0] == "blue/0.png"


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(NbtError, match="is not in the cache"):
        read_dataset_images(image_study(tmp_path / "images", dataset="eurosat"))


def test_evenly_spaced() -> None:
    assert evenly_spaced(np.arange(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced(np.array([5, 7]), 4) == [5, 7]
    assert evenly_spaced(np.array([], dtype=np.int64), 4) == []

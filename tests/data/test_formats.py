from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from nbt.data import formats
from nbt.data.formats import NEEDS_HEIF, NOT_AN_IMAGE, heif_is_installed, readable_formats, reason_to_pass_over
from nbt.data.image_files import PassedOver, describe_passed_over

needs_heif = pytest.mark.skipif(not importlib.util.find_spec("pillow_heif"), reason="needs pillow-heif")


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(formats, "heif_is_installed", lambda: False)
    readable_formats.cache_clear()
    yield
    readable_formats.cache_clear()


def save(path: Path, kind: str) -> Path:
    if kind == "HEIF":
        assert heif_is_installed()
    Image.new("RGB", (8, 8), (200, 10, 90)).save(path, kind)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "PCX", "DDS"),
        pytest.param("HEIF", marks=needs_heif),
    ],
)
@pytest.mark.parametrize("name", ["scan_0001", "image.dat", "photo.txt"])
def test_images_are_recognised_by_content(tmp_path: Path, kind: str, name: str) -> None:
    assert reason_to_pass_over(save(tmp_path / name, kind)) == ""


@pytest.mark.parametrize(
    "content", [b"", b"P1 of the notes", b"BM and other letters", b"GIF", b"II*\0 no image", b"text\n" * 100]
)
def test_other_files_without_the_suffix_of_an_image_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    assert reason_to_pass_over(path) == NOT_AN_IMAGE


@pytest.mark.parametrize("name", ["a.JPE", "a.jfif", "a.jp2", "a.tga", "a.mpo", "a.Tif", "a.avif", "a.qoi"])
def test_the_suffix_of_an_image_is_enough(name: str) -> None:
    assert reason_to_pass_over(Path("/missing", name)) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".hidden.jpg", "hidden or system file"),
        ("._a.png", "hidden or system file"),
        ("Thumbs.db", "hidden or system file"),
        ("a.CR2", "camera raw file"),
        ("a.svg", "page, vector or layered format"),
        ("a.mov", "video"),
        ("missing", "not an image"),
    ],
)
def test_other_files_are_passed_over_for_a_reason(name: str, reason: str) -> None:
    assert reason_to_pass_over(Path("/missing", name)) == reason


@pytest.mark.usefixtures("without_heif")
def test_without_the_extra_heif_files_are_passed_over_with_its_name(tmp_path: Path) -> None:
    for name in ("a.heic", "b.HIF", "c.dat"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        assert reason_to_pass_over(tmp_path / name) == NEEDS_HEIF
    assert "pip install 'nbt-transfer[heif]'" in NEEDS_HEIF


@needs_heif
def test_with_the_extra_heif_files_are_images(tmp_path: Path) -> None:
    assert reason_to_pass_over(tmp_path / "a.heic") == ""


def test_files_that_are_passed_over_are_counted_by_suffix_and_reason() -> None:
    files = [PassedOver(Path(name), NOT_AN_IMAGE) for name in ("a.txt", "b", "c.TXT")]
    assert describe_passed_over([*files, PassedOver(Path("d.mov"), "video")]) == (
        "2 .txt (not an image); 1 without a suffix (not an image); 1 .mov (video)"
    )

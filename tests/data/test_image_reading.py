from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nbt.data import formats, image_reading
from nbt.data.image_reading import NEEDS_TIFFFILE, UNKNOWN_FORMAT, read_image
from nbt.data.value_range import ValueStatistics
from tests.data.pictures import gradient

Ranges = dict[str, tuple[float, float]]


def save_colours(path: Path, values: np.ndarray) -> Path:
    """Writes uint16 (H, W, 3 or 4) as PNG, which Pillow does not write with 16 bits per colour, or TIFF."""
    if path.suffix == ".png":
        height, width, channels = values.shape
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
        body = b"\x89PNG\r\n\x1a\n"
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            body += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        path.write_bytes(body)
    else:
        tifffile.imwrite(path, values, photometric="rgb")
    return path


def colour(path: Path, ranges: Ranges | None = None) -> list[int]:
    pixels = np.asarray(read_image(path, 4, ranges or {}).rgb)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    return pixels[0, 0].tolist()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_all_bits_of_16_bit_colours_are_read_where_fewer_are_in_use(tmp_path: Path, name: str) -> None:
    path = save_colours(tmp_path / name, np.full((4, 5, 3), (4095, 1000, 17), np.uint16))
    image = read_image(path, 4)
    assert image.statistics[:4] == ValueStatistics("uint16", 0, 4095)[:4]  # at most 15 * 256 + 255
    assert colour(path) == [15, 3, 0]
    assert colour(path, {"uint16": (0, 4095)}) == [255, 62, 1]
    assert colour(path, {"uint16": (0, 65535)}) == [15, 3, 0]


def test_without_a_decoder_in_torchvision_the_upper_bits_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_colours(tmp_path / "a.png", np.full((4, 5, 3), (4095, 1000, 17), np.uint16))
    monkeypatch.delattr("torchvision.io.decode_image")
    assert colour(path, {"uint16": (0, 4095)}) == [240, 48, 0]


def test_without_tifffile_the_upper_bits_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_colours(tmp_path / "a.tif", np.full((4, 5, 3), (4095, 1000, 17), np.uint16))
    monkeypatch.setattr(image_reading, "_tifffile_is_installed", lambda: False)
    assert colour(path, {"uint16": (0, 4095)}) == [240, 48, 0]


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [((4095, 0, 0, 4095), [255, 0, 0]), ((4095, 0, 0, 0), [255, 255, 255]), ((0, 0, 0, 65535), [0, 0, 0])],
)
def test_the_opacity_of_16_bit_colours_may_use_more_bits(
    tmp_path: Path, pixel: tuple[int, ...], expected: list[int]
) -> None:
    path = save_colours(tmp_path / "a.png", np.full((4, 4, 4), pixel, np.uint16))
    assert colour(path, {"uint16": (0, 4095)}) == expected


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_16_bit_colours_are_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((6, 4, 3), np.uint16)
    upright[0, 0] = 4095
    stored = {1: upright, 3: upright[::-1, ::-1], 6: np.rot90(upright)}[orientation]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    for ranges in ({}, {"uint16": (0, 4095)}):
        image = read_image(path, 4, ranges)
        rgb = image.rgb if image.transpose is None else image.rgb.transpose(image.transpose)
        assert rgb.size == (4, 6)
        assert np.unravel_index(np.asarray(rgb)[..., 0].argmax(), (6, 4)) == (0, 0)


@pytest.mark.parametrize(
    ("values", "ranges", "expected"),
    [
        (np.full((4, 4), 2048, np.uint16), {"uint16": (0, 4095)}, 128),
        (np.full((4, 4), -24, np.int16), {"int32": (-1024, 3071)}, 62),
        (np.full((4, 4), 2**31 + 5, np.uint32), {"int32": (0, 2**32 - 1)}, 128),
        (np.full((4, 4), 0.5, np.float32), {}, 128),
        (np.full((4, 4), 0.5, np.float64), {}, 128),
        (np.full((4, 4), 0.5, np.float16), {}, 128),
        (np.full((4, 4, 3), 0.5, np.float32), {}, 128),
        (np.full((4, 4), 40, np.float32), {"float": (20, 60)}, 128),
        (np.full((4, 4), 1000, np.uint64), {"int32": (0, 1023)}, 249),
        (np.full((4, 4, 1), 1000, np.uint16), {"uint16": (0, 1023)}, 249),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else "",
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_of_any_type_is_scaled(
    tmp_path: Path, values: np.ndarray, ranges: Ranges, expected: int, byteorder: str
) -> None:
    photometric = "rgb" if values.shape[2:] == (3,) else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=byteorder, photometric=photometric)
    assert colour(tmp_path / "a.tif", ranges) == [expected] * 3


def test_the_marker_of_missing_data_is_not_finite(tmp_path: Path) -> None:
    values = np.array([[0.25, -9999.0], [0.5, np.nan]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", True)])
    image = read_image(tmp_path / "a.tif", 4)
    assert image.statistics == ValueStatistics("float", 0.25, 0.5, 2)
    assert np.asarray(image.rgb)[..., 0].tolist() == [[64, 0], [128, 0]]


def test_the_first_page_and_frame_are_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), shade) for shade in ((255, 0, 0), (0, 255, 0))]
    for name, options in (("a.tif", {}), ("a.mpo", {}), ("a.webp", {"lossless": True}), ("a.gif", {}), ("a.png", {})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_allclose(colour(tmp_path / name), (255, 0, 0), atol=2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("a.jpe", "JPEG"), ("a.jfif", "JPEG"), ("a.jp2", "JPEG2000"), ("a.tga", "TGA"), ("a.mpo", "MPO")),
        *(("a.avif", "AVIF"), ("a.heic", "HEIF"), ("a.pcx", "PCX"), ("a.dds", "DDS"), ("a", "PNG"), ("a.jpg", "PNG")),
        *(("b.png", "WEBP"), ("a.dat", "JPEG"), ("a.jpg", "HEIF")),
    ],
)
def test_formats_are_read_whatever_the_suffix(tmp_path: Path, name: str, kind: str) -> None:
    assert formats.heif_is_installed()
    path = tmp_path / name
    Image.new("RGB", (16, 16), (200, 10, 90)).save(path, kind)
    assert formats.reason_to_pass_over(path) == ""
    np.testing.assert_allclose(colour(path), (200, 10, 90), atol=4)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heif_is_upright(tmp_path: Path, orientation: int) -> None:
    assert formats.heif_is_installed()
    turn = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    upright = Image.fromarray(gradient(32, 32))
    transpose = turn[orientation]
    stored = upright if transpose is None else upright.transpose(transpose)
    stored.getexif()[0x0112] = orientation
    stored.save(tmp_path / "a.heic", quality=95)
    image = read_image(tmp_path / "a.heic", 32)
    rgb = image.rgb if image.transpose is None else image.rgb.transpose(image.transpose)
    assert np.abs(np.asarray(rgb).astype(int) - np.asarray(upright).astype(int)).mean() < 4


def test_a_very_large_jpeg_is_decoded_at_a_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("jpg", "png"):
        Image.fromarray(gradient(320, 240)).save(tmp_path / f"a.{kind}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    monkeypatch.setattr(image_reading, "MAX_PIXELS", 10000)
    image = read_image(tmp_path / "a.jpg", 30)
    assert (image.rgb.size, image.size) == ((40, 30), (320, 240))
    with pytest.raises(ValueError, match="million pixels even at a fraction"):
        read_image(tmp_path / "a.jpg", 200)
    with pytest.raises(ValueError, match="million pixels; save it smaller, or as JPEG"):
        read_image(tmp_path / "a.png", 30)
    monkeypatch.setattr(image_reading, "MAX_JPEG_PIXELS", 320 * 240 - 1)
    with pytest.raises(ValueError, match="million pixels; save it smaller"):
        read_image(tmp_path / "a.jpg", 30)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"text", UNKNOWN_FORMAT), (b"\x89PNG\r\n\x1a\n", UNKNOWN_FORMAT)],
)
def test_a_file_that_is_no_image_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_image(tmp_path / "a.jpg", 4)


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4)))
    monkeypatch.setattr(image_reading, "_tifffile_is_installed", lambda: False)
    with pytest.raises(ValueError, match="needs tifffile: pip install") as error:
        read_image(tmp_path / "a.tif", 4)
    assert str(error.value) == NEEDS_TIFFFILE
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setattr(image_reading, "heif_is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"nbt-transfer\[heif\]"):
        read_image(tmp_path / "a.jpg", 4)


def test_tiff_of_many_channels_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((8, 8, 7), np.float32), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(ValueError, match="expected an image of 1 to 4 channels"):
        read_image(tmp_path / "a.tif", 4)

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nbt.data.decoding import decode_file, resize_pixels
from tests.data.pictures import gradient


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_the_shorter_side_is_scaled_and_the_centre_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((40, 100, 3), dtype=np.uint8)
    pixels[:, 30:70] = 255  # the central square
    for array in (pixels, pixels.transpose(1, 0, 2)):
        square = decode_file(save(tmp_path / "a.png", Image.fromarray(array)), 20)
        assert square.shape == (20, 20, 3) and square.dtype == np.uint8
        # As when scaling before cropping, the filter reaches beyond the border of the crop.
        assert square[1:-1, 1:-1].min() == 255 and square.min() > 200


@pytest.mark.parametrize("wide", [True, False])
def test_pad_keeps_the_whole_image_and_squash_fills_the_square(tmp_path: Path, wide: bool) -> None:
    pixels = np.full((40, 80, 3), 255, dtype=np.uint8)
    pixels[:, :40] = 0
    path = save(tmp_path / "a.png", Image.fromarray(pixels if wide else pixels.transpose(1, 0, 2)))
    padded, squashed = (decode_file(path, 20, resize) for resize in ("pad", "squash"))
    if not wide:
        padded, squashed = padded.transpose(1, 0, 2), squashed.transpose(1, 0, 2)
    assert padded.shape == squashed.shape == (20, 20, 3)
    assert (padded[:5] == (124, 116, 104)).all() and (padded[15:] == (124, 116, 104)).all()
    assert padded[6:14, :8].max() == 0 and padded[6:14, 12:].min() == 255
    assert squashed[:, :8].max() == 0 and squashed[:, 12:].min() == 255


def test_small_images_are_enlarged() -> None:
    square = resize_pixels(gradient(8, 6), 28)
    assert square.shape == (28, 28, 3)
    assert resize_pixels(square, 28) is not None
    np.testing.assert_array_equal(resize_pixels(square, 28), square)


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    square = decode_file(save(tmp_path / "board.png", Image.fromarray(board)), 16)
    assert abs(int(square[4:-4, 4:-4].mean()) - 127) <= 2
    assert square[4:-4, 4:-4].std() < 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_respected(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = Image.fromarray(gradient(32, 32))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"turned.{suffix}", stored, exif=exif)
    difference = np.abs(decode_file(path, 32).astype(int) - np.asarray(upright).astype(int))
    assert difference.mean() < 4


def grey(value: int) -> tuple[int, int, int]:
    return (value, value, value)


@pytest.mark.parametrize(
    ("name", "image", "colour"),
    [
        ("grey.png", Image.new("L", (4, 4), 100), grey(100)),
        ("grey.jpg", Image.new("L", (4, 4), 100), grey(100)),
        ("bits.png", Image.new("1", (4, 4), 1), grey(255)),
        ("sixteen.png", Image.fromarray(np.full((4, 4), 25700, np.uint16)), grey(100)),
        ("sixteen_dark.png", Image.fromarray(np.full((4, 4), 200, np.uint16)), grey(1)),
        ("sixteen.tif", Image.fromarray(np.full((4, 4), 65535, np.uint16)), grey(255)),
        ("integers.tif", Image.fromarray(np.full((4, 4), 200, np.int32)), grey(200)),
        ("wide_integers.tif", Image.fromarray(np.full((4, 4), 25700, np.int32)), grey(100)),
        ("share.tif", Image.fromarray(np.full((4, 4), 0.2, np.float32)), grey(51)),
        ("float.tif", Image.fromarray(np.full((4, 4), 51.0, np.float32)), grey(51)),
        ("nan.tif", Image.fromarray(np.full((4, 4), np.nan, np.float32)), grey(0)),
        ("alpha_clear.png", Image.new("RGBA", (4, 4), (10, 20, 30, 0)), grey(255)),
        ("alpha_half.png", Image.new("RGBA", (4, 4), (0, 0, 0, 128)), grey(127)),
        ("alpha_full.webp", Image.new("RGBA", (4, 4), (10, 20, 30, 255)), (10, 20, 30)),
        ("grey_alpha.png", Image.new("LA", (4, 4), (7, 0)), grey(255)),
        ("inks.jpg", Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        ("inks.tif", Image.new("CMYK", (4, 4), (0, 0, 0, 255)), grey(0)),
        ("palette.gif", Image.new("RGB", (4, 4), (200, 10, 90)).quantize(4), (200, 10, 90)),
        ("plain.ppm", Image.new("RGB", (4, 4), (1, 2, 3)), (1, 2, 3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_colour_mode_becomes_rgb(
    tmp_path: Path, name: str, image: Image.Image, colour: tuple[int, int, int]
) -> None:
    square = decode_file(save(tmp_path / name, image), 4)
    assert square.shape == (4, 4, 3)
    np.testing.assert_allclose(square.reshape(-1, 3), np.tile(colour, (16, 1)), atol=4 if "jpg" in name else 1)


def test_16_bit_images_are_scaled(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    square = decode_file(save(tmp_path / "ramp.png", Image.fromarray(ramp * 257)), 16)
    np.testing.assert_array_equal(square[..., 0], ramp)


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    assert decode_file(save(tmp_path / "a.png", image, transparency=1), 4).min() == 255
    assert decode_file(save(tmp_path / "b.png", image), 4).max() == 9


def test_the_first_of_several_frames_is_decoded(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert decode_file(path, 4)[0, 0].tolist() == [255, 0, 0]


def test_jpeg_is_decoded_at_a_fraction_with_a_similar_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "large.jpg", Image.fromarray(gradient(640, 480)), quality=95)
    fast = decode_file(path, 48).astype(int)
    loaded = []
    original = Image.Image.resize

    def resize(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        loaded.append(image.size)
        return original(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    decode_file(path, 48)
    assert loaded == [(80, 60)]
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
    slow = decode_file(path, 48).astype(int)
    assert loaded[-1] == (640, 480)
    assert np.abs(fast - slow).mean() < 1.5


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises((OSError, SyntaxError, ValueError)):
        decode_file(path, 32)

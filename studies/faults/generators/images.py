"""Images and archives that are broken, or made to do harm."""

from __future__ import annotations

import io
import random
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from faults.generators.case import Case, Sandbox

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_MODES = ("L", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "F", "LA")


def encoded(rng: random.Random, size: tuple[int, int] = (24, 20), kind: str = "PNG") -> bytes:
    """Returns a valid image of random pixels."""
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def broken_image(rng: random.Random) -> tuple[str, str, bytes]:
    """Returns what is wrong, the ending of the name, and the bytes of a broken or unusual image."""
    kind = rng.choice(_FORMATS)
    content, ending = encoded(rng, kind=kind), kind.lower()
    match rng.randrange(9):
        case 0:
            return "truncated image", ending, content[: rng.randrange(len(content))]
        case 1:
            return "empty image", ending, b""
        case 2:
            return "random bytes as image", ending, rng.randbytes(rng.randrange(1, 4000))
        case 3:
            changed = bytearray(content)
            for _ in range(rng.randrange(1, 40)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return "changed bytes of an image", ending, bytes(changed)
        case 4:
            sides = rng.choice([(65535, 65535), (2**31 - 1, 1), (0, 10), (60000, 40000)])
            return "PNG that claims to be huge", "png", png_of_size(*sides)
        case 5:
            return "text as image", rng.choice(("jpg", "svg", "png")), b"<svg onload='alert(1)'>\x00\xff" * 20
        case 6:
            mode = rng.choice(_MODES)
            buffer = io.BytesIO()
            Image.new(mode, (9, 7)).save(buffer, "TIFF")
            return f"image of mode {mode}", "tiff", buffer.getvalue()
        case 7:
            return "image of one pixel", ending, encoded(rng, (1, 1), kind)
        case _:
            return "image with another ending", rng.choice(("png", "jpg", "gif")), content


def png_of_size(width: int, height: int) -> bytes:
    """Returns a PNG whose header claims a size that its few bytes of data do not have."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_classes(folder: Path, rng: random.Random, names: tuple[str, ...] = ("a", "b"), images: int = 6) -> None:
    """Writes a data set with valid images."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            (folder / name / f"{number}.png").write_bytes(encoded(rng))


def bad_images(sandbox: Sandbox) -> Case:
    """A data set with broken images; the good ones are used, if there are any."""
    rng, folder = sandbox.rng, sandbox.folder / "images"
    good = rng.choice((0, 12))
    write_classes(folder, rng, images=good)
    texts = []
    for number in range(rng.randrange(1, 6)):
        text, ending, content = broken_image(rng)
        texts.append(text)
        (folder / rng.choice("ab") / f"broken{number}.{ending}").write_bytes(content)
    if rng.random() < 0.2:
        (folder / "a" / "loop.png").symlink_to("loop.png")
    return Case(texts[0], ("check", "--dataset", str(folder), "--json"), (0, 1, 2))


def bad_predictions(sandbox: Sandbox) -> Case:
    """A broken image, which a model is to classify: an error in its row."""
    text, ending, content = broken_image(sandbox.rng)
    path = sandbox.folder / f"image.{ending}"
    path.write_bytes(content)
    return Case(text, ("predict", str(sandbox.model), str(path), "--json"), (0, 1, 2))


def bad_archives(sandbox: Sandbox) -> Case:
    """An archive of Omniglot with members that lead out of its folder, links, bombs, or damaged bytes."""
    rng, path = sandbox.rng, sandbox.folder / "omniglot_small1.zip"
    top = "images_background_small1"
    good = f"{top}/Greek/character01/0001_01.png"
    kind = rng.choice(("outside", "absolute", "link", "bomb", "truncated", "bytes", "many", "device"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(good, encoded(rng))
        match kind:
            case "outside":
                escape = rng.choice(("../../escaped.png", f"{top}/../../../escaped.png", "..\\..\\escaped.png"))
                file.writestr(escape, b"x")
            case "absolute":
                file.writestr(f"{sandbox.folder.parent}/escaped.png", b"x")
            case "link" | "device":
                member = zipfile.ZipInfo(f"{top}/Greek/character01/0002_01.png")
                member.external_attr = (stat.S_IFLNK if kind == "link" else stat.S_IFCHR) << 16
                file.writestr(member, "/etc/passwd")
            case "bomb":
                file.writestr(f"{top}/Greek/character01/0003_01.png", b"\0" * 20_000_000)
            case "many":
                for number in range(10_001):
                    file.writestr(f"{top}/Greek/character01/{number}_01.png", b"")
            case _:
                pass
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "bytes":
        path.write_bytes(rng.randbytes(500))
    arguments = ("check", "--dataset", "omniglot-small", "--data-dir", str(sandbox.folder))
    return Case(f"archive: {kind}", arguments, (1, 2))

"""Which files are images, by suffix or by content, and why the others are passed over."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
        *(".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf"),
        *(".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".pcx", ".qoi", ".dds"),
    }
)
"""Suffixes of the image formats that nbt reads; files with other suffixes are recognised by their content."""

HEIF_SUFFIXES = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))

NOT_AN_IMAGE = "not an image"
HIDDEN = "hidden or system file"
NEEDS_HEIF = "HEIF, which needs pillow-heif: pip install 'nbt-transfer[heif]'"

_SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "iconcache.db", "desktop.ini", "picasa.ini", "zbthumbnail.info")
)
_SYSTEM_FOLDERS = frozenset(
    {
        *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "lost+found", "lost.dir", "found.000"),
        *("network trash folder", "temporary items", "thumbs", "_thumbs", "thumbnails", "_thumbnails", "__pycache__"),
        *("mlruns", "mlartifacts"),
    }
)
# Of camera raw files, which are TIFF by content, Pillow would read the thumbnail.
_UNREAD_SUFFIXES = {
    **dict.fromkeys(
        (".dng", ".nef", ".cr2", ".cr3", ".crw", ".arw", ".orf", ".rw2", ".raf", ".pef"), "camera raw file"
    ),
    **dict.fromkeys((".svg", ".eps", ".ps", ".pdf", ".ai", ".psd"), "page, vector or layered format"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"), "video"),
    **dict.fromkeys((".dcm", ".nii"), "medical format; export it as 16-bit PNG or TIFF"),
}
# Formats that can be recognised by content; TGA has no signature.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "PCX", "QOI", "DDS")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


def reason_to_pass_over(path: Path) -> str:
    """Returns why a file is not read as an image; "" for an image.

    A file with the suffix of an image counts as one without being opened; it may still prove unreadable.
    """
    if is_hidden(path.name) or path.name.lower() in _SYSTEM_FILES:
        return HIDDEN
    suffix = path.suffix.lower()
    return reason_of_suffix(suffix) or ("" if suffix in IMAGE_SUFFIXES else _reason_by_content(path))


def reason_of_suffix(suffix: str) -> str:
    """Returns why files with a suffix, such as ".nef", are not read; "" where their content decides."""
    if suffix.lower() in HEIF_SUFFIXES and not heif_is_installed():
        return NEEDS_HEIF
    return _UNREAD_SUFFIXES.get(suffix.lower(), "")


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden, or made by a system or program for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def is_heif(path: Path) -> bool:
    """Returns whether a file is HEIF by its content."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


@functools.cache
def heif_is_installed() -> bool:
    """Returns whether pillow-heif is installed, after registering it with Pillow."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@functools.cache
def readable_formats(*, by_content: bool = False) -> tuple[str, ...]:
    """Returns Pillow's names of the formats that nbt reads, after registering them with Pillow.

    Args:
        by_content: Whether to leave out formats without a signature.
    """
    from PIL import Image

    names = (*_FORMATS, *(["HEIF"] if heif_is_installed() else []), *([] if by_content else ["TGA"]))
    Image.init()
    return tuple(name for name in names if name in Image.OPEN)


def _reason_by_content(path: Path) -> str:
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=readable_formats(by_content=True)):
            return ""
    except Image.DecompressionBombError:
        return ""
    except Exception:  # Pillow raises errors of many types for files that are no images
        return _reason_of_unidentified(path)


def _reason_of_unidentified(path: Path) -> str:
    try:
        return NEEDS_HEIF if is_heif(path) and not heif_is_installed() else NOT_AN_IMAGE
    except OSError:
        return NOT_AN_IMAGE

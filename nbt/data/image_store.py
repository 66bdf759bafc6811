"""Decodes images once, in parallel, into one uint8 array that is cached by a hash of its inputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nbt.data.decoding import decode_file, resize_pixels
from nbt.data.listing import Items, relative_names
from nbt.errors import NbtError, one_line_message
from nbt.files import atomic_file
from nbt.machine.cores import usable_cores
from nbt.paths import cache_folder
from nbt.progress import Progress

logger = logging.getLogger("nbt")

DECODER_VERSION = 1
"""Part of every fingerprint; incremented when the decoded pixels change."""

MEMORY_LIMIT = 1 << 30
"""Maximum size in bytes of arrays that are read into memory; larger ones are memory-mapped."""

_DECODE_CHUNK_SIZE = 16
_STALE_AFTER_SECONDS = 24 * 3600.0
_MAX_NAMES_SHOWN = 5

Pixels = npt.NDArray[np.uint8]
DecodedImages = Generator[tuple[int, Pixels | str]]


@dataclass(frozen=True, eq=False, repr=False)
class ImageStore:
    """Square RGB images of one size.

    A store with a cache file is pickled as a path; other processes map the file and share its memory.

    Attributes:
        array: The images, uint8 (N, H, H, 3), in memory or a read-only memory map.
        path: The cache file that holds exactly this array, or None for images that are in memory only.
        unreadable: Names of the images that were left out because they could not be decoded.
    """

    array: Pixels
    path: Path | None = None
    unreadable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        dtype, shape = self.array.dtype, self.array.shape
        if dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"expected uint8 (N, H, H, 3), got {dtype} {shape}")

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.array.shape[1])

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return int(self.array.nbytes)

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        path = f", path={str(self.path)!r}" if self.path else ""
        return f"ImageStore(<{len(self)} images, {self.size} px>{path})"

    def in_file(self, folder: Path) -> ImageStore:
        """Returns a store of the same images with a file, so that other processes share its memory.

        Args:
            folder: Folder for the file of a store that has none, or whose cache file is gone; created when needed.

        Raises:
            NbtError: The file cannot be written.
        """
        if self.path is not None and self.path.exists():
            return self
        path = folder / "images.npy"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path, self.array)
        except OSError as error:
            raise NbtError(
                f"the images cannot be written to {folder} for the workers ({error}); set TMPDIR to a larger disk, or "
                "use --workers 1"
            ) from error
        return _unpickle_store(None, str(path), self.unreadable)

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[Any, ...]]:
        if self.path is None:
            return _unpickle_store, (np.asarray(self.array), None, self.unreadable)
        return _unpickle_store, (None, str(self.path), self.unreadable)


def _unpickle_store(array: Pixels | None, path: str | None, unreadable: tuple[str, ...]) -> ImageStore:
    if path is None:
        assert array is not None
        return ImageStore(array, unreadable=unreadable)
    try:
        return ImageStore(np.load(path, mmap_mode="r"), path=Path(path), unreadable=unreadable)
    except (OSError, ValueError) as error:
        raise NbtError(f"{path}: the decoded images are missing or damaged ({error}); start again") from error


def decode_images(
    items: Items,
    size: int,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    cache: bool = True,
) -> tuple[ImageStore, npt.NDArray[np.int64]]:
    """Decodes images to squares of one size, or reads them from the cache.

    The shorter side is scaled to `size` with antialiasing and the centre is cropped. Images that cannot be decoded are
    left out; a single warning states their number and names the first few.

    Args:
        items: Image files, or images in memory, uint8 (N, H, W, 3).
        size: Height and width in pixels, 1 or more.
        progress: Called with the number of decoded images.
        workers: Number of threads; one per usable core when None.
        cache: Whether to read from and write to the cache.

    Returns:
        The images, and their indices in `items`, ascending, int64 (n,).

    Raises:
        NbtError: The cache cannot be written, for example because the disk is full.
    """
    decoded = _iter_decoded(items, size, workers or usable_cores(), progress)
    if not cache:
        images, reasons = _collect_decoded(decoded)
        array = np.stack(images) if images else np.empty((0, size, size, 3), dtype=np.uint8)
        return _build_store(array, None, items, reasons)
    path = cache_folder("images") / f"{_fingerprint(items, size)}.npy"
    cached = _read_cache(path, len(items), size)
    if cached is None:
        _write_cache(path, decoded, len(items), size)
        cached = _read_cache(path, len(items), size)
        if cached is None:
            raise NbtError(f"{path} cannot be read back; check the disk, or set NBT_CACHE to another folder")
    return _build_store(cached[0], path, items, cached[1])


def _build_store(
    array: Pixels, path: Path | None, items: Items, reasons: dict[int, str]
) -> tuple[ImageStore, npt.NDArray[np.int64]]:
    """Warns of unreadable images, and returns the store with the indices of its images."""
    names = tuple(_item_name(items, index) for index in reasons)
    if reasons:
        shown = [f"{name} ({reason})" for name, reason in zip(names, reasons.values(), strict=True)][:_MAX_NAMES_SHOWN]
        more = f" and {len(names) - _MAX_NAMES_SHOWN} more" if len(names) > _MAX_NAMES_SHOWN else ""
        description = f"{', '.join(shown)}{more}"
        logger.warning("%d of %d images cannot be read and are left out: %s", len(names), len(items), description)
    kept = np.setdiff1d(np.arange(len(items), dtype=np.int64), np.array(list(reasons), dtype=np.int64))
    return ImageStore(array, path=path, unreadable=names), kept


def _item_name(items: Items, index: int) -> str:
    return f"image {index}" if isinstance(items, np.ndarray) else str(items[index])


def _iter_decoded(items: Items, size: int, threads: int, progress: Progress | None) -> DecodedImages:
    """Yields the index of each image with its pixels, or with the reason why it cannot be decoded, in order.

    At most 4 chunks per thread are decoded ahead, which bounds the memory in use.
    """
    starts = iter(range(0, len(items), _DECODE_CHUNK_SIZE))
    pending: deque[Future[list[tuple[int, Pixels | str]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="nbt-decode")
    try:
        # Pillow warns of unusual metadata and of large images, which are decoded nevertheless.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while True:
                while len(pending) < 4 * threads and (start := next(starts, None)) is not None:
                    pending.append(pool.submit(_decode_chunk, items, start, size))
                if not pending:
                    return
                for index, result in pending.popleft().result():
                    yield index, result
                if progress:
                    progress("decoding images", index + 1, len(items))
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_chunk(items: Items, start: int, size: int) -> list[tuple[int, Pixels | str]]:
    """Returns the index of each image of a chunk with its pixels, or with the reason why it cannot be decoded."""
    return [(index, _decode(items[index], size)) for index in range(start, min(start + _DECODE_CHUNK_SIZE, len(items)))]


def _decode(item: Path | Pixels, size: int) -> Pixels | str:
    try:
        return resize_pixels(item, size) if isinstance(item, np.ndarray) else decode_file(item, size)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise errors of many types
        return one_line_message(error, 120)


def _collect_decoded(decoded: DecodedImages) -> tuple[list[Pixels], dict[int, str]]:
    """Returns the decoded images, and the reasons why the others cannot be decoded, by index."""
    images: list[Pixels] = []
    reasons: dict[int, str] = {}
    for index, result in decoded:
        if isinstance(result, str):
            reasons[index] = result
        else:
            images.append(result)
    return images, reasons


# The cache: <fingerprint>.npy with the decoded images, and <fingerprint>.json with their checksum and the unreadable
# images. The JSON file is written last: without it the array is ignored.


def _fingerprint(items: Items, size: int) -> str:
    """Returns a hash of the inputs: files by relative path, size and modification time, images in memory by content."""
    digest = hashlib.sha256(f"nbt images {DECODER_VERSION} {size}\n".encode())
    if isinstance(items, np.ndarray):
        digest.update(str(items.shape).encode() + np.ascontiguousarray(items).data)
        return digest.hexdigest()[:32]
    for path, name in zip(items, relative_names(items), strict=True):
        try:
            status = path.stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            digest.update(f"{name}\0missing\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _read_cache(path: Path, n_items: int, size: int) -> tuple[Pixels, dict[int, str]] | None:
    """Returns the cached images and the reasons why others were left out; None if they are missing or damaged."""
    try:
        metadata = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        reasons = {int(index): str(reason) for index, reason in metadata["unreadable"]}
        array = np.load(path, mmap_mode="r")
        if array.dtype != np.uint8 or array.shape != (n_items - len(reasons), size, size, 3):
            return None
        if array.nbytes > MEMORY_LIMIT:
            return array, reasons
        array = np.array(array)
        return (array, reasons) if zlib.crc32(array.data) == metadata["crc32"] else None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _write_cache(path: Path, decoded: DecodedImages, n_items: int, size: int) -> None:
    """Decodes images into the cache. Concurrent processes write equal files, of which the last one remains."""
    _remove_stale_files(path.parent)
    try:
        with contextlib.closing(decoded), atomic_file(path) as temporary, temporary.open("wb") as file:
            reasons, checksum = _write_rows(file, decoded, n_items, size)
        with atomic_file(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({"unreadable": list(reasons.items()), "crc32": checksum}), encoding="utf-8")
    except OSError as error:
        needed = n_items * size * size * 3 / 2**30
        raise NbtError(
            f"the decoded images ({needed:.1f} GiB) cannot be written to {path.parent} ({error}); "
            "set NBT_CACHE to a larger disk, or choose a smaller --image-size"
        ) from error


def _write_rows(file: IO[bytes], decoded: DecodedImages, n_items: int, size: int) -> tuple[dict[int, str], int]:
    """Writes an .npy file image by image.

    Returns:
        The reasons why images were left out, by index, and the CRC-32 of the written images.
    """
    start = _write_header(file, n_items, size)
    reasons: dict[int, str] = {}
    checksum = 0
    for index, result in decoded:
        if isinstance(result, str):
            reasons[index] = result
            continue
        file.write(result.data)
        checksum = zlib.crc32(result.data, checksum)
    file.seek(0)
    # NumPy pads headers, so that the header of a shorter array has the same length.
    if _write_header(file, n_items - len(reasons), size) != start:
        raise NbtError("this version of NumPy writes .npy headers that cannot be changed in place")
    return reasons, checksum


def _write_header(file: IO[bytes], n: int, size: int) -> int:
    """Writes the header of an .npy file of `n` images, and returns the position after it."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _remove_stale_files(folder: Path) -> None:
    """Removes temporary files that killed processes left behind, once they are a day old."""
    for path in folder.glob("*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _STALE_AFTER_SECONDS:
                path.unlink()
        except OSError:
            continue

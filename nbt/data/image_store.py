"""Decodes images once, in parallel, into one uint8 array that is cached by a hash of its inputs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nbt.cache import CacheUse, cache_limit, enforce_limit
from nbt.data.content import Hashes, content_hash
from nbt.data.decoding import DecodedImage, FileFacts, decode_image, resize_pixels
from nbt.data.image_reading import NO_RANGES
from nbt.data.listing import Items
from nbt.data.value_range import ValueRanges, find_value_ranges, own_range
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
DecodedImages = Generator[tuple[int, DecodedImage | str]]


@dataclass(frozen=True, eq=False, repr=False)
class ImageStore:
    """Square RGB images of one size.

    A store with a cache file is pickled as a path; other processes map the file and share its memory.

    Attributes:
        array: The images, uint8 (N, H, H, 3), in memory or a read-only memory map.
        path: The cache file that holds exactly this array, or None for images that are in memory only.
        unreadable: Names of the images that were left out because they could not be decoded.
        reasons: Why they could not be decoded, in the order of `unreadable`; empty in other processes.
        facts: Facts about the file of each image; empty in other processes.
        value_ranges: Ranges of values of more than 8 bits, by which the images were scaled.
        use: Keeps the cache file from being removed by other processes.
    """

    array: Pixels
    path: Path | None = None
    unreadable: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    facts: tuple[FileFacts, ...] = ()
    value_ranges: ValueRanges = field(default_factory=dict)
    use: CacheUse | None = None

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
        return _unpickle_store(None, str(path), self.unreadable, self.value_ranges)

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[Any, ...]]:
        if self.path is None:
            return _unpickle_store, (np.asarray(self.array), None, self.unreadable, self.value_ranges)
        return _unpickle_store, (None, str(self.path), self.unreadable, self.value_ranges, self.use)


def _unpickle_store(
    array: Pixels | None,
    path: str | None,
    unreadable: tuple[str, ...],
    ranges: ValueRanges,
    use: CacheUse | None = None,
) -> ImageStore:
    if path is None:
        assert array is not None
        return ImageStore(array, unreadable=unreadable, value_ranges=ranges)
    try:
        array = np.load(path, mmap_mode="r")
        return ImageStore(array, path=Path(path), unreadable=unreadable, value_ranges=ranges, use=use)
    except (OSError, ValueError) as error:
        raise NbtError(f"{path}: the decoded images are missing or damaged ({error}); start again") from error


def decode_images(
    items: Items,
    size: int,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    cache: bool = True,
    resize: str = "crop",
    value_ranges: ValueRanges | None = None,
    hashes: Hashes | None = None,
    dataset: str = "",
) -> tuple[ImageStore, npt.NDArray[np.int64]]:
    """Decodes images to squares of one size, or reads them from the cache.

    Images are scaled with antialiasing. Images that cannot be decoded are left out; a single warning states their
    number and names the first few. Files of values of more than 8 bits that do not use the full range of their kind
    are decoded twice, because their range is known after all images have been decoded.

    Args:
        items: Image files, or images in memory, uint8 (N, H, W, 3).
        size: Height and width in pixels, 1 or more.
        progress: Called with the number of decoded images.
        workers: Number of threads; one per usable core when None.
        cache: Whether to read from and write to the cache.
        resize: How images become square, see `nbt.data.decoding.RESIZE`.
        value_ranges: Ranges of values of more than 8 bits, without the cache only; found over the images when None.
        hashes: Hashes of the files, see `nbt.data.content.file_hashes`, which makes them when None.
        dataset: The dataset, for the list of the cache.

    Returns:
        The images, and their indices in `items`, ascending, int64 (n,).

    Raises:
        NbtError: The cache cannot be written, for example because the disk is full.
        UsageError: The bound of the cache is no size.
    """
    path, use = None, None
    if cache:
        cache_limit()
        path = cache_folder("images") / f"{_fingerprint(items, size, resize, hashes)}.npy"
        use = CacheUse("images", path.stem)

    def decode(ranges: ValueRanges) -> _Contents:
        decoded = iter_decoded(items, size, DecodeOptions(resize, ranges), workers, progress)
        if path is None:
            return _collect(decoded, size, ranges)
        return _write_and_read(path, decoded, items, size, {"dataset": dataset, "ranges": dict(ranges)})

    if value_ranges is not None:
        contents = decode(value_ranges)
        return _build_store(contents, path, items, value_ranges)
    cached = path and _read_cache(path, len(items), size)
    contents = cached or decode(NO_RANGES)
    ranges = find_value_ranges(facts.values for facts in contents.facts)
    if contents.ranges != ranges and any(f.kind and own_range(f.values) != ranges[f.kind] for f in contents.facts):
        contents, cached = decode(ranges), None
    if path is not None and cached is None:
        enforce_limit()
    store, kept = _build_store(contents, path, items, ranges)
    return dataclasses.replace(store, use=use), kept


class DecodeOptions(NamedTuple):
    """How files are decoded.

    Attributes:
        resize: How images become square, see `nbt.data.decoding.RESIZE`.
        ranges: Ranges of values of more than 8 bits.
    """

    resize: str = "crop"
    ranges: ValueRanges = NO_RANGES


class _Contents(NamedTuple):
    """Decoded images, the reasons why others were left out by index, and the facts about the files of the images.

    The ranges are those by which they were scaled; values of other kinds by `own_range`.
    """

    array: Pixels
    reasons: dict[int, str]
    facts: tuple[FileFacts, ...]
    ranges: ValueRanges


def _build_store(
    contents: _Contents, path: Path | None, items: Items, ranges: ValueRanges
) -> tuple[ImageStore, npt.NDArray[np.int64]]:
    """Warns of unreadable images, and returns the store with the indices of its images."""
    reasons = tuple(contents.reasons.values())
    names = tuple(_item_name(items, index) for index in contents.reasons)
    if reasons:
        shown = [f"{name} ({reason})" for name, reason in zip(names, reasons, strict=True)][:_MAX_NAMES_SHOWN]
        more = f" and {len(names) - _MAX_NAMES_SHOWN} more" if len(names) > _MAX_NAMES_SHOWN else ""
        description = f"{', '.join(shown)}{more}"
        logger.warning("%d of %d images cannot be read and are left out: %s", len(names), len(items), description)
    kept = np.setdiff1d(np.arange(len(items), dtype=np.int64), np.array(list(contents.reasons), dtype=np.int64))
    return ImageStore(contents.array, path, names, reasons, contents.facts, ranges), kept


def _item_name(items: Items, index: int) -> str:
    return f"image {index}" if isinstance(items, np.ndarray) else str(items[index])


def iter_decoded(
    items: Items | Sequence[Path | Pixels],
    size: int,
    options: DecodeOptions,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DecodedImages:
    """Yields the index of each image with its pixels and facts, or with the reason why it cannot be decoded, in order.

    At most 4 chunks of 16 images per thread are decoded ahead, which bounds the memory in use.

    Args:
        items: Image files, or images in memory, uint8 (H, W, 3) each.
        size: Height and width in pixels, 1 or more.
        options: How files are decoded.
        workers: Number of threads; one per usable core when None.
        progress: Called with the number of decoded images.
    """
    threads = workers or usable_cores()
    starts = iter(range(0, len(items), _DECODE_CHUNK_SIZE))
    pending: deque[Future[list[tuple[int, DecodedImage | str]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="nbt-decode")
    try:
        # Pillow warns of unusual metadata and of large images, which are decoded nevertheless.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while True:
                while len(pending) < 4 * threads and (start := next(starts, None)) is not None:
                    pending.append(pool.submit(_decode_chunk, items, start, size, options))
                if not pending:
                    return
                for index, result in pending.popleft().result():
                    yield index, result
                if progress:
                    progress("decoding images", index + 1, len(items))
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_chunk(
    items: Items | Sequence[Path | Pixels], start: int, size: int, options: DecodeOptions
) -> list[tuple[int, DecodedImage | str]]:
    """Returns the index of each image of a chunk with the image, or with the reason why it cannot be decoded."""
    indices = range(start, min(start + _DECODE_CHUNK_SIZE, len(items)))
    return [(index, _decode(items[index], size, options)) for index in indices]


def _decode(item: Path | Pixels, size: int, options: DecodeOptions) -> DecodedImage | str:
    try:
        if isinstance(item, np.ndarray):
            pixels = resize_pixels(item, size, options.resize)
            return DecodedImage(pixels, FileFacts(item.shape[1], item.shape[0], "RGB"))
        return decode_image(item, size, *options)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise errors of many types
        return one_line_message(error, 120)


def _collect(decoded: DecodedImages, size: int, ranges: ValueRanges) -> _Contents:
    """Returns the decoded images in memory."""
    images: list[DecodedImage] = []
    reasons: dict[int, str] = {}
    for index, result in decoded:
        if isinstance(result, str):
            reasons[index] = result
        else:
            images.append(result)
    array = np.stack([image.pixels for image in images]) if images else np.empty((0, size, size, 3), dtype=np.uint8)
    return _Contents(array, reasons, tuple(image.facts for image in images), ranges)


# The cache: <fingerprint>.npy with the decoded images, and <fingerprint>.json with their checksum, the facts about
# their files and the unreadable images. The JSON file is written last: without it the array is ignored.


def _fingerprint(items: Items, size: int, resize: str, hashes: Hashes | None) -> str:
    """Returns a hash of the inputs, files and images in memory by content."""
    mode = "" if resize == "crop" else f" {resize}"
    digest = hashlib.sha256(f"nbt images {DECODER_VERSION} {size}{mode}\n".encode())
    if isinstance(items, np.ndarray):
        digest.update(str(items.shape).encode() + np.ascontiguousarray(items).data)
        return digest.hexdigest()[:32]
    digest.update(content_hash(items, hashes).encode())
    return digest.hexdigest()[:32]


def _read_cache(path: Path, n_items: int, size: int) -> _Contents | None:
    """Returns the cached images; None if they are missing or damaged, or were written by an earlier nbt."""
    try:
        metadata = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        reasons = {int(index): str(reason) for index, reason in metadata["unreadable"]}
        facts = tuple(FileFacts(*values[:7], *map(tuple, values[7:8])) for values in metadata["facts"])
        ranges = {kind: (float(low), float(high)) for kind, (low, high) in metadata["ranges"].items()}
        array = np.load(path, mmap_mode="r")
        if array.dtype != np.uint8 or array.shape != (n_items - len(reasons), size, size, 3):
            return None
        # Earlier versions did not count the bits of integers.
        if len(facts) != len(array) or any(f.kind in ("uint16", "int32") and f.low >= 0 and not f.bits for f in facts):
            return None
        if array.nbytes > MEMORY_LIMIT:
            return _Contents(array, reasons, facts, ranges)
        array = np.array(array)
        return _Contents(array, reasons, facts, ranges) if zlib.crc32(array.data) == metadata["crc32"] else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_and_read(
    path: Path, decoded: DecodedImages, items: Items, size: int, metadata: Mapping[str, Any]
) -> _Contents:
    """Decodes images into the cache, and reads them back."""
    _write_cache(path, decoded, len(items), size, metadata)
    contents = _read_cache(path, len(items), size)
    if contents is None:
        raise NbtError(f"{path} cannot be read back; check the disk, or set NBT_CACHE to another folder")
    return contents


def _write_cache(path: Path, decoded: DecodedImages, n_items: int, size: int, metadata: Mapping[str, Any]) -> None:
    """Decodes images into the cache. Concurrent processes write equal files, of which the last one remains."""
    _remove_stale_files(path.parent)
    try:
        with contextlib.closing(decoded), atomic_file(path) as temporary, temporary.open("wb") as file:
            metadata = {**metadata, **_write_rows(file, decoded, n_items, size)}
        with atomic_file(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(metadata), encoding="utf-8")
    except OSError as error:
        needed = n_items * size * size * 3 / 2**30
        raise NbtError(
            f"the decoded images ({needed:.1f} GiB) cannot be written to {path.parent} ({error}); "
            "set NBT_CACHE to a larger disk, or choose a smaller --image-size"
        ) from error


def _write_rows(file: IO[bytes], decoded: DecodedImages, n_items: int, size: int) -> dict[str, Any]:
    """Writes an .npy file image by image.

    Returns:
        Metadata: indices and reasons of the images that were left out, the facts about the files of the others, and the
        CRC-32 of the written images.
    """
    start = _write_header(file, n_items, size)
    reasons: list[tuple[int, str]] = []
    facts: list[FileFacts] = []
    checksum = 0
    for index, result in decoded:
        if isinstance(result, str):
            reasons.append((index, result))
            continue
        file.write(result.pixels.data)
        facts.append(result.facts)
        checksum = zlib.crc32(result.pixels.data, checksum)
    file.seek(0)
    # NumPy pads headers, so that the header of a shorter array has the same length.
    if _write_header(file, n_items - len(reasons), size) != start:
        raise NbtError("this version of NumPy writes .npy headers that cannot be changed in place")
    return {"unreadable": reasons, "facts": facts, "crc32": checksum}


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

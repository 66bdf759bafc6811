"""Compares pairs of images: whether recompression, scaling and a crop explain all that differs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbt.data.near_copies.alignment import align, find_crops
from nbt.data.near_copies.candidates import Candidates, Index
from nbt.data.near_copies.simulation import sample_through, simulate_changes
from nbt.data.near_copies.thumbnails import SIDE, Floats, sample_crops, thumbnails

MAX_DIFFERENCE = 2.2
"""Largest difference of a copy, see `difference`; chosen with `studies/near_copies.py`."""

MIN_CORRELATION = 0.8
"""Smallest correlation of the grey values of a copy, so that two images without contrast are no copies."""

MIN_COMPARED = 20_000
"""Pairs of similar images that are compared in detail however few the images are; a pair takes milliseconds."""

# A comparison of small versions discards most pairs, and one without a simulation most of the others: the smallest
# correlation and the largest difference, which has a constant noise in grey levels and of misplaced edges in pixels.
_COARSE_CORRELATION, _MAX_COARSE_DIFFERENCE, _MAX_ROUGH_DIFFERENCE = 0.6, 16.0, 4.0
_ROUGH_NOISE, _ROUGH_JITTER = 2.0, 0.5
_COARSE_STEPS, _FINE_STEPS = 4, 6
_BLOCKS = 8
_WORST_BLOCKS = 6
# How differences are measured: planes, width of the average in pixels, rounding in grey levels, misplaced edges in
# pixels, and the weight.
_LUMA, _CHROMA = slice(0, 1), slice(1, 3)
_SCALES = (
    (_LUMA, 3, 0.5, 0.15, 1.0),
    (_CHROMA, 5, 0.7, 0.3, 1.0),
    (_LUMA, 7, 0.4, 0.15, 0.5),
    (_LUMA, 15, 0.3, 0.15, 0.5),
    (_CHROMA, 15, 0.5, 0.3, 0.5),
)
_COARSE_PAIRS_PER_CHUNK, _PAIRS_PER_CHUNK = 256, 32


def are_copies(
    images: npt.NDArray[np.uint8], index: Index, grey: Floats, candidates: Candidates, mirrored: bool = False
) -> tuple[npt.NDArray[np.bool_], int]:
    """Returns whether the first image of each pair is a near copy of the second, (n,), and how many are not compared.

    Of more pairs of similar images than `MIN_COMPARED` and than images, as of one scene or one texture, only the most
    similar ones are compared in detail; the others count as no copies.

    Args:
        images: RGB images, uint8 (M, H, H, 3).
        index: The images that are compared, (N,).
        grey: Small grey versions of them, as of `describe`, (N, 32, 32).
        candidates: The pairs, as positions in `index`, and their likeliest crops.
        mirrored: Whether to mirror the first image.
    """
    pairs, crops = candidates.pairs, candidates.crops.copy()
    is_similar, rough = np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs))
    for start in range(0, len(pairs), _COARSE_PAIRS_PER_CHUNK):
        chunk = slice(start, start + _COARSE_PAIRS_PER_CHUNK)
        first, second = grey[pairs[chunk, 0]], grey[pairs[chunk, 1]]
        first = first[:, :, ::-1] if mirrored else first
        crops[chunk], correlation = align(first, second, crops[chunk], _COARSE_STEPS)
        rough[chunk] = _rough_difference(first[:, None], *sample_crops(second[:, None], crops[chunk]))
        is_similar[chunk] = (correlation >= _COARSE_CORRELATION) & (rough[chunk] <= _MAX_COARSE_DIFFERENCE)
    result = np.zeros(len(pairs), dtype=bool)
    similar, limit = np.flatnonzero(is_similar), max(MIN_COMPARED, len(index))
    n_left_out = max(0, len(similar) - limit)
    similar = similar[np.sort(np.argsort(rough[similar], kind="stable")[:limit])]
    for start in range(0, len(similar), _PAIRS_PER_CHUNK):
        found = similar[start : start + _PAIRS_PER_CHUNK]
        queries, others = (images[index[pairs[found, side]]] for side in (0, 1))
        queries = queries[:, :, ::-1] if mirrored else queries
        result[found] = compare(queries, others, crops[found]) <= MAX_DIFFERENCE
    return result, n_left_out


def compare(queries: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], crops: Floats) -> npt.NDArray[np.float64]:
    """Returns `difference` of pairs, (n,); infinite where a simpler comparison finds that they are no copies.

    Args:
        queries: RGB images, uint8 (n, H, H, 3).
        others: RGB images, of which the queries may be crops, uint8 (n, H, H, 3).
        crops: First crop of each pair, (n, 4).
    """
    first, second = thumbnails(queries), thumbnails(others)
    crops, correlation = find_crops(first[:, 0], second[:, 0], crops, _FINE_STEPS)
    rough = _rough_difference(first[:, :1], *sample_crops(second[:, :1], crops))
    similar = np.flatnonzero((correlation >= MIN_CORRELATION) & (rough <= _MAX_ROUGH_DIFFERENCE))
    differences = np.full(len(queries), np.inf)
    if len(similar):
        differences[similar] = difference(queries[similar], others[similar], crops[similar])
    unsure = np.flatnonzero((differences > MAX_DIFFERENCE) & np.isfinite(differences))
    if len(unsure):
        fine_first, fine_second = (thumbnails(images[unsure], 2 * SIDE)[:, 0] for images in (queries, others))
        finer, _ = align(fine_first, fine_second, crops[unsure], _FINE_STEPS)
        again = difference(queries[unsure], others[unsure], finer)
        differences[unsure] = np.minimum(differences[unsure], again)
    return differences


def difference(queries: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], crops: Floats) -> npt.NDArray[np.float64]:
    """Returns the squared difference of pairs, divided by that of a copy, in the blocks where they differ most, (n,).

    The expected squared difference of a copy is what compression, half the size and a crop change in one of the two
    images (`simulate_changes`), whichever they change more, and what rounding and edges that are misplaced by a part of
    a pixel add.
    Differences are averaged over neighbourhoods of several sizes: compression changes fine detail and hardly the mean
    of a neighbourhood, while different objects of one design differ in both. Of 8 x 8 blocks, the mean ratio of the
    worst 6 counts, with the weight of the size; the result is the largest of all sizes, of luma and of chroma.

    Args:
        queries: RGB images, uint8 (n, H, H, 3).
        others: RGB images, uint8 (n, H, H, 3).
        crops: The crop of each pair, (n, 4).
    """
    first = thumbnails(queries)
    second, inside = sample_through(others, crops)
    inside = inside[:, None]
    changed = simulate_changes(queries), [sample_crops(change, crops)[0] for change in simulate_changes(others)]
    smooth = (_average(first, 3) + _average(second, 3)) / 2
    gradients = np.gradient(smooth, axis=(2, 3))
    ratios = []
    for planes, width, rounding, jitter, weight in _SCALES:

        def squares(values: Floats, planes: slice = planes, width: int = width) -> Floats:
            return _block_sums(_average(values[:, planes], width) ** 2 * inside)

        in_query, in_other = (sum(map(squares, changes), np.float32(0)) for changes in changed)
        simulated = np.maximum(in_query, in_other)
        edges = jitter**2 * sum(map(squares, gradients))
        area = _block_sums(inside) * (planes.stop - planes.start)
        ratio = squares((first - second) * inside) / np.maximum(simulated + edges + rounding**2 * area, 1e-6)
        ratios.append(weight * _worst_blocks(ratio, inside))
    return np.asarray(np.max(ratios, axis=0), dtype=np.float64)


def _rough_difference(first: Floats, second: Floats, inside: Floats) -> Floats:
    """Returns `difference` with a constant noise instead of a simulation, (n,).

    Args:
        first: Grey images, (n, 1, H, H).
        second: The other images through the crops, (n, 1, H, H).
        inside: Which pixels lie in the crops, 0 or 1, (n, H, H).
    """
    inside = inside[:, None]
    first, second = _average(first, 3), _average(second, 3)
    edges = sum(gradient**2 for gradient in np.gradient((first + second) / 2, axis=(2, 3)))
    expected = _block_sums((_ROUGH_NOISE**2 + _ROUGH_JITTER**2 * edges) * inside)
    return _worst_blocks(_block_sums((first - second) ** 2 * inside) / np.maximum(expected, 1e-6), inside)


def _worst_blocks(ratios: npt.NDArray[np.floating], inside: Floats) -> Floats:
    """Returns the mean of the largest ratios, (n,), of those of all blocks, (n, blocks), that lie in the crop."""
    covered = _block_sums(inside) > 0.4 * (inside.shape[-1] / _BLOCKS) ** 2
    return np.asarray(np.sort(np.where(covered, ratios, 0), axis=1)[:, -_WORST_BLOCKS:].mean(1))


def _average(planes: Floats, width: int) -> Floats:
    """Returns planes, (n, C, H, H), with each pixel replaced by the mean of its neighbourhood."""
    from scipy.ndimage import uniform_filter  # slow to import, and workers import this module

    return np.asarray(uniform_filter(planes, (0, 0, width, width), mode="nearest"))


def _block_sums(planes: Floats) -> Floats:
    """Returns the sums over planes and pixels of each block, (n, blocks), of planes (n, C, H, H)."""
    n, width = len(planes), planes.shape[-1] // _BLOCKS
    blocks = planes.reshape(n, planes.shape[1], _BLOCKS, width, _BLOCKS, width)
    return np.asarray(blocks.sum((1, 3, 5)).reshape(n, _BLOCKS**2), dtype=np.float32)

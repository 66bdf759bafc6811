"""Aligns pairs of images that may be crops of each other."""

from __future__ import annotations

import numpy as np

from nbt.data.near_copies.thumbnails import Floats, pixel_centres, sample_crops

MIN_SCALE, MAX_SCALE, MAX_SHIFT = 0.8, 1.25, 0.2
_DAMPING = 1e-3
_FIRST_SCALES = (1.0, 0.95, 0.9, 1 / 0.95, 1 / 0.9)
_FIRST_SHIFT = 0.15
_SURE_CORRELATION = 0.95


def find_crops(queries: Floats, others: Floats, crops: Floats, steps: int) -> tuple[Floats, Floats]:
    """Returns the crop of each pair with the largest correlation found, (n, 4), and this correlation, (n,).

    Where the given crop does not lead to a high correlation, as on fine textures, the best shift at a few scales is the
    second start.

    Args:
        queries: Grey images, (n, H, H).
        others: Grey images, of which the queries may be crops, (n, H, H).
        crops: First crop of each pair, see `sample_crops`, (n, 4).
        steps: Number of steps of `align`.
    """
    best, correlation = align(queries, others, crops, steps)
    weak = np.flatnonzero(correlation < _SURE_CORRELATION)
    if len(weak):
        first = search_shifts(queries[weak], others[weak])
        found, its_correlation = align(queries[weak], others[weak], first, steps)
        better = its_correlation > correlation[weak]
        best[weak[better]], correlation[weak[better]] = found[better], its_correlation[better]
    return best, correlation


def search_shifts(queries: Floats, others: Floats) -> Floats:
    """Returns the crop of each pair with the largest correlation over whole pixels of shift and a few scales, (n, 4).

    The correlations are computed by the Fourier transform, for which the images continue at the opposite side.

    Args:
        queries: Grey images, (n, H, H).
        others: Grey images, (n, H, H).
    """
    n, side = queries.shape[:2]
    reach = round(_FIRST_SHIFT * side / 2)
    whole = np.ones_like(queries)
    spectrum = np.conj(np.fft.rfft2(_normalise(queries, whole)))
    crops, highest = np.ones((n, 4), dtype=np.float32), np.full(n, -np.inf)
    for scale in _FIRST_SCALES:
        sampled, _ = sample_crops(others, np.tile(np.array([scale, scale, 0, 0], dtype=np.float32), (n, 1)))
        correlations = np.fft.irfft2(spectrum * np.fft.rfft2(_normalise(sampled, whole)), s=(side, side))
        shifts = np.arange(-reach, reach + 1)
        near = correlations[:, shifts][:, :, shifts].reshape(n, -1)
        y, x = np.divmod(near.argmax(1), len(shifts))
        found = np.stack([np.full(n, scale), np.full(n, scale), *(shifts[[x, y]] * scale * 2 / side)], axis=1)
        higher = near.max(1) > highest
        crops[higher], highest[higher] = found[higher], near.max(1)[higher]
    return crops


def align(queries: Floats, others: Floats, crops: Floats, steps: int) -> tuple[Floats, Floats]:
    """Improves crops by Gauss-Newton steps on the normalised difference of grey values (Lucas and Kanade 1981).

    Args:
        queries: Grey images, (n, H, H).
        others: Grey images, of which the queries may be crops, (n, H, H).
        crops: First crop of each pair, see `sample_crops`, (n, 4).
        steps: Number of steps.

    Returns:
        The crop of each pair with the largest correlation so far, (n, 4), and this correlation, (n,).
    """
    best, correlation = crops.copy(), np.full(len(crops), -2, dtype=np.float32)
    for step in range(steps + 1):
        sampled, inside = sample_crops(others, crops)
        target, sampled = _normalise(queries, inside), _normalise(sampled, inside)
        similarity = (target * sampled).sum((1, 2)) / inside.sum((1, 2))
        better = similarity > correlation
        best[better], correlation[better] = crops[better], similarity[better]
        if step < steps:
            crops = _step(target, sampled, inside, crops)
    return best, correlation


def _step(target: Floats, sampled: Floats, inside: Floats, crops: Floats) -> Floats:
    """Returns the crops after one Gauss-Newton step."""
    n, side = len(crops), target.shape[1]
    u = pixel_centres(side)
    grad_y, grad_x = (gradient * inside * (side / 2) for gradient in np.gradient(sampled, axis=(1, 2)))
    jacobian = np.stack([grad_x * u, grad_y * u[:, None], grad_x, grad_y], axis=1).reshape(n, 4, side**2)
    hessian = jacobian @ jacobian.swapaxes(1, 2)
    damping = _DAMPING * (1 + np.trace(hessian, axis1=1, axis2=2) / 4)
    hessian += damping[:, None, None] * np.eye(4, dtype=np.float32)
    change = np.linalg.solve(hessian, jacobian @ (target - sampled).reshape(n, side**2, 1))[:, :, 0]
    # The gradients are those of the sampled images, whose unit is the scale of the crop.
    moved = crops + change * crops[:, [0, 1, 0, 1]]
    moved[:, :2] = moved[:, :2].clip(MIN_SCALE, MAX_SCALE)
    moved[:, 2:] = moved[:, 2:].clip(-MAX_SHIFT, MAX_SHIFT)
    return moved.astype(np.float32)


def _normalise(images: Floats, inside: Floats) -> Floats:
    """Returns images with zero mean and unit variance over the pixels inside, and 0 outside."""
    area = inside.sum((1, 2), keepdims=True)
    centred = (images - (images * inside).sum((1, 2), keepdims=True) / area) * inside
    deviation = np.sqrt((centred**2).sum((1, 2), keepdims=True) / area)
    return np.asarray(centred / (deviation + 1e-3), dtype=np.float32)

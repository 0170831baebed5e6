"""Random fields that phantom tissue is made of: smooth noise, thin curved lines, soft steps."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["lines", "noise", "step", "stretched"]


def noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float]
) -> np.ndarray:
    """Return smooth noise of unit spread, with about so many cells down and across.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the field.
    shape : tuple of int
        Height and width in pixels.
    cells : tuple of float
        Independent values down and across; few across and many down give horizontal fibres.

    Returns
    -------
    ndarray, float32, (H, W)
        The field, mean about 0.
    """
    rows, columns = (min(max(round(n), 2), 2 * side) for n, side in zip(cells, shape, strict=True))
    grid = rng.standard_normal((rows + 2, columns + 2), dtype=np.float32)
    # drawn a little larger and cropped at random, so that no cell is ever tied to the frame
    tall, wide = shape[0] * (rows + 2) // rows + 1, shape[1] * (columns + 2) // columns + 1
    field = cv2.resize(grid, (wide, tall), interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(0, (tall - shape[0] + 1, wide - shape[1] + 1))
    return field[top : top + shape[0], left : left + shape[1]] * np.float32(1.25)


def lines(field: np.ndarray, thickness: float) -> np.ndarray:
    """Return thin curved lines where a smooth field crosses zero; 1 on the line, 0 away from it.

    Parameters
    ----------
    field : ndarray, float32, (H, W)
        A smooth field, as `noise` gives it.
    thickness : float
        Half width of the line in pixels; the same for steep and flat parts of the field.

    Returns
    -------
    ndarray, float32, (H, W)
        The lines, in [0, 1].
    """
    down, across = cv2.Sobel(field, -1, 0, 1, scale=0.125), cv2.Sobel(field, -1, 1, 0, scale=0.125)
    slope = cv2.magnitude(down, across) + np.float32(0.004)
    return np.exp(-np.square(field / (slope * np.float32(thickness))))


def step(distance: np.ndarray, softness: float) -> np.ndarray:
    """Return a soft step: 0 for negative distances, 1 for positive ones, over `softness`."""
    return 1 / (1 + np.exp(np.clip(-distance / max(softness, 1e-3), -30, 30)))


def stretched(field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a field read at other coordinates (pixels); mirrored beyond its border."""
    return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

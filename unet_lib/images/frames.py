"""What an image file holds: frames, and the size of their pixels in millimetres."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class ImageError(ValueError):
    """An image or mask cannot be used; the message names the file and the remedy."""


PathLike = str | os.PathLike


@dataclass(frozen=True)
class Region:
    """A part of an image whose pixels have a known size.

    Attributes
    ----------
    left, top, right, bottom : int
        First column and row, and the ones behind the last; pixels.
    row_mm, column_mm : float
        Millimetres from one row to the next, and from one column to the next.
    """

    left: int
    top: int
    right: int
    bottom: int
    row_mm: float
    column_mm: float


@dataclass(frozen=True)
class Frame:
    """One picture of a file.

    Attributes
    ----------
    pixels : ndarray of bool, uint8, uint16 or float32, shape (H, W) or (H, W, 3)
        Stored values, upright.
    number, count : int
        Which frame of how many, from 1.
    regions : tuple of Region
        Empty where the file does not say how large its pixels are.
    """

    pixels: np.ndarray
    number: int = 1
    count: int = 1
    regions: tuple[Region, ...] = ()


def pixel_size(
    regions: Sequence[Region], left: int, top: int, width: int, height: int
) -> tuple[float, float] | None:
    """Return the size of a pixel inside a box, or None where it is unknown.

    The box must lie within one region, and all regions that hold it must agree to 1 %.

    Parameters
    ----------
    regions : sequence of Region
    left, top, width, height : int
        The box, in pixels.

    Returns
    -------
    (float, float) or None
        Millimetres from row to row and from column to column.
    """
    sizes = [
        (region.row_mm, region.column_mm)
        for region in regions
        if region.left <= left
        and region.top <= top
        and left + width <= region.right
        and top + height <= region.bottom
    ]
    if not sizes or not np.allclose(sizes, sizes[0], rtol=0.01, atol=0):
        return None
    return sizes[0]

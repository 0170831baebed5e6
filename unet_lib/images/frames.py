"""What an image file holds: frames (its pictures), and the size of their pixels in millimetres."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np

PathLike = str | os.PathLike


class ImageError(ValueError):
    """An image or mask cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Region:
    """A part of an image whose pixels have a known size."""

    left: int  # first column and row, and the ones behind the last
    top: int
    right: int
    bottom: int
    row_mm: float  # from one row to the next, and from one column to the next
    column_mm: float


@dataclass(frozen=True)
class Frame:
    """One picture of a file."""

    pixels: np.ndarray  # bool, uint8, uint16 or float32 as stored, (H, W) or (H, W, 3), upright
    number: int = 1  # which frame of how many
    count: int = 1
    regions: tuple[Region, ...] = ()  # empty: the file does not say how large its pixels are


def pixel_size(
    regions: Sequence[Region], left: int, top: int, width: int, height: int
) -> tuple[float, float] | None:
    """Millimetres from row to row and from column to column inside a box of pixels.

    None where that is unknown: the box must lie within one region, and all regions that hold it
    must agree to 1 %.
    """
    sizes = [
        (region.row_mm, region.column_mm)
        for region in regions
        if region.left <= left
        and region.top <= top
        and left + width <= region.right
        and top + height <= region.bottom
    ]
    agree = sizes and np.allclose(sizes, sizes[0], rtol=0.01, atol=0)
    return sizes[0] if agree else None


def picture_name(path: Path) -> str:
    """Return what a picture is called without its ending, which a DICOM file may lack."""
    name = path.name if path.suffix[1:].isdecimal() else path.stem
    return normalize("NFC", name)  # a Mac writes accents apart

"""What an image file holds: frames of stored values; those as grey images, and back to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np

from unet_lib.files import write_atomic

PathLike = str | os.PathLike

MAX_PIXELS = 32_000_000  # 16-bit RGBA of this size takes 0.8 GB to decode; larger is a mistake
MAX_BYTES = 400_000_000  # of a file that is read at once: the largest picture, not compressed


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

    pixels: np.ndarray  # uint8 (also of 1 bit), uint16 or float32, (H, W) or (H, W, 3), upright
    number: int = 1  # which frame of how many
    count: int = 1
    regions: tuple[Region, ...] = ()  # empty: the file does not say how large its pixels are


def pixel_size(
    regions: Sequence[Region], left: int, top: int, width: int, height: int
) -> tuple[float, float] | None:
    """Millimetres from row to row and column to column in a box; None unless its regions agree."""
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
    # A Mac writes accents apart; copying from a page leaves spaces of other kinds.
    return " ".join(normalize("NFC", name).split())


def as_grey(pixels: np.ndarray) -> np.ndarray:
    """Turn RGB pixels, (H, W, 3), to luminance (ITU-R BT.601); leave grey ones, (H, W)."""
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def as_image(pixels: np.ndarray, path: PathLike) -> np.ndarray:
    """Scale stored pixels, (H, W) or (H, W, 3), to an image; see `read_image`."""
    grey = as_grey(pixels)
    if grey.dtype.kind == "f":
        low, high = float(grey.min()), float(grey.max())
        if not (low >= 0.0 and high <= 1.0 + 1e-6):  # the negation also catches NaN
            raise ImageError(
                f"{path}: float image with values from {low:g} to {high:g}; expected 0 to 1. "
                "Rescale it, or save it with 8 or 16 bits."
            )
        return np.minimum(grey, np.float32(1.0))[..., None]  # luminance may round above 1
    return (grey.astype(np.float32) / np.float32(np.iinfo(grey.dtype).max))[..., None]


def write_image(path: PathLike, array: np.ndarray) -> Path:
    """Write a PNG file: bool (H, W) as 0 and 255; uint8 (H, W), (H, W, 1) or RGB (H, W, 3)."""
    if array.dtype == bool and array.ndim == 2:
        array = array.astype(np.uint8) * 255
    fits = array.dtype == np.uint8 and array.ndim in (2, 3) and array.shape[2:] in ((), (1,), (3,))
    if not fits or Path(path).suffix.lower() != ".png":
        raise ValueError(
            f"{path}: expected a name that ends with .png and bool (H, W) or uint8 (H, W), "
            f"(H, W, 1) or (H, W, 3); received {array.dtype} {array.shape}."
        )
    if array.shape[2:] == (3,):
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    return write_atomic(path, cv2.imencode(".png", array)[1].tobytes())

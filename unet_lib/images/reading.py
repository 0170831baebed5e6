"""From stored pixel values to a grey image, with the checks in between; and back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from unet_lib.files import write_atomic
from unet_lib.images.decode import read_pixels
from unet_lib.images.frames import ImageError, PathLike


def read_image(path: PathLike) -> np.ndarray:
    """Read one image as grey values.

    8-bit values are divided by 255, 16-bit values by 65535; colours become luminance (ITU-R
    BT.601); the EXIF orientation is applied; float images must already lie in ``[0, 1]``.

    Parameters
    ----------
    path : path-like
        PNG, JPEG, BMP, TIFF, WebP, GIF or DICOM with one frame; grey, RGB, RGBA, palette or 1-bit.

    Returns
    -------
    ndarray of float32, shape (H, W, 1)
        Values in ``[0, 1]``.

    Raises
    ------
    ImageError
        The file is missing, unreadable, damaged, of another format or too large, holds several
        frames, or float values outside ``[0, 1]``.
    """
    return as_image(read_pixels(path), path)


def as_grey(pixels: np.ndarray) -> np.ndarray:
    """Turn RGB pixels, (H, W, 3), to luminance (ITU-R BT.601); leave grey ones, (H, W)."""
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def as_image(pixels: np.ndarray, path: PathLike) -> np.ndarray:
    """Scale stored pixels, (H, W) or (H, W, 3), to an image; see `read_image`."""
    grey = as_grey(pixels)
    if grey.dtype == bool:
        grey = grey.astype(np.float32)
    elif grey.dtype.kind == "f":
        low, high = float(grey.min()), float(grey.max())
        if not (low >= 0.0 and high <= 1.0 + 1e-6):  # the negation also catches NaN
            raise ImageError(
                f"{path}: float image with values from {low:g} to {high:g}; expected 0 to 1. "
                "Rescale it, or save it with 8 or 16 bits."
            )
        grey = np.minimum(grey, np.float32(1.0))  # luminance of white may round above 1
    else:
        grey = grey.astype(np.float32) / np.float32(np.iinfo(grey.dtype).max)
    return grey[..., None]


def write_image(path: PathLike, array: np.ndarray) -> Path:
    """Write a PNG file: bool (H, W) as 0 and 255; uint8 (H, W), (H, W, 1) or RGB (H, W, 3)."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: images are written as PNG; give a name that ends with .png.")
    if array.dtype == bool and array.ndim == 2:
        array = array.astype(np.uint8) * 255
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3):
        raise ValueError(
            f"{path}: expected bool (H, W) or uint8 (H, W), (H, W, 1) or (H, W, 3), "
            f"got {array.dtype} {array.shape}."
        )
    if channels == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    return write_atomic(path, cv2.imencode(".png", array)[1].tobytes())

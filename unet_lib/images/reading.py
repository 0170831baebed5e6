"""From stored pixel values to a grey image or a mask, with the checks in between; and back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from unet_lib.files import write_atomic
from unet_lib.images.decode import read_pixels
from unet_lib.images.frames import ImageError, PathLike

_NEAR = 0.2  # near 0, or near the maximum: within this share of the maximum
_EDGE = 3  # pixels: how far from an edge a smoothed mask may hold values in between
_MOST_BETWEEN = 0.25  # of the pixels; more of them are a picture
_MIN_MAXIMUM = 64  # of 255: below it, several values are label numbers, not a smoothed mask


def read_image(path: PathLike) -> np.ndarray:
    """Read one image as grey values.

    8-bit values are divided by 255, 16-bit values by 65535; colours become luminance (ITU-R
    BT.601); the EXIF orientation is applied; float images must already lie in ``[0, 1]``.

    Parameters
    ----------
    path : path-like
        PNG, JPEG, BMP, TIFF or DICOM with one frame; grey, RGB, RGBA, palette or 1-bit.

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


def read_masks(
    paths: PathLike | Iterable[PathLike],
    shape: tuple[int, int] | None = None,
    *,
    image_path: PathLike | None = None,
    colour_coded: bool = False,
) -> np.ndarray:
    """Read all masks of one image and join them with OR.

    A mask has two values, the lower being 0 (``{0, 1}``, ``{0, 255}``, ``{0, v}``), or one value:
    0 is an empty mask, anything else a full one. More values are accepted only where a two-valued
    mask was blurred by JPEG or by smoothed edges: every value lies within a fifth of the maximum
    from 0 or from the maximum, or else within 3 pixels of both. The cut is at half the maximum.

    Parameters
    ----------
    paths : path-like or iterable of path-like
        Mask files. Without any, `shape` gives an empty mask.
    shape : (int, int), optional
        Height and width that every mask must have.
    image_path : path-like, optional
        The image that the masks belong to, named in the message when the sizes differ.
    colour_coded : bool
        The masks tell the class by colour, as in BUS-UCLM: black background, (0, 255, 0) benign,
        (255, 0, 0) malignant; any other colour is refused.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    ImageError
        Unreadable file, other size than `shape` or than the first mask, more than two values.
    """
    files = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(p) for p in paths]
    if not files and shape is None:
        raise ImageError("read_masks: no mask files and no shape were given; give one of them.")
    owner = "the image" if image_path is None else str(image_path)
    joined = None if shape is None else np.zeros(shape, bool)
    for path in files:
        mask = (as_colour_mask if colour_coded else as_mask)(read_pixels(path), path)
        if joined is None:
            joined, owner = mask, str(path)
        elif mask.shape != joined.shape:
            raise ImageError(
                f"{path}: the mask is {mask.shape[0]} x {mask.shape[1]} (height x width) but "
                f"{owner} is {joined.shape[0]} x {joined.shape[1]}. A mask must have the size of "
                "its image: check that both belong together and that neither was resized."
            )
        else:
            joined = joined | mask
    return joined


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


def as_mask(pixels: np.ndarray, path: PathLike) -> np.ndarray:
    """Turn stored pixels, (H, W) or (H, W, 3), to a mask, bool (H, W); see `read_masks`."""
    grey = as_grey(pixels)
    low, high = grey.min(), grey.max()
    if low == high or (low == 0 and ((grey == low) | (grey == high)).all()):
        return grey > 0
    if grey.dtype != bool and _is_smoothed(grey, float(high)):
        return grey > float(high) / 2
    values, counts = np.unique(grey, return_counts=True)
    shown = ", ".join(f"{v} ({c} px)" for v, c in zip(values[:8], counts[:8], strict=True))
    more = ", ..." if len(values) > 8 else ""
    raise ImageError(
        f"{path}: not a mask: it holds {len(values)} grey values: {shown}{more}. Expected two, "
        "0 for background and one other value for the lesion. Save it as PNG with 0 and 255; "
        "if it holds several labels, save one mask file per label."
    )


def as_colour_mask(pixels: np.ndarray, path: PathLike) -> np.ndarray:
    """Turn the pixels of a colour-coded mask to a mask of any lesion; see `read_masks`."""
    if pixels.ndim == 2:
        if not pixels.any():
            return pixels > 0
        shown = "grey values"
    else:
        green, red = (pixels == (0, 255, 0)).all(2), (pixels == (255, 0, 0)).all(2)
        strange = pixels[pixels.any(2) & ~green & ~red]
        if pixels.dtype == np.uint8 and not len(strange):
            return green | red
        shown = f"{len(strange)} pixels of other colours, such as {strange[:1].tolist()}"
    raise ImageError(
        f"{path}: not a colour-coded mask: it holds {shown}. Expected black, (0, 255, 0) for "
        "benign and (255, 0, 0) for malignant, saved as 8-bit RGB PNG."
    )


def _is_smoothed(grey: np.ndarray, high: float) -> bool:
    """Whether values in between come from JPEG or smoothed edges and not from labels."""
    full = np.iinfo(grey.dtype).max if grey.dtype.kind in "iu" else 1.0
    if not high >= full * _MIN_MAXIMUM / 255 or not float(grey.min()) >= 0:  # also NaN
        return False
    dark, bright = grey <= _NEAR * high, grey >= (1 - _NEAR) * high
    between = ~(dark | bright)
    if not dark.any() or between.mean() > _MOST_BETWEEN:
        return False
    reach = np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8)
    near_dark = cv2.dilate(dark.astype(np.uint8), reach)
    near_bright = cv2.dilate(bright.astype(np.uint8), reach)
    return not (between & ~((near_dark & near_bright).astype(bool))).any()


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

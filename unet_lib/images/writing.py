"""Write an image file."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from unet_lib.files import write_atomic


def write_image(path: str | os.PathLike, array: np.ndarray) -> Path:
    """Write a PNG file.

    Parameters
    ----------
    path : path-like
        Must end with ``.png``.
    array : ndarray
        bool ``(H, W)``, written as 0 and 255; or uint8 ``(H, W)``, ``(H, W, 1)`` or RGB
        ``(H, W, 3)``.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        Another file ending, type or shape.
    """
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

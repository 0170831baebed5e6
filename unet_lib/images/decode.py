"""Decode PNG, JPEG, BMP and TIFF files to arrays, or say what is wrong with the file.

Pillow decodes, because it refuses damaged files; OpenCV takes only what Pillow would cut down
(16-bit colour) or does not know (float colour TIFF).
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Lower-case file endings that count as images."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_MAX_PIXELS = 80_000_000  # below the size at which Pillow warns; a larger file is a mistake
_ORIENTATION, _PHOTOMETRIC, _BITS = 0x0112, 0x0106, 0x0102  # EXIF / TIFF tag numbers
# What EXIF orientation k asks for: quarter turns counter-clockwise, then a left-right flip.
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_TURNS[8] = (1, False)


class ImageError(ValueError):
    """An image or mask cannot be used; the message names the file and the remedy."""


def read_pixels(path: str | os.PathLike) -> np.ndarray:
    """Decode a file to its stored values, turned upright, without palette or transparency.

    Parameters
    ----------
    path : path-like
        PNG, JPEG, BMP or TIFF with one frame.

    Returns
    -------
    ndarray
        ``(H, W)`` grey or ``(H, W, 3)`` RGB; bool, uint8, uint16 or float32 as stored.

    Raises
    ------
    ImageError
        The file is missing, unreadable, truncated, of another format, too large, or holds
        several frames.

    Notes
    -----
    Transparency is ignored and the colours are taken as stored. Where the colours are one
    single value and the transparency is not, the drawing is in the transparency and ignoring it
    would lose everything; then the transparency itself is returned as the grey picture.
    """
    path = Path(path)
    values, orientation = _decode(path, _read_bytes(path))
    turns, flip = _TURNS.get(orientation, (0, False))
    values = np.rot90(values, turns)
    return np.ascontiguousarray(values[:, ::-1] if flip else values)


def _decode(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    """Return the stored values and the EXIF orientation that is still to be applied."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as picture:
            _check_header(path, picture)
            deep = any(";16" in str(tile.args) for tile in picture.tile)
            picture.load()  # turns TIFF upright and drops the tag, as OpenCV does for TIFF
            orientation = picture.getexif().get(_ORIENTATION, 1)
            return _values(path, picture, data, deep), orientation
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        return _decode_opencv(path, data), 1
    except Exception as error:  # a damaged file makes Pillow raise many unrelated types
        raise ImageError(
            f"{path}: cannot be decoded ({error}). If the file is damaged or incomplete, copy or "
            "download it again; if it opens elsewhere, save it as PNG."
        ) from error


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return height and width from the file's header, without decoding the pixels.

    Raises
    ------
    ImageError
        The header cannot be read.
    """
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            turned = picture.format != "TIFF" and "exif" in picture.info  # Pillow turns TIFF
            sideways = turned and picture.getexif().get(_ORIENTATION, 1) >= 5
            return picture.size if sideways else picture.size[::-1]
    except Exception:  # let the full reader find out and say what is wrong
        return read_pixels(path).shape[:2]


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(f"{path}: is a folder; expected an image file.")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file.") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened ({error.strerror}).") from error
    if not data:
        raise ImageError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    return data


def _check_header(path: Path, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise ImageError(
            f"{path}: {height} x {width} pixels are more than the {_MAX_PIXELS:,} that are read. "
            "Crop it to the ultrasound image."
        )
    frames = getattr(picture, "n_frames", 1)
    # MPO is a JPEG from a camera or phone with previews after the picture: the first is meant.
    if frames > 1 and picture.format != "MPO":
        raise ImageError(
            f"{path}: holds {frames} frames; expected one image. Save each frame as its own file."
        )


def _values(path: Path, picture: Image.Image, data: bytes, deep: bool) -> np.ndarray:
    """Return the stored values of a loaded Pillow image, before it is turned upright."""
    mode = picture.mode
    if mode in ("1", "L"):
        if "transparency" in picture.info:  # PNG: one grey level declared transparent
            return _without_alpha(np.asarray(picture.convert("LA")))
        return np.asarray(picture)
    if mode == "F":
        return _positive(picture, np.asarray(picture, np.float32))
    if mode.startswith("I"):
        return _integers(path, picture)
    if deep:
        return _decode_opencv(path, data)
    if mode == "P":
        return _palette(picture)
    if picture.has_transparency_data:
        return _without_alpha(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def _positive(picture: Image.Image, values: np.ndarray) -> np.ndarray:
    """Turn a TIFF that stores white as 0 (which Pillow does for 8 bits only)."""
    if picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == 0:
        top = 1.0 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        return (top - values).astype(values.dtype)
    return values


def _integers(path: Path, picture: Image.Image) -> np.ndarray:
    """Grey values of more than 8 bits, as uint16 over the full range."""
    values = np.asarray(picture).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{path}: grey values from {low} to {high}; expected 0 to 65535. Save it with 16 bits."
        )
    bits = picture.tag_v2.get(_BITS, (16,))[0] if picture.format == "TIFF" else 16
    if bits < 16:  # 12-bit TIFF: stretch, so that its white is white
        values = (values * 65535 + (1 << bits - 1)) // ((1 << bits) - 1)
    return _positive(picture, values.astype(np.uint16))


def _palette(picture: Image.Image) -> np.ndarray:
    colours = _without_alpha(np.asarray(picture.convert("RGBA")))
    numbers = np.asarray(picture)
    # Some tools write label numbers with an all-black palette; the numbers are the drawing then.
    if _is_constant(colours) and not _is_constant(numbers):
        return numbers
    return colours


def _without_alpha(values: np.ndarray) -> np.ndarray:
    """Drop the last channel (alpha), unless it alone holds the drawing."""
    colours, alpha = values[..., :-1], values[..., -1]
    if _is_constant(colours) and not _is_constant(alpha):
        return alpha
    return colours[..., 0] if colours.shape[-1] == 1 else colours


def _is_constant(values: np.ndarray) -> bool:
    return bool((values == values[0, 0]).all())


def _decode_opencv(path: Path, data: bytes) -> np.ndarray:
    """Decode with OpenCV at the stored depth."""
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        values = None
    if values is None or values.size == 0:
        raise ImageError(
            f"{path}: not an image that can be read; expected PNG, JPEG, BMP or TIFF. If it "
            "opens elsewhere, save it as PNG."
        )
    if values.dtype not in (np.uint8, np.uint16, np.float32):
        raise ImageError(
            f"{path}: pixels are stored as {values.dtype}; expected 8 or 16 bits or 32-bit float."
        )
    if values.ndim == 2:
        return values
    if values.shape[2] == 4:
        return _without_alpha(cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA))
    return np.ascontiguousarray(values[..., ::-1])

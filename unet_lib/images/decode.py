"""Decode image files to arrays, or say what is wrong with the file.

Pillow decodes PNG, JPEG, BMP, TIFF, WebP and GIF, because it refuses damaged files; OpenCV takes
only what Pillow would cut down (16-bit colour). DICOM: see ``dicom.py``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from unet_lib.files import kind_of
from unet_lib.images.frames import (
    MAX_BYTES,
    MAX_PIXELS,
    Frame,
    ImageError,
    PathLike,
    as_image,
)

_SUFFIXES = ".png .jpg .jpeg .jfif .bmp .tif .tiff .webp .gif .dcm .dicom"
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
"""Lower-case file endings that count as images."""

_COLOURS = ("LA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK")  # of Pillow, for 8 and for 16 bits
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
_TAKEN = (
    "expected a path, bytes, an open binary file, a PIL image, or an array (H, W), (H, W, 1) or "
    "(H, W, 3) of uint8, uint16 or float in [0, 1]."
)
_ORIENTATION, _PHOTOMETRIC, _BITS = 0x0112, 0x0106, 0x0102  # EXIF / TIFF tag numbers
# What EXIF orientation k asks for: quarter turns counter-clockwise, then a left-right flip.
# (ImageOps.exif_transpose knows no 16-bit colours, and refuses pictures with odd EXIF blocks.)
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_TURNS[8] = (1, False)


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


def read_pixels(path: PathLike) -> np.ndarray:
    """Decode a file of one frame: `Frame.pixels`; errors as of `read_frames`."""
    return read_frame(path).pixels


def read_frame(source: Any) -> Frame:
    """Take a picture of one frame as `read_frames` does; several are an ImageError."""
    frame = next(read_frames(source))
    if frame.count > 1:
        raise ImageError(
            f"{name_of(source)}: holds {frame.count} frames; expected one image. Save each frame "
            "as its own file; `Segmenter.segment_files` and the command `segment` take every frame."
        )
    return frame


def name_of(source: Any) -> str:
    """Return what messages call a picture that `read_frames` takes."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    name = getattr(source, "name", None)  # of an open file
    return name if isinstance(name, str) else "the image"


def read_frames(source: Any) -> Iterator[Frame]:
    """Decode the frames of a file one by one, turned upright, without palette or transparency.

    A file is known by its content; bytes, binary files, PIL images and arrays of pixels are taken
    too. Of WebP and GIF the first picture counts. Transparency is ignored, but where the colours
    are one single value and it is not, or is nothing at all, the drawing is in the transparency,
    and that is returned as the grey picture. ImageError names what cannot be used, and quotes
    nothing of a DICOM header but the description of its pixels; TypeError is for other objects.
    """
    if isinstance(source, np.ndarray):
        yield Frame(_stored_values(source))
        return
    name = name_of(source)
    if isinstance(source, Image.Image):
        yield from _decode(name, source)
        return
    data = None if isinstance(source, str | os.PathLike) else _content(source, name)
    if is_dicom(source) if data is None else data[128:132] == b"DICM":
        from unet_lib.images.dicom import read_dicom  # half a second, and most need no DICOM

        yield from read_dicom(Path(name), data)
    else:
        yield from _decode(name, data or _content(source, name))


def _stored_values(array: np.ndarray) -> np.ndarray:
    """Return an array as pixels, (H, W) or (H, W, 3), float as float32."""
    numbers = array.dtype in (np.uint8, np.uint16) or array.dtype.kind == "f"
    if not numbers or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,)):
        raise TypeError(f"received an array {array.dtype} {array.shape}; {_TAKEN}")
    if not array.size:
        raise ImageError(f"the image: {array.shape} has no pixels.")
    array = array[..., 0] if array.shape[2:] == (1,) else array
    return np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)


def _content(source: Any, name: str) -> bytes:
    """Return the content of a file, of an open binary file or of bytes."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return _content(file, name)
    if hasattr(source, "read"):
        if source.seekable():
            source.seek(0)
        source = source.read(MAX_BYTES + 1)
    if not isinstance(source, bytes | bytearray | memoryview):
        raise TypeError(f"received {type(source).__name__}; {_TAKEN}")
    if not 0 < len(source) <= MAX_BYTES:
        size = f"more than {MAX_BYTES:,} bytes" if source else "0 bytes"
        raise ImageError(f"{name}: {size}. Copy or download it again, or save it as PNG.")
    return bytes(source)


def _decode(name: str, source: bytes | Image.Image) -> Iterator[Frame]:
    """Decode what is no DICOM; of Pillow's images 16-bit colours have 8 bits already."""
    data = source if isinstance(source, bytes) else None
    try:
        picture = Image.open(BytesIO(data), formats=_FORMATS) if data else source
        count, at_once = _count(name, picture)
        deep: dict[int, np.ndarray] = {}  # by page
        for index in range(count):
            picture.seek(index)
            deep_tiles = data and any(";16" in str(tile.args) for tile in picture.tile)
            picture.load()  # turns TIFF upright and drops the tag, as OpenCV does for TIFF
            turns, flip = _TURNS.get(picture.getexif().get(_ORIENTATION, 1), (0, False))
            if deep_tiles and picture.mode in _COLOURS:
                if index not in deep:
                    deep = _deep_colours(data, index, min(count, index + at_once))
                values = deep.pop(index)
            else:
                values = _values(name, picture)
            values = np.rot90(values, turns)
            values = np.ascontiguousarray(values[:, ::-1] if flip else values)
            yield Frame(values, index + 1, count)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: {kind_of(data or b'')} and not an image that can be read; expected PNG, "
            "JPEG, BMP, TIFF, WebP, GIF or DICOM. Colours in floating point are not read. If it "
            "opens elsewhere, save it as PNG."
        ) from error
    except Exception as error:  # a damaged file makes Pillow raise many unrelated types
        raise ImageError(
            f"{name}: cannot be decoded ({error}). If the file is damaged or incomplete, copy or "
            "download it again; if it opens elsewhere, save it as PNG."
        ) from error


def _count(name: str, picture: Image.Image) -> tuple[int, int]:
    """Return the number of frames, and how many have no more pixels than the largest picture."""
    # MPO is a JPEG from a camera or phone with previews after the picture: the first is meant. Of
    # GIF and WebP it is taken too: their frames may be parts of a picture.
    several = picture.format not in ("MPO", "GIF", "WEBP")
    count, largest = getattr(picture, "n_frames", 1) if several else 1, 1
    if count > 1 and picture.format != "TIFF":
        raise ImageError(
            f"{name}: holds {count} frames; expected one image. Save each frame as its own file."
        )
    for index in range(count):
        picture.seek(index)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"{name}: {height} x {width} pixels are more than the {MAX_PIXELS:,} that are "
                "read. Crop it to the ultrasound image."
            )
        largest = max(largest, width * height)
    return count, MAX_PIXELS // largest


def _deep_colours(data: bytes, first: int, end: int) -> dict[int, np.ndarray]:
    """Decode pages of 16-bit colours with OpenCV, which counts from the first at every call."""
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = ()
    with suppress(cv2.error):
        content = np.frombuffer(data, np.uint8)
        decoded = cv2.imdecodemulti(content, flags, range=(first, end))[1]
    if len(decoded) != end - first:
        raise ValueError("colours of 16 bits")
    return {first + index: _rgb(values) for index, values in enumerate(decoded)}


def _rgb(values: np.ndarray) -> np.ndarray:
    """From OpenCV's order of channels; without alpha."""
    if values.ndim == 2:
        return values
    values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return _without_alpha(values) if values.shape[2] == 4 else values


def _values(name: str, picture: Image.Image) -> np.ndarray:
    """Return the stored values of a loaded picture that has no 16-bit colours."""
    mode = picture.mode
    if mode in ("1", "L") and "transparency" not in picture.info:
        return np.asarray(picture.convert("L"))
    if mode in ("1", "L"):  # PNG: one grey level declared transparent
        return _without_alpha(np.asarray(picture.convert("LA")))
    if mode == "F":
        return _positive(picture, np.asarray(picture, np.float32), 1.0)
    if mode.startswith("I"):
        return _integers(name, picture)
    if mode == "P":
        colours, numbers = _without_alpha(np.asarray(picture.convert("RGBA"))), np.asarray(picture)
        # Some tools write label numbers with an all-black palette; these are the drawing then.
        return numbers if _is_constant(colours) and not _is_constant(numbers) else colours
    if picture.has_transparency_data:
        return _without_alpha(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def _positive(picture: Image.Image, values: np.ndarray, white: float) -> np.ndarray:
    """Turn a TIFF that stores white as 0 (which Pillow does for 8 bits only)."""
    negative = picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == 0
    return (white - values).astype(values.dtype) if negative else values


def _integers(name: str, picture: Image.Image) -> np.ndarray:
    """Grey values of more than 8 bits, as uint16 over the full range."""
    values = np.asarray(picture).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name}: grey values from {low} to {high}; expected 0 to 65535. Save it with 16 bits."
        )
    bits = picture.tag_v2.get(_BITS, (16,))[0] if picture.format == "TIFF" else 16
    if bits < 16:  # 12-bit TIFF: stretch, so that its white is white
        values = (values * 65535 + (1 << bits - 1)) // ((1 << bits) - 1)
    return _positive(picture, values.astype(np.uint16), 65535)


def _without_alpha(values: np.ndarray) -> np.ndarray:
    """Drop the last channel (alpha), unless it alone holds the drawing, which may be empty."""
    colours, alpha = values[..., :-1], values[..., -1]
    if _is_constant(colours) and (not _is_constant(alpha) or not alpha.any()):
        return alpha
    return colours[..., 0] if colours.shape[-1] == 1 else colours


def _is_constant(values: np.ndarray) -> bool:
    return bool((values == values[0, 0]).all())


def read_size(path: PathLike) -> tuple[int, int]:
    """Height and width from the file's header, without decoding the pixels where possible."""
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            # Pillow has turned TIFF already.
            sideways = picture.format != "TIFF" and _orientation(picture) >= 5
            return picture.size if sideways else picture.size[::-1]
    except Exception:  # let the full reader find out and say what is wrong
        return read_pixels(path).shape[:2]


def is_turned(path: PathLike) -> bool:
    """Whether a readable picture is turned or mirrored, as its orientation tag says."""
    if is_dicom(path):
        return False
    with Image.open(path, formats=_FORMATS) as picture:
        return _orientation(picture) in _TURNS


def _orientation(picture: Image.Image) -> int:
    tagged = picture.format == "TIFF" or "exif" in picture.info  # else PNG decodes for it
    return picture.getexif().get(_ORIENTATION, 1) if tagged else 1


def is_picture(path: Path) -> bool:
    """Whether a file counts as a picture: by its ending, or else by its content (``IM000001``)."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    with suppress(OSError), Image.open(path, formats=_FORMATS):
        return True
    return is_dicom(path)


def is_dicom(path: PathLike) -> bool:
    """Whether a file is DICOM, by its content; ImageError for what cannot be opened."""
    path = Path(path)
    try:
        if stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            with open(path, "rb") as file:
                return file.read(132)[128:] == b"DICM"
        reason = f"is {'a folder' if path.is_dir() else 'no regular file'}; expected an image file."
    except FileNotFoundError:
        reason = "no such file."
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = f"cannot be opened ({getattr(error, 'strerror', None) or error})."
    raise ImageError(f"{path}: {reason} Check its name, and that you may read it.")

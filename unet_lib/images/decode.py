"""Decode image files to arrays, or say what is wrong with the file.

Pillow decodes PNG, JPEG, BMP and TIFF, because it refuses damaged files; OpenCV takes only what
Pillow would cut down (16-bit colour) or does not know (float colour TIFF). DICOM: see ``dicom.py``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from unet_lib.images.frames import Frame, ImageError, PathLike

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"})
"""Lower-case file endings that count as images."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_MAX_PIXELS = 32_000_000  # 16-bit RGBA of this size takes 0.8 GB to decode; larger is a mistake
_MAX_BYTES = 400_000_000  # of a file that is read at once: the largest picture, not compressed
_MAX_FRAMES = 10_000
_TAKEN = (
    "expected a path, bytes, an open binary file, a PIL image, or an array (H, W), (H, W, 1) or "
    "(H, W, 3) of uint8, uint16 or float in [0, 1]."
)
_ORIENTATION, _PHOTOMETRIC, _BITS = 0x0112, 0x0106, 0x0102  # EXIF / TIFF tag numbers
_WIDTH, _LENGTH = 0x0100, 0x0101
# What EXIF orientation k asks for: quarter turns counter-clockwise, then a left-right flip.
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_TURNS[8] = (1, False)


def read_pixels(path: PathLike) -> np.ndarray:
    """Decode a file of one frame to its stored values.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    ndarray
        ``(H, W)`` grey or ``(H, W, 3)`` RGB; bool, uint8, uint16 or float32 as stored.

    Raises
    ------
    ImageError
        See :func:`read_frames`; also a file that holds several frames.
    """
    return read_frame(path).pixels


def read_frame(source: Any) -> Frame:
    """Take a picture of one frame as :func:`read_frames` does; several are an ImageError."""
    frame = next(read_frames(source))
    if frame.count > 1:
        raise ImageError(
            f"{name_of(source)}: holds {frame.count} frames; expected one image. Save each frame "
            "as its own file; `Segmenter.segment_files` and the command `segment` take every frame."
        )
    return frame


def name_of(source: Any) -> str:
    """Return what messages call a picture that :func:`read_frames` takes."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    name = getattr(source, "name", None)  # of an open file
    return name if isinstance(name, str) else "the image"


def read_frames(source: Any) -> Iterator[Frame]:
    """Decode the frames of a file one by one, turned upright, without palette or transparency.

    Parameters
    ----------
    source : path-like, bytes, binary file, PIL image or ndarray
        PNG, JPEG, BMP, TIFF (also with several pages) or DICOM (also with several frames; known
        by its content, whatever the file is called). Arrays are taken as pixels: (H, W), (H, W, 1)
        or RGB (H, W, 3) of uint8, uint16 or float in [0, 1].

    Yields
    ------
    Frame
        In the file's order.

    Raises
    ------
    ImageError
        The file is missing, unreadable, truncated, of another format or too large, or a PNG holds
        several frames. Nothing of a DICOM header but the description of its pixels is quoted.

    Notes
    -----
    Transparency is ignored and the colours are taken as stored. Where the colours are one
    single value and the transparency is not, the drawing is in the transparency and ignoring it
    would lose everything; then the transparency itself is returned as the grey picture.
    """
    if isinstance(source, np.ndarray):
        yield Frame(_stored_values(source))
        return
    if isinstance(source, Image.Image):
        with _decoding("the image"):
            yield from _frames(lambda index: _decode_picture("the image", source, None, index))
        return
    path, data = Path(name_of(source)), None
    if isinstance(source, str | os.PathLike):
        dicom = is_dicom(path)
    else:
        data = _given_bytes(source)
        dicom = data[128:132] == b"DICM"
    if dicom:
        from unet_lib.images.dicom import read_dicom  # half a second, and most need no DICOM

        yield from read_dicom(path, _MAX_PIXELS, _MAX_BYTES, data)
        return
    data = _read_bytes(path) if data is None else data
    yield from _frames(lambda index: _decode(path, data, index))


def _frames(decode: Callable[[int], tuple[np.ndarray, int, int]]) -> Iterator[Frame]:
    count = 1
    number = 0
    while number < count:
        values, orientation, count = decode(number)
        number += 1
        turns, flip = _TURNS.get(orientation, (0, False))
        values = np.rot90(values, turns)
        values = np.ascontiguousarray(values[:, ::-1] if flip else values)
        yield Frame(values, number, count)


def _stored_values(array: np.ndarray) -> np.ndarray:
    """Return an array as pixels, (H, W) or (H, W, 3), float as float32."""
    numbers = array.dtype in (np.uint8, np.uint16) or array.dtype.kind == "f"
    if not numbers or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,)):
        raise TypeError(f"received an array {array.dtype} {array.shape}; {_TAKEN}")
    if not array.size:
        raise ImageError(f"the image: {array.shape} has no pixels.")
    array = array[..., 0] if array.shape[2:] == (1,) else array
    return np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)


def _given_bytes(source: Any) -> bytes:
    """Return the content of bytes or of an open binary file."""
    if hasattr(source, "read"):
        if source.seekable():
            source.seek(0)
        source = source.read(_MAX_BYTES + 1)
    if not isinstance(source, bytes | bytearray | memoryview):
        raise TypeError(f"received {type(source).__name__}; {_TAKEN}")
    if not 0 < len(source) <= _MAX_BYTES:
        raise ImageError(f"the image: {len(source):,} bytes; expected 1 to {_MAX_BYTES:,}.")
    return bytes(source)


def _decode(path: Path, data: bytes, index: int) -> tuple[np.ndarray, int, int]:
    """Return stored values, the EXIF orientation still to be applied, and the frame count."""
    try:
        with _decoding(path), Image.open(BytesIO(data), formats=_FORMATS) as picture:
            return _decode_picture(path, picture, data, index)
    except Image.UnidentifiedImageError:
        _check_tiff(path, data)
        return _decode_opencv(path, data), 1, 1


def _decode_picture(
    path: PathLike, picture: Image.Image, data: bytes | None, index: int
) -> tuple[np.ndarray, int, int]:
    """Decode as `_decode`; without data 16-bit colour has the 8 bits that Pillow gives it."""
    count = _count(path, picture)
    picture.seek(index)
    _check_size(path, picture)
    deep = data is not None and any(";16" in str(tile.args) for tile in picture.tile)
    picture.load()  # turns TIFF upright and drops the tag, as OpenCV does for TIFF
    orientation = picture.getexif().get(_ORIENTATION, 1)
    return _values(path, picture, data, deep, index), orientation, count


@contextmanager
def _decoding(path: PathLike) -> Iterator[None]:
    try:
        yield
    except (ImageError, Image.UnidentifiedImageError):
        raise
    except Exception as error:  # a damaged file makes Pillow raise many unrelated types
        raise ImageError(
            f"{path}: cannot be decoded ({error}). If the file is damaged or incomplete, copy or "
            "download it again; if it opens elsewhere, save it as PNG."
        ) from error


def read_size(path: PathLike) -> tuple[int, int]:
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


def is_dicom(path: PathLike) -> bool:
    """Whether a file is DICOM, by its content.

    Raises
    ------
    ImageError
        It is no regular file, or cannot be opened.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            raise ImageError(
                f"{path}: is {'a folder' if path.is_dir() else 'no regular file'}; expected an "
                "image file."
            )
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ImageError(
            f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})."
        ) from error


def _read_bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ImageError(
            f"{path}: {size:,} bytes are more than the {_MAX_BYTES:,} that are read. Save the "
            "picture as PNG."
        )
    data = path.read_bytes()
    if not data:
        raise ImageError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    return data


def _count(path: Path, picture: Image.Image) -> int:
    frames = getattr(picture, "n_frames", 1)
    # MPO is a JPEG from a camera or phone with previews after the picture: the first is meant.
    if picture.format == "MPO":
        return 1
    if frames > (_MAX_FRAMES if picture.format == "TIFF" else 1):
        raise ImageError(
            f"{path}: holds {frames} frames; expected one image. Save each frame as its own file."
        )
    return frames


def _check_size(path: Path, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise ImageError(
            f"{path}: {height} x {width} pixels are more than the {_MAX_PIXELS:,} that are read. "
            "Crop it to the ultrasound image."
        )


def _values(
    path: Path, picture: Image.Image, data: bytes | None, deep: bool, index: int
) -> np.ndarray:
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
        return _decode_opencv(path, data, index)
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


def _check_tiff(path: Path, data: bytes) -> None:
    """Let pass a TIFF of a kind that Pillow does not know, and nothing else."""
    try:
        directory = ImageFileDirectory_v2(data[:8])
        file = BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        height, width = int(directory[_LENGTH]), int(directory[_WIDTH])
    except Exception as error:
        raise ImageError(
            f"{path}: not an image that can be read; expected PNG, JPEG, BMP, TIFF or DICOM. If "
            "it opens elsewhere, save it as PNG."
        ) from error
    if height * width > _MAX_PIXELS or directory.next:
        raise ImageError(
            f"{path}: float TIFF of {height} x {width} pixels, {'several' if directory.next else 1}"
            f" page(s); expected one page of at most {_MAX_PIXELS:,} pixels. Save it as PNG."
        )


def _decode_opencv(path: Path, data: bytes, index: int = 0) -> np.ndarray:
    """Decode with OpenCV at the stored depth."""
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    code = np.frombuffer(data, np.uint8)
    try:
        if index:
            values = cv2.imdecodemulti(code, flags, range=(index, index + 1))[1][0]
        else:
            values = cv2.imdecode(code, flags)
    except cv2.error:
        values = None
    if values is None or values.size == 0:
        raise ImageError(
            f"{path}: cannot be decoded. If it is damaged, copy it again; if it opens elsewhere, "
            "save it as PNG."
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

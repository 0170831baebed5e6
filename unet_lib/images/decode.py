"""Decode image files to arrays, or say what is wrong with the file.

Pillow decodes PNG, JPEG, BMP, TIFF, WebP and GIF, because it refuses damaged files; OpenCV takes
only what Pillow would cut down (16-bit colour). DICOM: see ``dicom.py``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from unet_lib.images.frames import Frame, ImageError, PathLike

_SUFFIXES = ".png .jpg .jpeg .jfif .bmp .tif .tiff .webp .gif .dcm .dicom"
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
"""Lower-case file endings that count as images."""

_COLOURS = ("LA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK")  # of Pillow, for 8 and for 16 bits
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
_MAX_PIXELS = 32_000_000  # 16-bit RGBA of this size takes 0.8 GB to decode; larger is a mistake
_MAX_BYTES = 400_000_000  # of a file that is read at once: the largest picture, not compressed
_MAX_FRAMES = 10_000
_TAKEN = (
    "expected a path, bytes, an open binary file, a PIL image, or an array (H, W), (H, W, 1) or "
    "(H, W, 3) of uint8, uint16 or float in [0, 1]."
)
_ORIENTATION, _PHOTOMETRIC, _BITS = 0x0112, 0x0106, 0x0102  # EXIF / TIFF tag numbers
# What EXIF orientation k asks for: quarter turns counter-clockwise, then a left-right flip.
# (ImageOps.exif_transpose knows no 16-bit colours, and refuses pictures with odd EXIF blocks.)
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}
_TURNS[8] = (1, False)


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

    Transparency is ignored and the colours are taken as stored. Where these are one single value
    and the transparency is not, the drawing is in the transparency, and that is returned as the
    grey picture, as it is where a picture of one value is wholly transparent.

    Parameters
    ----------
    source : path-like, bytes, binary file, PIL image or ndarray
        PNG, JPEG, BMP, TIFF (also with several pages), WebP, GIF (of both the first picture) or
        DICOM (also with several frames); known by its content, whatever the file is called. Arrays
        are taken as pixels: (H, W), (H, W, 1)
        or RGB (H, W, 3) of uint8, uint16 or float in [0, 1].

    Raises
    ------
    ImageError
        The file is missing, unreadable, truncated, of another format or too large, or a PNG holds
        several frames. Nothing of a DICOM header but the description of its pixels is quoted.
    TypeError
        Something else than the above.
    """
    if isinstance(source, np.ndarray):
        yield Frame(_stored_values(source))
        return
    name = name_of(source)
    if isinstance(source, Image.Image):
        yield from _decode(name, source)
        return
    data = None if isinstance(source, str | os.PathLike) else _given_bytes(source)
    if is_dicom(source) if data is None else data[128:132] == b"DICM":
        from unet_lib.images.dicom import read_dicom  # half a second, and most need no DICOM

        yield from read_dicom(Path(name), _MAX_PIXELS, _MAX_BYTES, data)
        return
    yield from _decode(name, _read_bytes(Path(source)) if data is None else data)


def _decode(name: str, source: bytes | Image.Image) -> Iterator[Frame]:
    """Decode what is no DICOM; of Pillow's images 16-bit colours have 8 bits already."""
    data = source if isinstance(source, bytes) else None
    try:
        picture = Image.open(BytesIO(data), formats=_FORMATS) if data else source
        count = _count(name, picture)
        deep: dict[int, np.ndarray] = {}  # by page
        for index in range(count):
            picture.seek(index)
            _check_size(name, picture)
            deep_tiles = data and any(";16" in str(tile.args) for tile in picture.tile)
            picture.load()  # turns TIFF upright and drops the tag, as OpenCV does for TIFF
            turns, flip = _TURNS.get(picture.getexif().get(_ORIENTATION, 1), (0, False))
            if deep_tiles and picture.mode in _COLOURS:
                if index not in deep:
                    deep = _deep_colours(name, data, index, _pages_at_once(picture, count))
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
            f"{name}: not an image that can be read; expected PNG, JPEG, BMP, TIFF, WebP, "
            "GIF or DICOM. Colours in floating point are not read. If it opens elsewhere, save it "
            "as PNG."
        ) from error
    except Exception as error:  # a damaged file makes Pillow raise many unrelated types
        raise ImageError(
            f"{name}: cannot be decoded ({error}). If the file is damaged or incomplete, copy or "
            "download it again; if it opens elsewhere, save it as PNG."
        ) from error


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


def read_size(path: PathLike) -> tuple[int, int]:
    """Height and width from the file's header, without decoding the pixels where possible."""
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            turned = picture.format != "TIFF" and "exif" in picture.info  # Pillow turns TIFF
            sideways = turned and picture.getexif().get(_ORIENTATION, 1) >= 5
            return picture.size if sideways else picture.size[::-1]
    except Exception:  # let the full reader find out and say what is wrong
        return read_pixels(path).shape[:2]


def is_turned(path: PathLike) -> bool:
    """Whether a readable picture is turned or mirrored, as its orientation tag says."""
    if is_dicom(path):
        return False
    with Image.open(path, formats=_FORMATS) as picture:
        tagged = picture.format == "TIFF" or "exif" in picture.info  # else PNG decodes for it
        return tagged and picture.getexif().get(_ORIENTATION, 1) in _TURNS


def is_picture(path: Path) -> bool:
    """Whether a file counts as a picture: by its ending, DICOM also without (``IM000001``)."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    bare = not path.suffix or path.suffix[1:].isdecimal()  # 1.2.840.113 has no ending either
    return bare and path.name.upper() != "DICOMDIR" and path.is_file() and is_dicom(path)


def is_dicom(path: PathLike) -> bool:
    """Whether a file is DICOM, by its content; ImageError for what cannot be opened."""
    path = Path(path)
    try:
        if stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            with open(path, "rb") as file:
                return file.read(132)[128:] == b"DICM"
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ImageError(
            f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})."
        ) from error
    kind = "a folder" if path.is_dir() else "no regular file"
    raise ImageError(f"{path}: is {kind}; expected an image file.")


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


def _count(name: str, picture: Image.Image) -> int:
    frames = getattr(picture, "n_frames", 1)
    # MPO is a JPEG from a camera or phone with previews after the picture: the first is meant. Of
    # GIF and WebP it is taken too: their frames may be parts of a picture.
    if picture.format in ("MPO", "GIF", "WEBP"):
        return 1
    if frames > (_MAX_FRAMES if picture.format == "TIFF" else 1):
        raise ImageError(
            f"{name}: holds {frames} frames; expected one image. Save each frame as its own file."
        )
    return frames


def _check_size(name: str, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise ImageError(
            f"{name}: {height} x {width} pixels are more than the {_MAX_PIXELS:,} that are read. "
            "Crop it to the ultrasound image."
        )


def _values(name: str, picture: Image.Image) -> np.ndarray:
    """Return the stored values of a loaded picture that has no 16-bit colours."""
    mode = picture.mode
    if mode in ("1", "L") and "transparency" not in picture.info:
        return np.asarray(picture)
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


def _pages_at_once(picture: Image.Image, count: int) -> int:
    """Pages from this one on that have no more pixels together than the largest picture."""
    first, pixels = picture.tell(), 0
    for index in range(first, count):
        picture.seek(index)
        pixels += picture.width * picture.height
        if pixels > _MAX_PIXELS:
            return index - first
    return count - first


def _deep_colours(name: str, data: bytes, first: int, pages: int) -> dict[int, np.ndarray]:
    """Decode pages of 16-bit colours with OpenCV, which counts from the first at every call."""
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    span = (first, first + pages)
    try:
        decoded = cv2.imdecodemulti(np.frombuffer(data, np.uint8), flags, range=span)[1]
    except cv2.error:
        decoded = ()
    if len(decoded) != pages:
        raise ImageError(
            f"{name}: cannot be decoded. If it is damaged, copy it again; if it opens elsewhere, "
            "save it as PNG."
        )
    return {first + index: _rgb(values) for index, values in enumerate(decoded)}


def _rgb(values: np.ndarray) -> np.ndarray:
    """From OpenCV's order of channels; without alpha."""
    if values.ndim == 2:
        return values
    values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return _without_alpha(values) if values.shape[2] == 4 else values

"""Decode DICOM files to what a viewer would show. Only tags of the picture are ever read.

pydicom parses and unpacks; JPEG is decoded by Pillow, JPEG-LS by CharLS, JPEG 2000 by OpenJPEG.
GDCM is never used, also where it is installed: damaged files end the process with it.

Patients: no message quotes a value of the header, and importing this module switches pydicom's
warnings on invalid values off, which quote them (`reading_validation_mode`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    get_decoder,
    iter_pixels,
)

from unet_lib.images.frames import Frame, ImageError, Region

_PALETTE = [
    f"{kind}{colour}PaletteColorLookupTable{what}"
    for colour in ("Red", "Green", "Blue")
    for kind, what in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
# No tag of the patient, the study or the device is among them: the others are not even parsed.
_TAGS = [
    "Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "PixelSpacing",
    "SequenceOfUltrasoundRegions", "SharedFunctionalGroupsSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", *_PALETTE,
]  # fmt: skip
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")
_WAVELET = ("YBR_ICT", "YBR_RCT")  # colour inside JPEG 2000, undone by its decoder
_PLAIN = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_J2K = (uid.JPEG2000, uid.JPEG2000Lossless, uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)
_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_OPTIONAL = (uid.JPEGLossless, uid.JPEGLosslessSV1)  # also 12-bit JPEG
_KINDS = (*_GREY, *_COLOUR, *_WAVELET, "PALETTE COLOR", "ARGB", "CMYK", "HSV", "YBR_PARTIAL_420")
_MAX_TILES = 4096
_CENTIMETRES, _PLANE = 3, 1  # PS3.3 C.8.5.5.1.15 and C.8.5.5.1.1

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def read_dicom(
    path: Path, max_pixels: int, max_bytes: int, data: bytes | None = None
) -> Iterator[Frame]:
    """Yield the frames of a DICOM file one by one.

    Grey values go through the modality transformation and the first window or look-up table where
    the file has one, else the range of the stored bits is the range from black to white.
    MONOCHROME1 is inverted, YBR and palettes become RGB.

    Parameters
    ----------
    path : Path
    max_pixels : int
        Refuse larger pictures.
    max_bytes : int
        Refuse files with more compressed data.
    data : bytes, optional
        The file's content; without it, it is read from `path`.

    Raises
    ------
    ImageError
        See :func:`unet_lib.images.read_frames`.
    """
    try:
        source = (lambda: path) if data is None else (lambda: BytesIO(data))
        header = pydicom.dcmread(source(), stop_before_pixels=True, specific_tags=_TAGS)
        count = _check(path, header, max_pixels)
        regions = _regions(header)
        number = 0
        frames = _stored(path, source, header, count, max_bytes)
        for number, stored in enumerate(frames, start=1):  # noqa: B007
            yield Frame(_display(path, stored, header), number, count, regions)
    except ImageError:
        raise
    except Exception as error:  # damaged files make pydicom and the decoders raise many types
        raise ImageError(
            f"{path}: the DICOM file cannot be decoded ({type(error).__name__}). If it is damaged "
            "or incomplete, copy it again; if it opens in a viewer, export the picture as PNG."
        ) from None  # the error itself could quote the header
    if number != count:
        raise ImageError(
            f"{path}: says that it holds {count} frames, {number} are there. Copy it again."
        )


def _check(path: Path, header: Any, max_pixels: int) -> int:
    """Refuse what is no picture that can be read; return the number of frames."""
    if "Rows" not in header or "Columns" not in header:
        raise ImageError(f"{path}: a DICOM file without a picture. Choose an image file.")
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax == uid.DeflatedExplicitVRLittleEndian:
        how = "deflated" if syntax else "in an unnamed way"
        raise ImageError(f"{path}: DICOM stored {how}. Export it uncompressed, or as PNG.")
    rows, columns = int(header.Rows), int(header.Columns)
    if rows * columns > max_pixels or rows * columns == 0:
        raise ImageError(
            f"{path}: {rows} x {columns} pixels; expected 1 to {max_pixels:,}. Crop it to the "
            "ultrasound image."
        )
    kind, bits = header.get("PhotometricInterpretation"), header.get("BitsStored")
    known = kind in (*_GREY, *_COLOUR, "PALETTE COLOR") or (kind in _WAVELET and syntax in _J2K)
    if not known or not isinstance(bits, int) or not 1 <= bits <= 16:
        raise ImageError(
            f"{path}: DICOM pixels of {kind if kind in _KINDS else 'unknown kind'} with "
            f"{bits if isinstance(bits, int) else 'no'} bits; expected MONOCHROME1, MONOCHROME2, "
            "RGB, YBR or PALETTE COLOR with 1 to 16. Export it as PNG."
        )
    return int(header.get("NumberOfFrames") or 1)


def _stored(
    path: Path, source: Callable[[], Any], header: Any, count: int, max_bytes: int
) -> Iterator[np.ndarray]:
    """Yield the stored values of each frame, colours as RGB."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _PLAIN:
        yield from iter_pixels(source())
        return
    if source() is path and path.stat().st_size > max_bytes:
        raise ImageError(f"{path}: larger than {max_bytes:,} bytes. Export fewer frames.")
    plugin = _plugin(path, syntax, header.BitsStored)
    full = pydicom.dcmread(source(), specific_tags=[*_TAGS, "PixelData"])
    for code in generate_frames(full.PixelData, number_of_frames=count):
        _check_code(path, code, header, syntax)
    yield from iter_pixels(full, decoding_plugin=plugin)


def _plugin(path: Path, syntax: uid.UID, bits: int) -> str:
    """Choose the decoder; "" is pydicom's own (RLE)."""
    if syntax == uid.RLELossless:
        return ""
    if syntax in _JPEG and bits <= 8:
        return "pillow"
    if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        return "pyjpegls"
    if syntax not in (*_J2K, *_JPEG, *_OPTIONAL):
        name = "an unknown transfer syntax" if syntax.name == syntax else syntax.name
        raise ImageError(f"{path}: DICOM with {name}, which is not read. Export it as PNG.")
    if syntax not in _J2K and "pylibjpeg" not in get_decoder(syntax).available_plugins:
        raise ImageError(
            f"{path}: DICOM with {syntax.name}, {bits} bits. Its decoder is under the GPL and not "
            "among our packages: pip install pylibjpeg-libjpeg, or export the picture as PNG."
        )
    return "pylibjpeg"


def _check_code(path: Path, code: bytes, header: Any, syntax: uid.UID) -> None:
    """Compare the size inside compressed data with the header's before memory is taken for it."""
    if syntax == uid.RLELossless:
        return
    expected = int(header.Rows), int(header.Columns)
    found = _wavelet_size(code) if syntax in _J2K else _jpeg_size(code)
    if found != expected:
        raise ImageError(
            f"{path}: the header says {expected[0]} x {expected[1]} pixels, the compressed picture "
            f"{'nothing' if found is None else f'{found[0]} x {found[1]}'}. Copy it again."
        )


def _jpeg_size(code: bytes) -> tuple[int, int] | None:
    """Height and width in a JPEG or JPEG-LS stream's frame header (ISO 10918-1, B.2.2)."""
    place = 2
    while place + 9 <= len(code) and code[place] == 0xFF:
        marker, length = code[place + 1], int.from_bytes(code[place + 2 : place + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack(">HH", code[place + 5 : place + 9])
        place += 1 if marker == 0xFF else 2 + length
    return None


def _wavelet_size(code: bytes) -> tuple[int, int] | None:
    """Height and width in a JPEG 2000 stream's SIZ (ISO 15444-1, A.5.1); None with absurd tiles."""
    boxed = code.startswith(b"\0\0\0\x0cjP  ")  # some files wrap the stream into a JP2 file
    start = code.find(b"jp2c\xff\x4f\xff\x51") + 4 if boxed else 0
    if code[start : start + 4] != b"\xff\x4f\xff\x51" or len(code) < start + 40:
        return None
    x1, y1, x0, y0, tile_x, tile_y = struct.unpack(">6I", code[start + 8 : start + 32])
    tiles = math.ceil(x1 / max(tile_x, 1)) * math.ceil(y1 / max(tile_y, 1))
    return (y1 - y0, x1 - x0) if 0 < tiles <= _MAX_TILES and tile_x and tile_y else None


def _display(path: Path, stored: np.ndarray, header: Any) -> np.ndarray:
    """Turn stored values to what is shown: uint8 or uint16 from black to white."""
    kind, bits = header.PhotometricInterpretation, int(header.BitsStored)
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)[..., :3]
        return np.ascontiguousarray(colours)
    if kind not in _GREY:
        return _spread(stored, 0, 2**bits - 1)
    signed = bool(header.get("PixelRepresentation", 0))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = stored
    if header.get("VOILUTSequence") or "WindowWidth" in header or header.get("ModalityLUTSequence"):
        values = apply_voi_lut(apply_modality_lut(stored, header), header)
        ends = _ends(header, low, high)
        low, high = min(ends), max(ends)
    shown = _spread(values, low, high)
    return np.iinfo(shown.dtype).max - shown if kind == "MONOCHROME1" else shown


def _ends(header: Any, low: int, high: int) -> tuple[float, float]:
    """Least and greatest value that the look-up tables and the window give (PS3.3 C.11)."""
    if header.get("VOILUTSequence"):
        return 0.0, 2.0 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
    if header.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** header.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    slope = float(header.get("RescaleSlope", 1))
    intercept = float(header.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Put the range from `low` to `high` onto all of uint8 or uint16, rounding."""
    if low == 0 and high == 255 and values.dtype == np.uint8:
        return values
    top, kind = (255, np.uint8) if high - low <= 255 else (65535, np.uint16)
    scaled = (values.astype(np.float64) - low) * (top / (high - low))
    return np.rint(np.clip(scaled, 0, top)).astype(kind)


def _regions(header: Any) -> tuple[Region, ...]:
    """Read pixel sizes: ultrasound regions (PS3.3 C.8.5.5) first, else the spacing of all.

    A region that reaches out of the picture shows that the picture was resized or cropped after
    the region was written: then nothing is known.
    """
    whole = 0, 0, int(header.Columns), int(header.Rows)
    found = []
    for item in header.get("SequenceOfUltrasoundRegions") or ():
        units = {item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")}
        box = [item.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        sizes = [item.get(f"PhysicalDelta{axis}") for axis in "YX"]
        if None in box or item.get("RegionSpatialFormat") != _PLANE or units != {_CENTIMETRES}:
            continue  # a curve, Doppler or text
        if box[2] >= whole[2] or box[3] >= whole[3]:
            return ()
        sizes = [abs(10.0 * float(size or 0)) for size in sizes]
        if all(map(_plausible, sizes)):
            found.append(Region(box[0], box[1], box[2] + 1, box[3] + 1, *sizes))
    if found or header.get("SequenceOfUltrasoundRegions"):
        return tuple(found)
    spacing = header.get("PixelSpacing")
    for group in header.get("SharedFunctionalGroupsSequence") or ():
        for measures in group.get("PixelMeasuresSequence") or ():
            spacing = spacing or measures.get("PixelSpacing")
    if spacing is None or isinstance(spacing, float | str) or len(spacing) != 2:
        return ()
    sizes = [float(size) for size in spacing]
    return (Region(*whole, *sizes),) if all(map(_plausible, sizes)) else ()


def _plausible(size: float) -> bool:
    return math.isfinite(size) and 0 < size < 1000

"""Decode DICOM files to what a viewer would show. Only tags of the picture are ever read.

pydicom parses and unpacks; JPEG is decoded by Pillow, JPEG-LS by CharLS, JPEG 2000 by OpenJPEG.
GDCM is never used, also where it is installed: damaged files end the process with it.

Patients: no message quotes a value of the header, and importing this module switches pydicom's
warnings on invalid values off, which quote them (`reading_validation_mode`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    get_decoder,
    iter_pixels,
)
from pydicom.pixels.utils import get_expected_length

from unet_lib.images.frames import MAX_BYTES, MAX_PIXELS, Frame, ImageError, Region

# No tag of the patient, the study or the device is among them: the others are not even parsed.
_TAGS = """
    Rows Columns BitsAllocated BitsStored PixelRepresentation SamplesPerPixel NumberOfFrames
    PhotometricInterpretation PlanarConfiguration PixelSpacing SequenceOfUltrasoundRegions
    SharedFunctionalGroupsSequence WindowCenter WindowWidth VOILUTFunction VOILUTSequence
    RescaleSlope RescaleIntercept ModalityLUTSequence ExtendedOffsetTable ExtendedOffsetTableLengths
""".split()  # noqa: SIM905
_TAGS += [
    f"{kind}{colour}PaletteColorLookupTable{what}"
    for colour in ("Red", "Green", "Blue")
    for kind, what in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")
_WAVELET = ("YBR_ICT", "YBR_RCT")  # colour inside JPEG 2000, undone by its decoder
_PLAIN = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_J2K = (uid.JPEG2000, uid.JPEG2000Lossless, uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)
_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_OPTIONAL = (uid.JPEGLossless, uid.JPEGLosslessSV1)  # also 12-bit JPEG
_KINDS = (*_GREY, *_COLOUR, *_WAVELET, "PALETTE COLOR", "ARGB", "CMYK", "HSV", "YBR_PARTIAL_420")
_CENTIMETRES, _PLANE = 3, 1  # PS3.3 C.8.5.5.1.15 and C.8.5.5.1.1

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def read_dicom(path: Path, data: bytes | None = None) -> Iterator[Frame]:
    """Yield the frames of a DICOM file, or of its content.

    Grey values go through the modality transformation and the first window or look-up table where
    the file has one, else the range of the stored bits is the range from black to white.
    MONOCHROME1 is inverted, YBR and palettes become RGB.
    """
    try:
        source = (lambda: path) if data is None else (lambda: BytesIO(data))
        header = pydicom.dcmread(source(), stop_before_pixels=True, specific_tags=_TAGS)
        count = _check(path, header)
        regions = _regions(header)
        number = 0
        frames = _stored(path, source, header, count)
        for number, stored in enumerate(frames, start=1):  # noqa: B007
            yield Frame(_display(stored, header), number, count, regions)
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


def _check(path: Path, header: Any) -> int:
    """Refuse what is no picture that can be read; return the number of frames."""
    if "Rows" not in header or "Columns" not in header:
        raise ImageError(f"{path}: a DICOM file without a picture. Choose an image file.")
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax == uid.DeflatedExplicitVRLittleEndian:
        how = "deflated" if syntax else "in an unnamed way"
        raise ImageError(f"{path}: DICOM stored {how}. Export it uncompressed, or as PNG.")
    rows, columns = int(header.Rows), int(header.Columns)
    if not 0 < rows * columns <= MAX_PIXELS:
        raise ImageError(
            f"{path}: {rows} x {columns} pixels; expected 1 to {MAX_PIXELS:,}. Crop it to the "
            "ultrasound image."
        )
    kind, bits = header.get("PhotometricInterpretation"), header.get("BitsStored")
    readable = kind in (*_GREY, *_COLOUR, "PALETTE COLOR") or (kind in _WAVELET and syntax in _J2K)
    if not readable or not isinstance(bits, int) or not 1 <= bits <= 16:
        raise ImageError(
            f"{path}: DICOM pixels of {kind if kind in _KINDS else 'unknown kind'} with "
            f"{bits if isinstance(bits, int) else 'no'} bits; expected MONOCHROME1, MONOCHROME2, "
            "RGB, YBR or PALETTE COLOR with 1 to 16. Export it as PNG."
        )
    return int(header.get("NumberOfFrames") or 1)


def _stored(path: Path, source: Callable[[], Any], header: Any, count: int) -> Iterator[np.ndarray]:
    """Yield the stored values of each frame, colours as RGB."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _PLAIN:
        if header.PhotometricInterpretation == "YBR_FULL_422":  # left so by some who unpack JPEG
            full = pydicom.dcmread(source(), specific_tags=[*_TAGS, "PixelData"])
            if len(full.PixelData) > get_expected_length(full) + 1:
                raise ImageError(
                    f"{path}: the header says YBR_FULL_422, but there are more pixels than that: "
                    "which colours they hold is not known. Export it as JPEG or PNG."
                )
        yield from iter_pixels(source())
        return
    if source() is path and path.stat().st_size > MAX_BYTES:
        raise ImageError(f"{path}: larger than {MAX_BYTES:,} bytes. Export fewer frames.")
    plugin = _plugin(path, syntax, header.BitsStored)
    full = pydicom.dcmread(source(), specific_tags=[*_TAGS, "PixelData"])
    size = int(header.Rows), int(header.Columns)
    for code in generate_frames(full.PixelData, number_of_frames=count):
        coded = _coded_size(code, syntax, plugin) if plugin else size
        if coded != size:
            raise ImageError(
                f"{path}: the header says {size[0]} x {size[1]} pixels, the compressed picture "
                f"{coded[0]} x {coded[1]}. Copy it again."
            )
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


def _coded_size(code: bytes, syntax: uid.UID, plugin: str) -> tuple[int, int]:
    """Height and width inside compressed data, by its decoder, before memory is taken for it."""
    if plugin == "pillow":
        return Image.open(BytesIO(code), formats=("JPEG",)).size[::-1]
    if plugin == "pyjpegls":
        said = importlib.import_module("_CharLS").read_header(code)
        return said["height"], said["width"]
    said = importlib.import_module("openjpeg" if syntax in _J2K else "libjpeg").get_parameters(code)
    return said["rows"], said["columns"]


def _display(stored: np.ndarray, header: Any) -> np.ndarray:
    """Turn stored values to what is shown: uint8 or uint16 from black to white."""
    kind, bits = header.PhotometricInterpretation, int(header.BitsStored)
    if kind == "PALETTE COLOR":
        return np.ascontiguousarray(apply_color_lut(stored, header)[..., :3])
    if kind not in _GREY:
        return _spread(stored, 0, 2**bits - 1)
    signed = bool(header.get("PixelRepresentation", 0))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    tables = header.get("VOILUTSequence") or header.get("ModalityLUTSequence")
    values = stored
    if tables or "WindowWidth" in header:
        values = apply_voi_lut(apply_modality_lut(stored, header), header)
        if tables:  # their entries go from 0 to 2 ** bits - 1 (PS3.3 C.11)
            low, high = 0, 2 ** tables[0].LUTDescriptor[2] - 1
        else:
            slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
            low, high = sorted(end * float(slope) + float(intercept) for end in (low, high))
    shown = _spread(values, low, high)
    return np.iinfo(shown.dtype).max - shown if kind == "MONOCHROME1" else shown


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
    columns, rows = int(header.Columns), int(header.Rows)
    items, regions = header.get("SequenceOfUltrasoundRegions") or (), []
    for item in items:
        units = {item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")}
        box = [item.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if None in box or item.get("RegionSpatialFormat") != _PLANE or units != {_CENTIMETRES}:
            continue  # a curve, Doppler or text
        if box[2] >= columns or box[3] >= rows:
            return ()
        sizes = [abs(10.0 * float(item.get(f"PhysicalDelta{axis}") or 0)) for axis in "YX"]
        if all(map(_plausible, sizes)):
            regions.append(Region(box[0], box[1], box[2] + 1, box[3] + 1, *sizes))
    if items:
        return tuple(regions)
    spacing = header.get("PixelSpacing")
    for group in header.get("SharedFunctionalGroupsSequence") or ():
        for measures in group.get("PixelMeasuresSequence") or ():
            spacing = spacing or measures.get("PixelSpacing")
    if spacing is None or isinstance(spacing, float | str) or len(spacing) != 2:
        return ()
    sizes = [float(size) for size in spacing]
    return (Region(0, 0, columns, rows, *sizes),) if all(map(_plausible, sizes)) else ()


def _plausible(size: float) -> bool:
    return math.isfinite(size) and 0 < size < 1000

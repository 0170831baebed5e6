"""How pydicom's own test images are read: docs/dicom.md, which `pytest --agree` writes anew.

What is read is compared with pydicom's `pixel_array`, brought to [0, 1] here by the formulas of
the standard (PS3.3 C.11.1, C.11.2 and C.7.6.3.1.6), not by the code that is tested.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom

from unet_lib.images import ImageError, read_frames

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"


def expected(data: pydicom.Dataset) -> np.ndarray:
    """Grey values or colours in [0, 1], by hand, of all frames."""
    values, bits = data.pixel_array, data.BitsStored
    kind = data.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        tables = [data[f"{c}PaletteColorLookupTableData"].value for c in ("Red", "Green", "Blue")]
        return np.stack([np.frombuffer(t, "<u2")[values] for t in tables], -1) / 65535
    if not kind.startswith("MONOCHROME"):
        return values / (2**bits - 1)
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if values.dtype.kind == "i" else (0, 2**bits - 1)
    )
    if "WindowCenter" in data:
        first = [np.ravel(data[name].value)[0] for name in ("WindowCenter", "WindowWidth")]
        centre, width = map(float, first)
        values = values * float(data.get("RescaleSlope", 1)) + float(
            data.get("RescaleIntercept", 0)
        )
        shown = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    else:
        shown = (values.astype(float) - low) / (high - low)
    return 1 - shown if kind == "MONOCHROME1" else shown


def outcome(path: Path) -> tuple[str, ...]:
    """One line of the table: name, kind, what came of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = "-"
        try:
            data = pydicom.dcmread(path)
            kind = " ".join(
                str(data.get(name, "-"))
                for name in ("PhotometricInterpretation", "BitsStored", "NumberOfFrames")
            )
            kind += f" {data.file_meta.TransferSyntaxUID.name.replace(' (', ', ').rstrip(')')}"
        except Exception:  # not DICOM, or no picture: the reader has to say so
            data = None
        try:
            frames = list(read_frames(path))
        except ImageError as error:
            reason = str(error).removeprefix(f"{path}: ").partition(" (")[0].partition(". ")[0]
            return path.name, kind, f"refused: {reason.rstrip('.')}"
        pixels = np.stack([frame.pixels for frame in frames])
        worst = np.abs(pixels / np.iinfo(pixels.dtype).max - expected(data)).max()
    size = frames[0].regions and f", {frames[0].regions[0].row_mm:.4g} mm" or ""
    shape = "x".join(map(str, pixels.shape))
    return path.name, kind, f"read {shape}{size}; differs by {max(worst, 0):.5f} at most"


def table() -> str:
    """Markdown table of every file, those without a picture counted in one line."""
    files = [p for p in sorted(FOLDER.rglob("*")) if p.is_file()]
    files = [p for p in files if p.suffix not in (".py", ".pyc", ".txt", ".json", ".dump")]
    rows = [outcome(path) for path in files]
    empty = [row for row in rows if "without a picture" in row[2]]
    rest = [row for row in rows if row not in empty]
    read = sum(row[2].startswith("read") for row in rest)
    lines = [
        "# How pydicom's own test images are read",
        "",
        f"Of the {len(rows)} files that pydicom {pydicom.__version__} ships, {read} are read and "
        f"{len(rows) - read} refused with the reason: {len(empty)} are DICOM without a picture, "
        "the others stand below.",
        "*Differs*: greatest difference, of a range from 0 to 1, from pydicom's `pixel_array` after"
        " the rescaling, window, palette and",
        "inversion that the standard asks for; JPEG differs by the rounding of "
        "two decoders. mm: distance of rows. Written by",
        "`pytest --agree tests/test_dicom.py`; the tests hold it to the code.",
        "",
        "| file | kind, bits, frames, transfer syntax | outcome |",
        "|---|---|---|",
    ]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rest]) + "\n"

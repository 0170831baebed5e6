"""What a case is, and how one is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unet_lib.files import read_rows
from unet_lib.folders import USER_FOLDER
from unet_lib.images import MaskSet, is_dicom, read_frame, read_image, read_masks

LABELS = ("benign", "malignant", "normal", "unknown")
"""Classes of a case; ``unknown`` where the folder does not tell."""

DATA_FOLDER = USER_FOLDER / "data"
"""Where BUSI lies if the user puts it there; phantoms and found near-duplicates go there."""


class DatasetError(ValueError):
    """A folder does not hold what is expected; the message names it and the expected tree."""


@dataclass(frozen=True)
class Case:
    """One image with its masks.

    Attributes
    ----------
    name : str
        Unique in the data set: the image's file name without ending, such as ``benign (1)``.
    label : str
        ``benign``, ``malignant``, ``normal`` or ``unknown``.
    image_path : Path
    mask_paths : tuple of Path
        All masks of the image, sorted; their union is the lesion.
    group : str
        Images that a split keeps together: near-duplicates and pictures of one patient. The
        case's own name when it stands alone; a shared group is never called like a member.
    patient : str
        Empty where the folder does not tell.
    data_set, own_group : str
        Where several data sets are joined: the one it is of, and its group there; else empty.
    colour_coded : bool
        Masks are read by :func:`unet_lib.images.as_colour_mask`.
    mask_set : MaskSet, optional
        All masks of the data set, which judge a doubtful one.
    """

    name: str
    label: str
    image_path: Path
    mask_paths: tuple[Path, ...]
    group: str
    patient: str = ""
    colour_coded: bool = False
    data_set: str = ""
    own_group: str = ""
    mask_set: MaskSet | None = field(default=None, compare=False, repr=False)

    @property
    def has_twins(self) -> bool:
        """Whether the case is in a group with others."""
        return self.group != self.name


def load_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Read the image and the union of the masks at the original size.

    Returns
    -------
    image : ndarray of float32, shape (H, W, 1)
        Values in ``[0, 1]``.
    mask : ndarray of bool, shape (H, W)
        All False for a normal image without mask file.

    Raises
    ------
    ImageError
        A file is unreadable, or a mask has another size than its image.
    DatasetError
        The case needs a mask and has none.
    """
    image = read_image(case.image_path)
    if not case.mask_paths and case.label != "normal":
        raise DatasetError(
            f"{case.image_path}: has no mask file, and only images of class normal may go "
            "without. Add its mask, or use the image for segmentation only."
        )
    mask = read_masks(
        case.mask_paths,
        image.shape[:2],
        image_path=case.image_path,
        colour_coded=case.colour_coded,
        mask_set=case.mask_set,
    )
    return image, mask


def pixel_sizes(cases: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Millimetres from row to row and column to column, by case; all or none: never mixed with px.

    Empty unless every case is a DICOM image whose calibrated regions agree to 1 %.
    """
    sizes: dict[str, tuple[float, float]] = {}
    for case in cases:
        if not is_dicom(case.image_path):
            return {}
        regions = [(r.row_mm, r.column_mm) for r in read_frame(case.image_path).regions]
        if not regions or not np.allclose(regions, regions[0], rtol=0.01, atol=0):
            return {}
        sizes[case.name] = regions[0]
    return sizes


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that orders ``benign (2)`` before ``benign (10)``."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p.lower()) for p in parts] + [(0, 0, text)]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV (comma, semicolon, tab) or the first sheet of an Excel file: one dict a full row.

    Keys are the names in `columns`, compared without case.
    """
    try:
        lines = _excel(path) if path.suffix.lower() == ".xlsx" else read_rows(path)
    except Exception as error:  # a damaged Excel file makes openpyxl raise many unrelated types
        raise DatasetError(f"{path}: cannot be read as a table ({error}).") from error
    header, *lines = lines or [[]]
    by_lower = {name.lower(): name for name in columns}
    names = [by_lower.get(cell.strip().lower(), cell.strip()) for cell in header]
    missing = [name for name in columns if name not in names]
    repeated = [name for name in columns if names.count(name) > 1]
    if repeated:
        raise DatasetError(f"{path}: column {', '.join(repeated)} stands there twice.")
    if missing:
        raise DatasetError(
            f"{path}: column {', '.join(missing)} is missing; it has "
            f"{', '.join(names)[:300] or 'none'}."
        )
    rows = []
    for number, line in enumerate(lines, start=2):
        if len(line) != len(names) and any(line):
            raise DatasetError(
                f"{path}: line {number} has {len(line)} cells, expected {len(names)}."
            )
        if any(line):
            rows.append(dict(zip(names, line, strict=True)))
    return rows


def _excel(path: Path) -> list[list[str]]:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        return [["" if cell is None else str(cell) for cell in row] for row in rows]
    finally:
        book.close()

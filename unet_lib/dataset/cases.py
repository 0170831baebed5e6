"""What a case is, how one is loaded, and where a data set may lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unet_lib.folders import USER_FOLDER
from unet_lib.images import read_frame, read_image, read_masks

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
        Images that a split keeps together: near-duplicates and pictures of one patient; the
        case's own name when it stands alone.
    patient : str
        Empty where the folder does not tell.
    colour_coded : bool
        Masks are read by :func:`unet_lib.images.as_colour_mask`.
    """

    name: str
    label: str
    image_path: Path
    mask_paths: tuple[Path, ...]
    group: str
    patient: str = ""
    colour_coded: bool = False

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
    )
    return image, mask


def pixel_sizes(cases: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Read how large the pixels of DICOM images are, so that distances can be given in mm.

    Returns
    -------
    dict of str to (float, float)
        Millimetres from row to row and from column to column, by the name of the case. Empty
        unless every case is a DICOM image whose calibrated regions agree to 1 %: distances in mm
        and in pixels are never averaged.

    Raises
    ------
    ImageError
        A file cannot be read; the message names it.
    """
    sizes: dict[str, tuple[float, float]] = {}
    for case in cases:
        if case.image_path.suffix.lower() not in (".dcm", ".dicom"):
            return {}
        found = [(r.row_mm, r.column_mm) for r in read_frame(case.image_path).regions]
        if not found or not np.allclose(found, found[0], rtol=0.01, atol=0):
            return {}
        sizes[case.name] = found[0]
    return sizes

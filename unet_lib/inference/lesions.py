"""Connected components of a mask: cleaning and listing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from unet_lib.images import Region, pixel_size
from unet_lib.settings import Settings


@dataclass(frozen=True)
class Cleaning(Settings):
    """Removal of connected components (8 neighbours) of a mask; off by default.

    Parameters
    ----------
    minimum_area : float
        Components that cover less than this fraction of the image are removed.
    minimum_peak : float
        Components in which no pixel reaches this probability are removed.
    """

    minimum_area: float = 0.0
    minimum_peak: float = 0.0

    def __post_init__(self) -> None:
        self.check(minimum_area=(0, 1), minimum_peak=(0, 1))

    def apply(self, mask: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return the mask, bool (H, W), without the components that are too small or too weak."""
        if self == Cleaning() or not mask.any():
            return mask
        part, kept = _part(mask), np.zeros_like(mask)
        labels, areas, peaks = measure_components(mask[part], probabilities[part])
        kept[part] = self.keeps(areas, peaks, mask.size)[labels]
        return kept

    def keeps(self, areas: np.ndarray, peaks: np.ndarray, pixels: int) -> np.ndarray:
        """Tell which components, as `measure_components` gives them, stay: bool (N,)."""
        keep = (areas >= self.minimum_area * pixels) & (peaks >= self.minimum_peak)
        keep[0] = False  # the background
        return keep


def measure_components(
    mask: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels (H, W), 0 the background; and pixels and highest probability by label."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, labels[mask], probabilities[mask])
    return labels, stats[:, cv2.CC_STAT_AREA], peaks


def _part(mask: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns around a whole mask, from even ones: the same order of labels."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return slice(top & ~1, top + height), slice(left & ~1, left + width)


@dataclass(frozen=True)
class Lesion:
    """One connected component of a mask; lengths in pixels of the image."""

    area: int
    left: int
    top: int
    width: int
    height: int
    mean_probability: float
    pixel_mm: tuple[float, float] | None = None  # from row to row, column to column; None: unknown

    @property
    def area_mm2(self) -> float | None:
        """Area in square millimetres, or None."""
        return self.pixel_mm and self.area * self.pixel_mm[0] * self.pixel_mm[1]

    @property
    def width_mm(self) -> float | None:
        """Width of the bounding box, or None."""
        return self.pixel_mm and self.width * self.pixel_mm[1]

    @property
    def height_mm(self) -> float | None:
        """Height of the bounding box, or None."""
        return self.pixel_mm and self.height * self.pixel_mm[0]


def find_lesions(
    mask: np.ndarray, probabilities: np.ndarray, regions: Sequence[Region] = ()
) -> list[Lesion]:
    """List the components (8 neighbours) of a mask, the largest first; in mm within a region."""
    if not mask.any():
        return []
    part = rows, columns = _part(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask[part].astype(np.uint8))
    sums = np.bincount(labels.ravel(), probabilities[part].ravel(), minlength=count)
    stats += [columns.start, rows.start, 0, 0, 0]
    lesions = []
    for total, (*box, area) in list(zip(sums, stats.tolist(), strict=True))[1:]:
        lesions.append(Lesion(area, *box, float(total / area), pixel_size(regions, *box)))
    return sorted(lesions, key=lambda lesion: -lesion.area)

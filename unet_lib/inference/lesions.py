"""Connected components of a mask: cleaning and listing them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from unet_lib.settings import Settings

__all__ = ["Cleaning", "Lesion", "find_lesions"]


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
        for name in ("minimum_area", "minimum_peak"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"Cleaning: {name} must be between 0 and 1; received {getattr(self, name)!r}."
                )

    def apply(self, mask: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return the mask, bool (H, W), without the components that are too small or too weak."""
        if (self.minimum_area == 0 and self.minimum_peak == 0) or not mask.any():
            return mask
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        keep = stats[:, cv2.CC_STAT_AREA] >= self.minimum_area * mask.size
        peaks = np.zeros(count, np.float32)
        np.maximum.at(peaks, labels[mask], probabilities[mask])
        keep &= peaks >= self.minimum_peak
        keep[0] = False  # the background
        return keep[labels]


@dataclass(frozen=True)
class Lesion:
    """One connected component of a mask; lengths in pixels of the image.

    Attributes
    ----------
    area : int
        Pixels.
    left, top, width, height : int
        Its bounding box.
    mean_probability : float
        Mean over its pixels.
    """

    area: int
    left: int
    top: int
    width: int
    height: int
    mean_probability: float


def find_lesions(mask: np.ndarray, probabilities: np.ndarray) -> list[Lesion]:
    """List the connected components (8 neighbours) of a mask, the largest first.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
    probabilities : ndarray of float, shape (H, W)
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    sums = np.bincount(labels.ravel(), probabilities.ravel(), minlength=count)
    found = [
        Lesion(int(area), int(left), int(top), int(width), int(height), float(sums[i] / area))
        for i, (left, top, width, height, area) in enumerate(stats)
        if i > 0
    ]
    return sorted(found, key=lambda lesion: -lesion.area)

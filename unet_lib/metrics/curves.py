"""Curves over all thresholds, from a histogram of bounded size instead of all probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unet_lib.metrics.calibration import Calibration
from unet_lib.metrics.counts import NAN, check_mask, check_probabilities
from unet_lib.metrics.surfaces import contour_band

# Bins of equal width are too coarse where a network puts most pixels, close to 0 and to 1: of a
# sigmoid at -12 the whole background falls into the first of 65,536 equal bins and its ranking is
# lost. So a bin is the exponent and the leading 11 bits of the float32 distance to the nearer end,
# min(p, 1 - p): 2,048 bins for each halving of the distance, whatever the distance.
DROPPED_BITS = 12
HALF = int(np.float32(0.5).view(np.uint32) >> DROPPED_BITS)
BIN_COUNT = 2 * HALF + 1
ARRAYS = ("lesion", "background", "calibration", "band")  # of ProbabilityHistogram.to_arrays


def _bin_edges() -> np.ndarray:
    distance = (np.arange(HALF + 1, dtype=np.uint32) << DROPPED_BITS).view(np.float32)
    # Above 0.5 a float32 is a multiple of 2**-24; the lowest in a bin is the one farthest from 1
    # that is still nearer than the next bin. Bins too narrow to hold one share its edge.
    farthest = np.ceil(distance[1:].astype(float) * 2**24) - 1
    upper = (1 - farthest / 2**24)[::-1]
    return np.concatenate([distance[:-1], [0.5], upper]).astype(np.float32)


BIN_EDGES: np.ndarray = _bin_edges()
"""float32 (516,097,): the smallest probability of every bin, from 0 to 1, never decreasing."""
BIN_EDGES.setflags(write=False)


def bin_index(probabilities: np.ndarray) -> np.ndarray:
    """Return the bin of every probability.

    Parameters
    ----------
    probabilities : np.ndarray
        float32, any shape, in [0, 1].

    Returns
    -------
    np.ndarray
        int64, same shape; a higher probability never has a lower bin.
    """
    p = np.abs(probabilities)  # -0.0 would have the sign bit set
    distance = np.minimum(p, np.float32(1) - p)
    index = (distance.view(np.uint32) >> DROPPED_BITS).astype(np.int64)
    return np.subtract(2 * HALF, index, out=index, where=p >= np.float32(0.5))


@dataclass(frozen=True)
class Curve:
    """A curve over thresholds, from the highest threshold to the lowest.

    Parameters
    ----------
    x, y : np.ndarray
        float64 (k,): false-positive and true-positive rate of a ROC curve, or recall and precision.
    thresholds : np.ndarray
        float64 (k,): at point i the pixels with ``probability >= thresholds[i]`` are predicted.
    """

    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray


class ProbabilityHistogram:
    """Lesion and background pixels by predicted probability, pooled over images.

    It holds 8 MB however many pixels are added. Every curve point is the exact one for its
    threshold; only the order of pixels inside a bin (`BIN_EDGES`) is not known: they count as ties,
    which moves the area under the ROC by less than 1e-6 and the average precision by less than
    5e-6 from those of all pixels sorted. Brier score and ECE (`Calibration`) are exact.

    Parameters
    ----------
    lesion, background : np.ndarray, optional
        uint64 (516,097,): pixels in each bin. Zeros by default.
    calibration : Calibration, optional
        Of all pixels.
    band : Calibration, optional
        Of the pixels in the band around the true contours (`contour_band`).

    Raises
    ------
    ValueError
        If an array has another length.
    """

    def __init__(
        self,
        lesion: np.ndarray | None = None,
        background: np.ndarray | None = None,
        calibration: Calibration | None = None,
        band: Calibration | None = None,
    ) -> None:
        self.lesion = _counts(lesion)
        self.background = _counts(background)
        self.calibration = calibration or Calibration()
        self.band = band or Calibration()

    def add(self, truth: np.ndarray, probabilities: np.ndarray) -> tuple[Calibration, Calibration]:
        """Add the pixels of one image.

        Parameters
        ----------
        truth : np.ndarray
            bool (H, W).
        probabilities : np.ndarray
            float (H, W) in [0, 1]; used as float32.

        Returns
        -------
        calibration, band : Calibration
            Of this image alone, all its pixels and those in the band around its true contour.

        Raises
        ------
        ValueError
            For another shape or dtype, a nan, or a value outside [0, 1]; nothing is added then.
        """
        truth = check_mask(truth, "the true mask")
        probabilities = check_probabilities(truth, probabilities)
        index = bin_index(probabilities)
        self.lesion += _bincount(index[truth])
        self.background += _bincount(index[~truth])
        near = contour_band(truth)
        calibration = Calibration.of(truth, probabilities)
        band = Calibration.of(truth[near], probabilities[near])
        self.calibration += calibration
        self.band += band
        return calibration, band

    def __add__(self, other: ProbabilityHistogram) -> ProbabilityHistogram:
        """Merge two histograms into a new one."""
        if not isinstance(other, ProbabilityHistogram):
            return NotImplemented
        return ProbabilityHistogram(
            self.lesion + other.lesion,
            self.background + other.background,
            self.calibration + other.calibration,
            self.band + other.band,
        )

    @property
    def lesion_pixels(self) -> int:
        """Number of lesion pixels."""
        return int(self.lesion.sum())

    @property
    def n(self) -> int:
        """Number of pixels."""
        return self.lesion_pixels + int(self.background.sum())

    def _cumulative(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return true positives, false positives and thresholds, highest threshold first."""
        used = np.flatnonzero(self.lesion + self.background)[::-1]
        tp, fp = (counts[used].cumsum().astype(float) for counts in (self.lesion, self.background))
        return tp, fp, BIN_EDGES[used].astype(float)

    def roc(self) -> Curve:
        """Return the ROC curve: x = false-positive rate, y = true-positive rate.

        It begins at (0, 0) with the threshold infinity. Rates are nan when a class has no pixel.
        """
        tp, fp, thresholds = self._cumulative()
        x, y = (np.concatenate([[0.0], rate]) for rate in (_share(fp), _share(tp)))
        return Curve(x, y, np.concatenate([[np.inf], thresholds]))

    def precision_recall(self) -> Curve:
        """Return the precision-recall curve: x = recall, y = precision.

        No point is invented at recall 0. Recall is nan when there is no lesion pixel.
        """
        tp, fp, thresholds = self._cumulative()
        return Curve(_share(tp), tp / np.maximum(tp + fp, 1), thresholds)

    @property
    def auc(self) -> float:
        """Area under the pooled ROC curve (trapezoids); nan when a class has no pixel."""
        curve = self.roc()
        area = float(np.sum(np.diff(curve.x) * (curve.y[1:] + curve.y[:-1]) / 2))
        return area if self.n else NAN

    @property
    def average_precision(self) -> float:
        """Sum of precision times the step in recall (no interpolation); nan without a lesion."""
        curve = self.precision_recall()
        area = float(np.sum(np.diff(curve.x, prepend=0.0) * curve.y))
        return area if self.n else NAN

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what `from_arrays` needs, for `numpy.savez`."""
        counts = {"lesion": self.lesion.copy(), "background": self.background.copy()}
        return {
            **counts,
            "calibration": self.calibration.to_array(),
            "band": self.band.to_array(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ProbabilityHistogram:
        """Build a histogram from the arrays of `to_arrays`."""
        sums = (Calibration.from_array(arrays[name]) for name in ("calibration", "band"))
        return cls(arrays["lesion"], arrays["background"], *sums)


def _counts(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        return np.zeros(BIN_COUNT, np.uint64)
    counts = np.array(values, dtype=np.uint64)
    if counts.shape != (BIN_COUNT,):
        raise ValueError(f"a histogram has {BIN_COUNT} bins, got an array of shape {counts.shape}")
    return counts


def _bincount(index: np.ndarray) -> np.ndarray:
    return np.bincount(index, minlength=BIN_COUNT).view(np.uint64)


def _share(cumulative: np.ndarray) -> np.ndarray:
    """Divide by the last value; nan where that is 0."""
    total = cumulative[-1] if len(cumulative) else 0.0
    return cumulative / total if total else np.full(len(cumulative), NAN)

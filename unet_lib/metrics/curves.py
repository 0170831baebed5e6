"""Curves over all thresholds and calibration, from sums of bounded size instead of all pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from unet_lib.metrics.scores import check_mask, check_probabilities, contour_band, ratio

# Bins of equal width are too coarse where a network puts most pixels, close to 0 and to 1: of a
# sigmoid at -12 the whole background falls into the first of 65,536 equal bins and its ranking is
# lost. So a bin is the exponent and the leading 11 bits of the float32 distance to the nearer end,
# min(p, 1 - p): 2,048 bins for each halving of the distance, whatever the distance.
DROPPED_BITS = 12
HALF = int(np.float32(0.5).view(np.uint32) >> DROPPED_BITS)
BIN_COUNT = 2 * HALF + 1
BINS = 15  # of calibration: bin i holds i / 15 <= p < (i + 1) / 15
ARRAYS = ("lesion", "background", "calibration", "band")  # of a ProbabilityHistogram


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
    """Return the int64 bin of every float32 probability; a higher one never has a lower bin."""
    p = np.abs(probabilities)  # -0.0 would have the sign bit set
    distance = np.minimum(p, np.float32(1) - p)
    index = (distance.view(np.uint32) >> DROPPED_BITS).astype(np.int64)
    return np.subtract(2 * HALF, index, out=index, where=p >= np.float32(0.5))


class Curve(NamedTuple):
    """A curve from the highest threshold to the lowest, arrays of float64 (k,)."""

    x: np.ndarray  # false-positive rate of a ROC curve, or recall
    y: np.ndarray  # true-positive rate, or precision
    thresholds: np.ndarray  # at point i pixels with probability >= thresholds[i] are predicted


class Calibration:
    """How far probabilities are from what they say, in 15 bins of equal width.

    `sums` is float64 (4, 15), by bin: pixels, lesion pixels, sum of the probabilities and of
    (probability - truth) ** 2.
    """

    def __init__(self, sums: np.ndarray | None = None) -> None:
        self.sums = np.zeros((4, BINS)) if sums is None else np.asarray(sums, dtype=float)
        if self.sums.shape != (4, BINS):
            raise ValueError(f"a calibration has 4 sums of {BINS} bins, got {self.sums.shape}")

    @classmethod
    def of(cls, truth: np.ndarray, probabilities: np.ndarray) -> Calibration:
        """Sum up the pixels of one image: bool truth, float probabilities in [0, 1]."""
        if np.asarray(truth).dtype != bool:
            raise ValueError(f"the true mask must be bool, got dtype {np.asarray(truth).dtype}")
        p = check_probabilities(truth, probabilities).ravel().astype(float)
        truth = truth.ravel()
        index = np.minimum((p * BINS).astype(np.int64), BINS - 1)
        pixels, lesion = (np.bincount(part, minlength=BINS) for part in (index, index[truth]))
        return cls([pixels, lesion, *(np.bincount(index, w, BINS) for w in (p, (p - truth) ** 2))])

    @property
    def n(self) -> int:
        """Number of pixels."""
        return int(self.sums[0].sum())

    @property
    def brier(self) -> float:
        """Mean squared difference between probability and truth; nan without pixels."""
        return ratio(float(self.sums[3].sum()), self.n)

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, arXiv:1706.04599); nan without pixels."""
        return ratio(float(np.abs(self.sums[2] - self.sums[1]).sum()), self.n)

    def reliability(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean probability and lesion share by bin, float64 (15,), nan in empty bins."""
        pixels = np.where(self.sums[0] > 0, self.sums[0], math.nan)
        return self.sums[2] / pixels, self.sums[1] / pixels


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
    calibration, band : np.ndarray, optional
        float64 (4, 15): sums of `Calibration` of all pixels, and of those in the band around the
        true contours (`contour_band`). Zeros by default.

    Raises
    ------
    ValueError
        If an array has another length.
    """

    def __init__(
        self,
        lesion: np.ndarray | None = None,
        background: np.ndarray | None = None,
        calibration: np.ndarray | None = None,
        band: np.ndarray | None = None,
    ) -> None:
        self.lesion, self.background = _counts(lesion), _counts(background)
        self.calibration, self.band = Calibration(calibration), Calibration(band)

    @classmethod
    def of(cls, truth: np.ndarray, probabilities: np.ndarray) -> ProbabilityHistogram:
        """Count the pixels of one image: bool and float (H, W), probabilities used as float32."""
        truth = check_mask(truth, "the true mask")
        probabilities = check_probabilities(truth, probabilities)
        index, near = bin_index(probabilities), contour_band(truth)
        counts = (np.bincount(index[part], minlength=BIN_COUNT) for part in (truth, ~truth))
        pairs = (truth, probabilities), (truth[near], probabilities[near])
        counts = (c.view(np.uint64) for c in counts)
        return cls(*counts, *(Calibration.of(*pair).sums for pair in pairs))

    def __iadd__(self, other: ProbabilityHistogram) -> ProbabilityHistogram:
        """Add the pixels of another one to this."""
        self.lesion += other.lesion
        self.background += other.background
        self.calibration.sums += other.calibration.sums
        self.band.sums += other.band.sums
        return self

    def __add__(self, other: ProbabilityHistogram) -> ProbabilityHistogram:
        """Merge two histograms into a new one."""
        merged = ProbabilityHistogram(**self.to_arrays())
        merged += other
        return merged

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
        """Return the ROC curve from (0, 0) on; rates are nan when a class has no pixel."""
        tp, fp, thresholds = self._cumulative()
        x, y = (np.concatenate([[0.0], rate]) for rate in (_share(fp), _share(tp)))
        return Curve(x, y, np.concatenate([[np.inf], thresholds]))

    def precision_recall(self) -> Curve:
        """Return the precision-recall curve; no point is invented at recall 0."""
        tp, fp, thresholds = self._cumulative()
        return Curve(_share(tp), tp / np.maximum(tp + fp, 1), thresholds)

    @property
    def auc(self) -> float:
        """Area under the pooled ROC curve (trapezoids); nan when a class has no pixel."""
        curve = self.roc()
        area = float(np.sum(np.diff(curve.x) * (curve.y[1:] + curve.y[:-1]) / 2))
        return area if self.n else math.nan

    @property
    def average_precision(self) -> float:
        """Sum of precision times the step in recall (no interpolation); nan without a lesion."""
        curve = self.precision_recall()
        area = float(np.sum(np.diff(curve.x, prepend=0.0) * curve.y))
        return area if self.n else math.nan

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return copies of the four arrays that make a histogram, for `numpy.savez`."""
        sums = self.lesion, self.background, self.calibration.sums, self.band.sums
        return {name: values.copy() for name, values in zip(ARRAYS, sums, strict=True)}


def _counts(values: np.ndarray | None) -> np.ndarray:
    counts = np.zeros(BIN_COUNT, np.uint64) if values is None else np.asarray(values, np.uint64)
    if counts.shape != (BIN_COUNT,):
        raise ValueError(f"a histogram has {BIN_COUNT} bins, got an array of shape {counts.shape}")
    return counts


def _share(cumulative: np.ndarray) -> np.ndarray:
    """Divide by the last value; nan where that is 0."""
    total = cumulative[-1] if len(cumulative) else 0.0
    return cumulative / total if total else np.full(len(cumulative), math.nan)

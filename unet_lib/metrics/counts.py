"""The four cells of a confusion matrix of pixels, and the scores that follow from them."""

from __future__ import annotations

import operator
from dataclasses import astuple, dataclass

import numpy as np

NAN = float("nan")


def ratio(part: float, whole: float) -> float:
    """Return part / whole, and nan for 0/0 (an undefined score is never a silent 0 or 1)."""
    return part / whole if whole else NAN


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of one or many images, counted by truth and prediction.

    Every property is *pooled* over the pixels held here and nan where it is 0/0.

    Parameters
    ----------
    tp : int
        Lesion pixels that were predicted.
    fp : int
        Background pixels that were predicted.
    fn : int
        Lesion pixels that were not predicted.
    tn : int
        Background pixels that were not predicted.

    Raises
    ------
    TypeError
        If a count is not an integer.
    ValueError
        If a count is negative.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __post_init__(self) -> None:
        """Turn the counts into Python ints, which cannot overflow."""
        for name in ("tp", "fp", "fn", "tn"):
            count = operator.index(getattr(self, name))
            if count < 0:
                raise ValueError(f"{name} must be 0 or more pixels, got {count}")
            object.__setattr__(self, name, count)

    def __add__(self, other: PixelCounts) -> PixelCounts:
        """Pool the pixels of both."""
        if not isinstance(other, PixelCounts):
            return NotImplemented
        pairs = zip(astuple(self), astuple(other), strict=True)
        return PixelCounts(*(mine + theirs for mine, theirs in pairs))

    @property
    def n(self) -> int:
        """Number of pixels."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def prevalence(self) -> float:
        """Share of lesion pixels in the truth, in [0, 1]."""
        return ratio(self.tp + self.fn, self.n)

    @property
    def precision(self) -> float:
        """Share of the predicted pixels that are lesion."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the lesion pixels that were predicted (true-positive rate)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def false_positive_rate(self) -> float:
        """Share of the background pixels that were predicted."""
        return ratio(self.fp, self.fp + self.tn)

    @property
    def pixel_specificity(self) -> float:
        """Share of the background *pixels* left alone (of images: see `CaseScore.left_empty`)."""
        return ratio(self.tn, self.fp + self.tn)

    @property
    def accuracy(self) -> float:
        """Share of all pixels that are right; an empty prediction scores about .9 on BUSI."""
        return ratio(self.tp + self.tn, self.n)

    @property
    def dice(self) -> float:
        """Dice coefficient 2 TP / (2 TP + FP + FN), the same number as F1."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float:
        """F1 of the lesion pixels, the same number as Dice."""
        return self.dice

    @property
    def iou(self) -> float:
        """Intersection over union of the lesion (Jaccard index)."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def background_iou(self) -> float:
        """Intersection over union of the background."""
        return ratio(self.tn, self.tn + self.fp + self.fn)

    @property
    def mean_iou(self) -> float:
        """Mean of lesion and background IoU: the "Mean IoU" of the project's first README."""
        return (self.iou + self.background_iou) / 2


def check_mask(mask: np.ndarray, what: str) -> np.ndarray:
    """Return `mask` unchanged if it is a bool (H, W) array.

    Raises
    ------
    ValueError
        If it is not; the message says which mask, what came, and what to do.
    """
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise ValueError(
            f"{what} must be a bool mask, got dtype {mask.dtype}; "
            "threshold it first, for example `probabilities >= 0.5` or `mask > 0`"
        )
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"{what} must have the shape (H, W) with pixels, got {mask.shape}")
    return mask


def check_same_shape(truth: np.ndarray, other: np.ndarray, what: str) -> None:
    """Raise a ValueError that names both shapes when they differ."""
    if truth.shape != other.shape:
        raise ValueError(
            f"the true mask is {truth.shape} (height, width) but the {what} is {other.shape}; "
            "bring the prediction back to the size of the image, never shrink the truth"
        )


def check_probabilities(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return `probabilities` as float32, in the shape of `truth`, after all checks.

    Raises
    ------
    ValueError
        For another shape than `truth`, integers, a nan, or a value outside [0, 1].
    """
    probabilities = np.asarray(probabilities)
    if probabilities.dtype.kind != "f":  # an 8-bit map of 0 and 1 would pass for certainty
        raise ValueError(
            f"probabilities must be floats in [0, 1], got dtype {probabilities.dtype}; divide an "
            "8-bit map by 255"
        )
    probabilities = probabilities.astype(np.float32, copy=False)
    check_same_shape(truth, probabilities, "probability map")
    if not probabilities.size:
        return probabilities
    low, high = float(probabilities.min()), float(probabilities.max())
    if np.isnan(low):  # min() passes a nan on
        count = int(np.isnan(probabilities).sum())
        raise ValueError(f"the probability map holds {count} nan; did the training diverge?")
    if low < 0 or high > 1:
        raise ValueError(
            f"probabilities must lie in [0, 1], got {low:g} to {high:g}; "
            "apply the sigmoid, or divide an 8-bit map by 255"
        )
    return probabilities


def count_pixels(truth: np.ndarray, prediction: np.ndarray) -> PixelCounts:
    """Count the pixels of one mask pair.

    Parameters
    ----------
    truth, prediction : np.ndarray
        bool (H, W), True on the lesion.

    Returns
    -------
    PixelCounts

    Raises
    ------
    ValueError
        If a mask is not bool, not two-dimensional or empty of pixels, or the shapes differ.
    """
    truth = check_mask(truth, "the true mask")
    prediction = check_mask(prediction, "the predicted mask")
    check_same_shape(truth, prediction, "predicted mask")
    lesion, predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    tp = int(np.count_nonzero(truth & prediction))
    return PixelCounts(tp, predicted - tp, lesion - tp, truth.size - lesion - predicted + tp)

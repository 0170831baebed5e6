"""The table of all scores; pixel counts and what follows from them; the score card of one image."""

from __future__ import annotations

import math
import operator
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

TEXTS = ("name", "label", "group")
COUNTS = ("height", "width", "tp", "fp", "fn", "tn")


class Score(NamedTuple):
    """How a score is named, grouped, written and read."""

    title: str
    kind: str
    digits: int = 3  # decimals of a mean
    unit: str = "share"  # share (0 to 1), ratio, count, length (mm; px where mm are not known), mm
    better: str = "higher"  # higher, lower, or neither: ""


SCORES: dict[str, Score] = {
    # of one image, in the order of cases.csv: those that follow from the counts ...
    "dice": Score("Dice", "overlap"),
    "iou": Score("lesion IoU", "overlap"),
    "precision": Score("precision", "overlap"),
    "recall": Score("recall", "overlap"),
    "left_empty": Score("left empty", "normal"),
    "false_positive_area": Score("false-positive area", "normal", better="lower"),
    "area_error": Score("area error", "area", unit="ratio", better=""),
    "absolute_area_error": Score("absolute area error", "area", unit="ratio", better="lower"),
    # ... and those that are measured in the pictures and kept exactly
    "components": Score("components", "component", unit="count", better=""),
    "components_found": Score("components found", "component", unit="count"),
    "predicted_components": Score("predicted components", "component", unit="count", better=""),
    "false_components": Score("false components", "component", unit="count", better="lower"),
    "hd95": Score("HD95", "contour", 1, "length", "lower"),
    "mean_surface_distance": Score("mean surface distance", "contour", 1, "length", "lower"),
    "surface_dice": Score("surface Dice", "contour"),
    "brier": Score("Brier", "calibration", better="lower"),
    "ece": Score("ECE", "calibration", better="lower"),
    "band_brier": Score("Brier in the band", "calibration", better="lower"),
    "band_ece": Score("ECE in the band", "calibration", better="lower"),
    "pixel_height_mm": Score("pixel height mm", "pixel", unit="mm", better=""),
    "pixel_width_mm": Score("pixel width mm", "pixel", unit="mm", better=""),
    # of one image, yes or no
    "has_lesion": Score("has a lesion", "flag", better=""),
    "predicted_empty": Score("predicted empty", "flag", better=""),
    "missed": Score("missed", "flag", better="lower"),
    # of pooled pixels alone
    "f1": Score("F1", "pooled"),
    "mean_iou": Score("Mean IoU", "pooled"),
    "background_iou": Score("background IoU", "pooled"),
    "accuracy": Score("pixel accuracy", "pooled"),
    "prevalence": Score("lesion share", "pooled", better=""),
    "false_positive_rate": Score("false-positive rate", "pooled", better="lower"),
    "auc": Score("ROC AUC", "pooled", 4),
    "average_precision": Score("average precision", "pooled"),
}


def of_kind(*kinds: str) -> tuple[str, ...]:
    """Return the names of the scores of some kinds, in the order of `SCORES`."""
    return tuple(name for name, score in SCORES.items() if score.kind in kinds)


def number(value: float, digits: int = 3) -> str:
    """Write a number with a fixed number of decimals, and "-" where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


DERIVED = of_kind("overlap", "normal", "area")
MEASURED = of_kind("component", "contour", "calibration", "pixel")
CONFUSION = ("precision", "recall", "f1", "iou", "mean_iou", "accuracy")
"""The scores of a confusion matrix that tables and figures show."""


def ratio(part: float, whole: float) -> float:
    """Return part / whole, and nan for 0/0 (an undefined score is never a silent 0 or 1)."""
    return part / whole if whole else math.nan


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
        return PixelCounts(*map(operator.add, astuple(self), astuple(other)))

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
    """Return `mask` if it is a bool (H, W) array with pixels; else raise a ValueError."""
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
    """Return float32 probabilities of the shape of `truth`; else raise a ValueError."""
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
    """Count the pixels of one mask pair, bool (H, W), True on the lesion."""
    truth = check_mask(truth, "the true mask")
    prediction = check_mask(prediction, "the predicted mask")
    check_same_shape(truth, prediction, "predicted mask")
    lesion, predicted = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    tp = int(np.count_nonzero(truth & prediction))
    return PixelCounts(tp, predicted - tp, lesion - tp, truth.size - lesion - predicted + tp)

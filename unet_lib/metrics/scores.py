"""The table of all scores; counts of pixels; contours and components of one pair of masks."""

from __future__ import annotations

import math
import operator
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

TEXTS = ("name", "label", "group")
COUNTS = ("height", "width", "tp", "fp", "fn", "tn")
TOLERANCE_PX, TOLERANCE_MM = 5.0, 0.5
"""Distance up to which surface Dice counts a contour pixel as right; mm where spacing is known."""
BAND_PX = 20
"""Pixels up to this far from the true contour are in the band, on both sides of it."""
SIZES = (0.0, 0.02, 0.05, 0.1, 1.01)
"""Limits of the sizes of lesions that are told apart, as a share of the image."""


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
    "image_score": Score("image score", "image", better=""),
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
MEASURED = of_kind("component", "contour", "image", "calibration", "pixel")
CONFUSION = ("precision", "recall", "f1", "iou", "mean_iou", "accuracy")
"""The scores of a confusion matrix that tables and figures show."""


def ratio(part: float, whole: float) -> float:
    """Return part / whole, and nan for 0/0 (an undefined score is never a silent 0 or 1)."""
    return part / whole if whole else math.nan


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of one or many images, counted by truth and prediction.

    Every score is *pooled* over the pixels held here and nan where it is 0/0.

    Parameters
    ----------
    tp, fp, fn, tn : int
        Lesion pixels that were predicted, background pixels that were; lesion pixels that were
        not predicted, background pixels that were not.

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
        return PixelCounts(*map(operator.add, astuple(self), astuple(other)))

    n = property(lambda c: c.tp + c.fp + c.fn + c.tn, doc="Number of pixels.")
    prevalence = property(lambda c: ratio(c.tp + c.fn, c.n), doc="Lesion pixels among all.")
    precision = property(lambda c: ratio(c.tp, c.tp + c.fp), doc="Right ones among the predicted.")
    recall = property(lambda c: ratio(c.tp, c.tp + c.fn), doc="Predicted ones among the lesion's.")
    false_positive_rate = property(
        lambda c: ratio(c.fp, c.fp + c.tn), doc="Predicted ones among the background's."
    )
    accuracy = property(lambda c: ratio(c.tp + c.tn, c.n), doc="Right ones among all pixels.")
    dice = property(lambda c: ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn), doc="Dice coefficient.")
    f1 = property(lambda c: c.dice, doc="F1 of the lesion pixels, the same number as Dice.")
    iou = property(lambda c: ratio(c.tp, c.tp + c.fp + c.fn), doc="IoU of the lesion (Jaccard).")
    background_iou = property(lambda c: ratio(c.tn, c.tn + c.fp + c.fn), doc="IoU of the rest.")
    mean_iou = property(lambda c: (c.iou + c.background_iou) / 2, doc="Mean of both IoUs.")


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
    low, high = float(probabilities.min(initial=0)), float(probabilities.max(initial=1))
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
    lesion, predicted, tp = map(int, map(np.count_nonzero, (truth, prediction, truth & prediction)))
    return PixelCounts(tp, predicted - tp, lesion - tp, truth.size - lesion - predicted + tp)


def contour_scores(
    truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float] | None = None
) -> dict[str, float]:
    """Return HD95, mean surface distance and surface Dice of two bool (H, W) masks.

    With D the distances of all contour pixels of either mask to the other mask's contour:
    HD95 is the 95th percentile of D and the mean surface distance its mean (``hd95`` and ``assd``
    of MedPy 0.5), surface Dice the share of D up to the tolerance (Nikolov et al. 2018,
    arXiv:1809.04430, counted in contour pixels). With `spacing`, height and width of a pixel in
    mm, distances are in mm, else in pixels. Empty masks: see `unet_lib.metrics`.
    """
    steps = np.ones(2) if spacing is None else np.asarray(spacing, dtype=float)
    if steps.shape != (2,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(
            f"spacing must be the height and width of a pixel in mm, both above 0, got {spacing!r}"
        )
    if not truth.any():
        return dict.fromkeys(of_kind("contour"), math.nan)
    if not prediction.any():
        diagonal = float(np.hypot(*(truth.shape * steps)))
        return {"hd95": diagonal, "mean_surface_distance": diagonal, "surface_dice": 0.0}
    box = bounding_box(truth | prediction)
    ours, theirs = (np.argwhere(contour(mask[box])) for mask in (prediction, truth))
    distances = np.concatenate([_distances(ours, theirs, steps), _distances(theirs, ours, steps)])
    tolerance = TOLERANCE_PX if spacing is None else TOLERANCE_MM
    return {
        "hd95": float(np.percentile(distances, 95)),
        "mean_surface_distance": float(distances.mean()),
        "surface_dice": float(np.mean(distances <= tolerance)),
    }


def component_counts(truth: np.ndarray, prediction: np.ndarray) -> dict[str, int]:
    """Count connected components (8 neighbours) of bool (H, W) masks, found and false ones.

    Found: at least one pixel of a true component was predicted. False: a predicted component that
    holds no true pixel.
    """
    components, touched = _count_touched(truth, prediction)
    predicted, right = _count_touched(prediction, truth)
    counts = {"components": components, "components_found": touched}
    return counts | {"predicted_components": predicted, "false_components": predicted - right}


def contour_band(truth: np.ndarray) -> np.ndarray:
    """Return the pixels at most `BAND_PX` from the true contour, bool (H, W)."""
    from scipy.ndimage import distance_transform_edt  # importing this package is cheap

    band = np.zeros(truth.shape, bool)
    if truth.any():
        box = bounding_box(truth, BAND_PX)
        band[box] = distance_transform_edt(~contour(truth[box])) <= BAND_PX
    return band


def contour(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask with a 4-neighbour that is not in it; bool (H, W)."""
    framed = np.pad(mask, 1)
    above, below, left, right = framed[:-2], framed[2:], framed[1:-1, :-2], framed[1:-1, 2:]
    return mask & ~(above[:, 1:-1] & below[:, 1:-1] & left & right)


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """Return the rows and columns that hold a mask that is not empty, and `margin` more."""
    used = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, int(u[0]) - margin), int(u[-1]) + 1 + margin) for u in used)
    return rows, columns


def _distances(points: np.ndarray, others: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the distance of each point to the nearest of the others; both int (N, 2)."""
    from scipy.spatial import KDTree

    # Contours are short: searching them takes a quarter of the time of a distance map.
    tree = KDTree(others * steps, balanced_tree=False, compact_nodes=False)
    nearest = others[tree.query(points * steps)[1]]
    # From whole pixels: a distance of exactly the tolerance must not be rounded away from it.
    return np.sqrt((((points - nearest) * steps) ** 2).sum(axis=1))


def _count_touched(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Count the components of `mask`, and those that share a pixel with `other`."""
    from scipy.ndimage import label

    if not mask.any():
        return 0, 0
    box = bounding_box(mask)
    mask = mask[box]
    labels, count = label(mask, np.ones((3, 3)))
    return count, np.count_nonzero(np.bincount(labels[mask & other[box]]))

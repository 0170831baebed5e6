"""The figures of the project's first README, and what they imply about each other.

They are pooled over the pixels of one test split that is not known any more.
"""

from __future__ import annotations

from itertools import product

FIRST_README: dict[str, float] = {
    "mean_iou": 0.833,
    "precision": 0.871,
    "recall": 0.767,
    "f1": 0.815,
    "auc": 0.999,
}
"""Pooled scores by name; ``mean_iou`` is the mean of lesion and background IoU."""

ROUNDING = 0.0005  # three decimals


def auc_bound(false_positive_rate: float, true_positive_rate: float) -> float:
    """Return the largest area that a ROC curve through one given point can have.

    A ROC curve never falls, so left of the point it stays at or below its true-positive rate: the
    rectangle of width FPR and height 1 - TPR above it is lost, and no more need be.

    Parameters
    ----------
    false_positive_rate, true_positive_rate : float
        The point, in [0, 1].

    Returns
    -------
    float
        ``1 - FPR * (1 - TPR)``.

    Raises
    ------
    ValueError
        If a rate is outside [0, 1].
    """
    for rate in (false_positive_rate, true_positive_rate):
        if not 0 <= rate <= 1:
            raise ValueError(f"a rate must lie in [0, 1], got {rate}")
    return 1 - false_positive_rate * (1 - true_positive_rate)


def implied_prevalence(precision: float, recall: float, mean_iou: float) -> float:
    """Return the share of lesion pixels that three pooled scores imply.

    With prevalence p: TP = R p, FP = TP (1 - P) / P, FN = (1 - R) p, TN = 1 - p - FP. The lesion
    IoU follows from P and R alone, the background IoU from the mean; it is linear in p.

    Parameters
    ----------
    precision, recall, mean_iou : float
        Pooled over the same pixels, in (0, 1]; `mean_iou` of lesion and background.

    Returns
    -------
    float
        Lesion pixels as a share of all pixels.

    Raises
    ------
    ValueError
        If no prevalence in (0, 1) gives these scores.
    """
    lesion_iou = 1 / (1 / precision + 1 / recall - 1)
    background_iou = 2 * mean_iou - lesion_iou
    false_positives = recall * (1 - precision) / precision  # for each lesion pixel
    # (1 - p - f p) / (1 - R p) = background IoU
    prevalence = (1 - background_iou) / (1 + false_positives - background_iou * recall)
    if not (0 < prevalence < 1 and background_iou > 0):
        raise ValueError(
            f"precision {precision}, recall {recall} and Mean IoU {mean_iou} contradict each other"
        )
    return prevalence


def first_readme_auc_bound() -> float:
    """Return the largest pixel AUC that the first README's other figures allow.

    The largest over all values that round to the published precision, recall and Mean IoU.

    Returns
    -------
    float
        About .9984, below the published .999 (which stands for .9985 at least).
    """
    names = ("precision", "recall", "mean_iou")
    ranges = [(FIRST_README[name] - ROUNDING, FIRST_README[name] + ROUNDING) for name in names]
    bounds = []
    for precision, recall, mean_iou in product(*ranges):
        prevalence = implied_prevalence(precision, recall, mean_iou)
        false_positives = recall * prevalence * (1 - precision) / precision
        bounds.append(auc_bound(false_positives / (1 - prevalence), recall))
    return max(bounds)

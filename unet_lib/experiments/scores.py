"""Scores over several folds, and two recipes compared on the same images of the same folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unet_lib.metrics import CaseTable, Evaluation, join_tables
from unet_lib.report import compare, group_bootstrap

__all__ = ["FoldsSummary", "PairedDifference", "compare_folds", "summarise_folds"]

NAN = float("nan")


@dataclass(frozen=True)
class FoldsSummary:
    """The scores of a ledger's row; see `LedgerRow`."""

    images: int
    lesion_images: int
    dice: float
    dice_low: float
    dice_high: float
    benign: float
    malignant: float
    missed: float
    specificity: float
    mean_iou: float
    precision: float
    recall: float
    f1: float
    auc: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of the Dice on the same images, its 95 % interval, Wilcoxon's p value."""

    difference: float = NAN
    difference_low: float = NAN
    difference_high: float = NAN
    p: float = NAN


def summarise_folds(evaluations: Mapping[int, Evaluation]) -> FoldsSummary:
    """Score the images of several folds together.

    Parameters
    ----------
    evaluations : mapping of int to Evaluation

    Returns
    -------
    FoldsSummary
        Pixels are pooled over the lesion images of all folds. Probabilities of different networks
        do not share a scale, so the AUC is the mean of the folds' AUCs.
    """
    table = join_tables(evaluations)
    lesions, normals = table.lesion_cases, table.normal_cases
    dice = group_bootstrap(lesions.column("dice"), [case.group or case.name for case in lesions])
    pooled = lesions.pooled()
    aucs = [found.histogram(lesion_only=True).auc for found in evaluations.values()]
    return FoldsSummary(
        images=len(table),
        lesion_images=len(lesions),
        dice=dice.mean,
        dice_low=dice.low,
        dice_high=dice.high,
        benign=_mean(lesions.subset(labels=["benign"]), "dice"),
        malignant=_mean(lesions.subset(labels=["malignant"]), "dice"),
        missed=_mean(lesions, "missed"),
        specificity=_mean(normals, "predicted_empty"),
        mean_iou=pooled.mean_iou,
        precision=pooled.precision,
        recall=pooled.recall,
        f1=pooled.f1,
        auc=float(np.mean(aucs)),
    )


def compare_folds(
    mine: Mapping[int, Evaluation], other: Mapping[int, Evaluation]
) -> PairedDifference:
    """Compare two recipes on the lesion images of the folds that both have.

    Parameters
    ----------
    mine, other : mapping of int to Evaluation

    Returns
    -------
    PairedDifference
        `mine` less `other`, by `unet_lib.report.compare`: above 0 when `mine` is better.

    Raises
    ------
    ValueError
        They have no fold in common, or a fold has other images or no lesion.
    """
    common = sorted(set(mine) & set(other))
    if not common:
        raise ValueError(
            f"nothing to compare: one has the folds {sorted(mine)}, the other {sorted(other)}."
        )
    tables = [join_tables({fold: found[fold] for fold in common}) for found in (mine, other)]
    dice = next(row for row in compare(*tables) if row.score == "dice")
    return PairedDifference(
        dice.first - dice.second, dice.difference.low, dice.difference.high, dice.p
    )


def _mean(table: CaseTable, column: str) -> float:
    return float(table.column(column).mean()) if len(table) else NAN

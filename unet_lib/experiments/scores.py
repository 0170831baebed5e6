"""Scores over several folds, and two recipes compared on the same images of the same folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from unet_lib.metrics import CaseTable, Evaluation, join_tables
from unet_lib.report import group_bootstrap

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
        `mine` less `other`: above 0 when `mine` is better. Interval: bootstrap over near-duplicate
        groups. Test: Wilcoxon's signed-rank test of the groups' mean differences (Wilcoxon 1945,
        doi:10.2307/3001968), as images of a group are not independent.

    Raises
    ------
    ValueError
        They have no fold in common, or a fold has other images.
    """
    common = sorted(set(mine) & set(other))
    if not common:
        raise ValueError(
            f"nothing to compare: one has the folds {sorted(mine)}, the other {sorted(other)}."
        )
    differences, groups = [], []
    for fold in common:
        ours = {case.name: case for case in mine[fold].table.lesion_cases}
        theirs = {case.name: case for case in other[fold].table.lesion_cases}
        if set(ours) != set(theirs):
            raise ValueError(f"fold {fold}: the two were not scored on the same images.")
        differences += [case.dice - theirs[name].dice for name, case in ours.items()]
        groups += [case.group or name for name, case in ours.items()]
    interval = group_bootstrap(differences, groups)
    by_group = [
        np.mean([d for d, g in zip(differences, groups, strict=True) if g == group])
        for group in sorted(set(groups))
    ]
    p = float(wilcoxon(by_group).pvalue) if np.any(by_group) else 1.0
    return PairedDifference(interval.mean, interval.low, interval.high, p)


def _mean(table: CaseTable, column: str) -> float:
    return float(table.column(column).mean()) if len(table) else NAN

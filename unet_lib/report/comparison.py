"""Two tables of scores compared image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from unet_lib.metrics import SCORES, CaseTable, number, of_kind
from unet_lib.metrics.intervals import Interval, group_bootstrap
from unet_lib.report.texts import escape, table, with_interval

OF_LESION_IMAGES = (*of_kind("overlap"), "missed", "components_found", "surface_dice")
OF_LESION_IMAGES += ("hd95", "mean_surface_distance", "absolute_area_error", "band_brier")
OF_NORMAL_IMAGES = (*of_kind("normal"), "false_components")
HEADER = ("difference (95 % interval)", "Wilcoxon p", "first better", "first worse")
NOTE = (
    "Difference: first - second on the same images; bootstrap over near-duplicate groups, "
    '"(-)" where there are too few or no difference at all. The test takes the mean of each '
    "group. Many scores are tested: a single small p proves little."
)


@dataclass(frozen=True)
class Comparison:
    """One score of two tables on the same images.

    Parameters
    ----------
    score : str
        A column of `CaseTable`.
    first, second : float
        Means.
    difference : Interval
        Mean of first - second, over groups; no limits with too few groups or without a difference.
    p : float
        Wilcoxon's signed-rank test (1945, doi:10.2307/3001968) of the groups' mean differences, as
        images of a group are not independent; 1 without a difference, nan with too few groups.
    better, worse : int
        Images on which the first is better or worse; on the rest they are equal.
    """

    score: str
    first: float
    second: float
    difference: Interval
    p: float
    better: int
    worse: int


def compare(first: CaseTable, second: CaseTable, *, seed: int = 0) -> tuple[Comparison, ...]:
    """Compare two tables of the same images, in pairs.

    Parameters
    ----------
    first, second : CaseTable
        Of the same images and true masks, in any order; the groups are those of `first`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    tuple of Comparison
        Scores of images with a lesion, then of images without. A score that one table does not
        know for every such image is left out.

    Raises
    ------
    ValueError
        The tables hold other images or other true masks; the message names them.
    """
    second = _in_order(first, second)
    compared = []
    for ours, theirs, scores in (
        (first.lesion_cases, second.lesion_cases, OF_LESION_IMAGES),
        (first.normal_cases, second.normal_cases, OF_NORMAL_IMAGES),
    ):
        for score in scores if len(ours) else ():
            a, b = (cases.column(score).astype(float) for cases in (ours, theirs))
            if not np.isnan([a, b]).any():
                compared.append(_compare(score, a, b, ours.groups, seed))
    return tuple(compared)


def comparison_markdown(comparisons: Sequence[Comparison], first: str, second: str) -> str:
    """Write a comparison as a Markdown table.

    Parameters
    ----------
    comparisons : sequence of Comparison
        From `compare`.
    first, second : str
        Names of the two.
    """
    rows = []
    for one in comparisons:
        score = SCORES[one.score]
        rows.append(
            [
                score.title + (" (lower is better)" if score.better == "lower" else ""),
                str(one.difference.n),
                number(one.first, score.digits),
                number(one.second, score.digits),
                with_interval(one.difference, score.digits),
                "<0.0001" if one.p < 0.0001 else number(one.p, 4),
                str(one.better),
                str(one.worse),
            ]
        )
    header = ("per image", "images", escape(first), escape(second), *HEADER)
    return f"{table(header, rows)}\n\n{NOTE}\n"


def _in_order(first: CaseTable, second: CaseTable) -> CaseTable:
    """Return the second table in the order of the first, after checking that both belong."""
    ours, theirs = ({case.name: case for case in cases} for cases in (first, second))
    only = [name for name in (*ours, *theirs) if name not in ours or name not in theirs]
    if only or not ours:
        raise ValueError(
            f"nothing to compare: the tables hold {len(ours)} and {len(theirs)} images, "
            f"{len(only)} of them in one only ({', '.join(only[:3])}). Score both on the same "
            "images."
        )
    for name, case in ours.items():
        truths = [(c.height, c.width, c.tp + c.fn) for c in (case, theirs[name])]
        if truths[0] != truths[1]:
            (h1, w1, n1), (h2, w2, n2) = truths
            raise ValueError(
                f"{name}: the true masks differ, {h1} x {w1} with {n1} lesion pixels and {h2} x "
                f"{w2} with {n2}. Score both on the same data."
            )
    return CaseTable(theirs[name] for name in ours)


def _compare(
    score: str, first: np.ndarray, second: np.ndarray, groups: np.ndarray, seed: int
) -> Comparison:
    difference = first - second
    interval = group_bootstrap(difference, groups, seed=seed)
    _, index = np.unique(groups, return_inverse=True)
    by_group = np.bincount(index, difference) / np.bincount(index)
    p = math.nan
    if not by_group.any():
        p = 1.0
    elif interval.known:
        p = float(wilcoxon(by_group).pvalue)
    gain = -difference if SCORES[score].better == "lower" else difference
    counts = int((gain > 0).sum()), int((gain < 0).sum())
    return Comparison(score, float(first.mean()), float(second.mean()), interval, p, *counts)

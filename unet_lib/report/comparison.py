"""Two tables of scores compared image by image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from unet_lib.files import write_atomic
from unet_lib.metrics import SCORES, CaseTable, number, of_kind
from unet_lib.metrics.intervals import Interval, group_bootstrap
from unet_lib.provenance import Provenance
from unet_lib.report.markdown import banner, escape, table, with_interval
from unet_lib.report.summary import preamble, write_json

COMPARISON, COMPARED = "comparison.md", "comparison.json"
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


def write_comparison(
    comparisons: Sequence[Comparison],
    folder: str | Path,
    first: str,
    second: str,
    *,
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Path:
    """Write a comparison beside a report; return ``comparison.md``, beside ``comparison.json``.

    Parameters
    ----------
    comparisons : sequence of Comparison
        From `compare`.
    folder : str or Path
        Made when absent.
    first, second : str
        Names of the two.
    provenance : Provenance or mapping of its fields, optional
        Of the first; says which images and decides on the warning.
    """
    folder, provenance = Path(folder), Provenance.of(provenance)
    numbers = {"first": first, "second": second, "scores": comparisons}
    numbers = preamble(provenance) | numbers | {"about": provenance.to_dict()}
    write_json(folder / COMPARED, numbers)
    sizes = {one.score: one.difference.n for one in comparisons}
    lesions, normals = (
        max((sizes.get(name, 0) for name in names), default=0)
        for names in (OF_LESION_IMAGES, OF_NORMAL_IMAGES)
    )
    counts = f"{lesions} lesion images", f"{normals} images without a lesion"
    images = escape(provenance.describe(*counts, model=False))
    title = f"# {escape(first)} compared with {escape(second)}"
    header = ("per image", "images", escape(first), escape(second), *HEADER)
    rows = table(header, map(_row, comparisons))
    blocks = filter(None, (title, banner(provenance), images, rows, f"{NOTE}\n"))
    return write_atomic(folder / COMPARISON, "\n\n".join(blocks))


def _row(one: Comparison) -> list[str]:
    score = SCORES[one.score]
    return [
        score.title + (" (lower is better)" if score.better == "lower" else ""),
        str(one.difference.n),
        number(one.first, score.digits),
        number(one.second, score.digits),
        with_interval(one.difference, score.digits),
        "<0.0001" if one.p < 0.0001 else number(one.p, 4),
        str(one.better),
        str(one.worse),
    ]


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
        sizes = ((c.height, c.width, c.tp + c.fn) for c in (case, theirs[name]))
        (h1, w1, n1), (h2, w2, n2) = sizes
        if (h1, w1, n1) != (h2, w2, n2):
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
    p = float(wilcoxon(by_group).pvalue) if interval.known else math.nan
    p = p if by_group.any() else 1.0
    gain = -difference if SCORES[score].better == "lower" else difference
    counts = int((gain > 0).sum()), int((gain < 0).sum())
    return Comparison(score, float(first.mean()), float(second.mean()), interval, p, *counts)

"""Paired comparison of two tables of scores."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from test_evaluation import make_fold

from unet_lib.metrics import CaseTable
from unet_lib.metrics.intervals import group_bootstrap
from unet_lib.report import compare, comparison_markdown

GOOD, POOR = make_fold(0, 1.0).table, make_fold(0, 0.0, seed=1).table


def by_score(comparisons):
    return {c.score: c for c in comparisons}


def test_differences_are_those_of_the_same_images_in_any_order():
    shuffled = CaseTable(tuple(sorted(POOR, key=lambda case: case.name[::-1])))
    assert compare(GOOD, shuffled) == compare(GOOD, POOR)
    found = by_score(compare(GOOD, POOR))
    assert list(found) == [
        *("dice", "iou", "precision", "recall", "missed", "components_found", "surface_dice"),
        *("hd95", "mean_surface_distance", "absolute_area_error", "band_brier"),
        *("left_empty", "false_positive_area", "false_components"),
    ]
    lesions = GOOD.lesion_cases
    for name in ("dice", "hd95", "absolute_area_error"):
        ours, theirs = lesions.column(name), POOR.lesion_cases.column(name)
        one, difference = found[name], ours - theirs
        assert (one.first, one.second) == pytest.approx((ours.mean(), theirs.mean()))
        assert one.difference == group_bootstrap(difference, lesions.groups)
        better = (difference > 0) if name == "dice" else (difference < 0)
        worse = (difference < 0) if name == "dice" else (difference > 0)
        assert (one.better, one.worse) == (better.sum(), worse.sum())
        means = [difference[lesions.groups == g].mean() for g in dict.fromkeys(lesions.groups)]
        assert len(means) == 34  # 40 images, 8 of which form 2 groups
        assert one.p == pytest.approx(stats.wilcoxon(means).pvalue)
    assert found["dice"].difference.low > 0 and found["dice"].p < 0.01
    assert found["dice"].better > 20 and found["hd95"].better > 0
    assert found["false_positive_area"].difference.n == 20
    assert not found["false_positive_area"].difference.known  # 18 groups of normal images
    assert math.isnan(found["false_positive_area"].p)


def test_the_order_only_turns_the_sign():
    for one, other in zip(compare(GOOD, POOR), compare(POOR, GOOD), strict=True):
        assert one.difference.mean == pytest.approx(-other.difference.mean)
        assert (one.better, one.worse) == (other.worse, other.better)
        assert (one.first, one.p) == pytest.approx((other.second, other.p), nan_ok=True)
        assert one.difference.low == pytest.approx(-other.difference.high, abs=1e-9, nan_ok=True)


def test_a_table_and_itself_do_not_differ():
    for one in compare(GOOD, GOOD):
        assert (one.difference.mean, one.p, one.better, one.worse) == (0, 1, 0, 0)
        assert not one.difference.known


def test_the_interval_of_the_difference_is_narrower_than_of_either():
    rng = np.random.default_rng(3)
    hard = rng.random(100) * 0.8  # the same images are hard for both
    first = group_bootstrap(hard + 0.1, np.arange(100).astype(str))
    pair = group_bootstrap(hard + 0.1 - (hard + rng.normal(0, 0.02, 100)), np.arange(100))
    assert pair.low > 0.08 and pair.high - pair.low < 0.2 * (first.high - first.low)


def test_unknown_scores_are_left_out_and_other_images_refused():
    masks_only = CaseTable(tuple(replace(case, band_brier=math.nan) for case in POOR))
    assert "band_brier" not in by_score(compare(GOOD, masks_only))
    assert by_score(compare(GOOD.lesion_cases, POOR.lesion_cases)).keys().isdisjoint(["left_empty"])
    with pytest.raises(ValueError, match=r"hold 60 and 59 images, 1 .* \(normal \(0.59\)\)"):
        compare(GOOD, CaseTable(POOR[:-1]))
    with pytest.raises(ValueError, match="hold 0 and 0 images"):
        compare(CaseTable(), CaseTable())
    other = replace(POOR[0], fn=POOR[0].fn + 1, tn=POOR[0].tn - 1)
    with pytest.raises(
        ValueError, match=r"benign \(0.0\): the true masks differ, 24 x 30 with 120"
    ):
        compare(GOOD, CaseTable((other, *POOR[1:])))


def test_a_comparison_reads_as_a_table():
    comparisons = compare(GOOD, POOR)
    lines = comparison_markdown(comparisons, "ours", "theirs").splitlines()
    assert lines[0].startswith("| per image | images | ours | theirs | difference (95 % interval)")
    one = comparisons[0]
    d = one.difference
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:3] == ["Dice", "40", f"{one.first:.3f}"]
    assert cells[4] == f"{d.mean:.3f} ({d.low:.3f} to {d.high:.3f})"
    assert cells[5] == "<0.0001" and cells[6:] == [str(one.better), str(one.worse)]
    assert lines[9].startswith("| HD95 (lower is better) |") and "nan" not in "".join(lines)

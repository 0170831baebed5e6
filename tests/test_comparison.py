"""Paired comparison of tables, and several folds put together."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from unet_lib.metrics import CaseTable, Evaluation, join_tables, merge_evaluations
from unet_lib.plots import plot_precision_recall, plot_roc
from unet_lib.report import (
    compare,
    comparison_markdown,
    group_bootstrap,
    summarise,
    write_report,
)


def make_fold(fold, shift=0.0, count=60, seed=0):
    """Give the evaluation of one fold; a higher shift gives a better network."""
    rng = np.random.default_rng([seed, fold])
    about = {"model": f"net{fold}", "data": "BUSI", "fold": fold, "seen_in_training": False}
    evaluation = Evaluation(provenance=about)
    for i in range(count):
        label = ("benign", "malignant", "normal")[i % 3]
        truth = np.zeros((24, 30), bool)
        truth[5:15, 8:20] = label != "normal"
        logits = rng.normal(truth * (3.0 + shift) - 2 - fold, 1.2)
        p = 1 / (1 + np.exp(-logits))
        name = f"{label} ({fold}.{i})"
        group = f"group {fold}.{i // 6}" if i < 12 else ""
        evaluation.add(truth, p >= 0.5, p, name=name, label=label, group=group)
    return evaluation


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
        compare(GOOD, CaseTable(POOR.cases[:-1]))
    with pytest.raises(ValueError, match="hold 0 and 0 images"):
        compare(CaseTable(), CaseTable())
    other = replace(POOR[0], fn=POOR[0].fn + 1, tn=POOR[0].tn - 1)
    with pytest.raises(
        ValueError, match=r"benign \(0.0\): the true masks differ, 24 x 30 with 120"
    ):
        compare(GOOD, CaseTable((other, *POOR.cases[1:])))


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


# --- folds ----------------------------------------------------------------------------------


FOLDS = {fold: make_fold(fold, fold / 2) for fold in range(3)}


def test_merged_folds_have_the_mean_of_the_folds_areas():
    merged = merge_evaluations(FOLDS)
    assert len(merged.table) == 180 and merged.table == join_tables(FOLDS)
    assert merged.histogram().n == sum(e.histogram().n for e in FOLDS.values())
    for choice in ({}, {"lesion_only": True}, {"label": "benign"}):
        areas = [e.areas(**choice) for e in FOLDS.values()]
        assert merged.areas(**choice) == pytest.approx(tuple(np.mean(areas, axis=0)))
        pooled = merged.histogram(**choice)
        assert merged.areas(**choice)[0] > pooled.auc + 0.01  # folds differ in scale
    calibration = merged.histogram().calibration
    squared = sum(e.histogram().calibration.sums[3].sum() for e in FOLDS.values())
    assert calibration.brier == pytest.approx(squared / merged.histogram().n)
    assert merged.provenance.to_dict() == {
        "model": "net0; net1; net2", "data": "BUSI", "fold": "0; 1; 2", "seen_in_training": False,
    }  # fmt: skip
    seen = {**FOLDS, 2: replace(FOLDS[2], provenance={"seen_in_training": True})}
    assert merge_evaluations(seen).provenance["seen_in_training"] is True


def test_merged_folds_name_every_image_that_some_fold_has_seen():
    def compared(fold, images, seen):
        overlap = {"compared_with": images, "in_training": seen, "near_duplicates": ["b"]}
        about = {"seen_in_training": bool(seen), "training_overlap": overlap}
        return replace(FOLDS[fold], provenance=about)

    about = merge_evaluations({0: compared(0, 546, []), 1: compared(1, 545, ["a"])}).provenance
    assert about["seen_in_training"] is True
    assert about["training_overlap"] == {
        "compared_with": "545 to 546", "in_training": ["a"], "near_duplicates": ["b"]
    }  # fmt: skip
    about = merge_evaluations({0: compared(0, 546, []), 1: FOLDS[1]}).provenance
    assert "training_overlap" not in about


def test_the_auc_of_a_fold_is_that_of_scikit_learn():
    truth, p = np.zeros((9, 9), bool), np.random.default_rng(0).random((9, 9)).astype(np.float32)
    truth[2:5, 3:8] = True
    evaluation = Evaluation()
    evaluation.add(truth, p > 0.5, p, name="a", label="benign")
    normal = Evaluation()
    normal.add(truth & False, p > 0.5, p, name="b", label="normal")
    expected = sk.roc_auc_score(truth.ravel(), p.ravel())
    merged = merge_evaluations({0: evaluation, 1: normal})
    assert merged.areas()[0] == pytest.approx(expected, abs=1e-6)  # undefined in fold 1: left out
    assert merged.folds[1]["auc"] == {"all images": None, "lesion images": None}
    assert re.search(r"\| all images \| 0\.\d{4} \| - \|", summarise(merged).to_markdown())
    assert all(map(math.isnan, merge_evaluations({1: normal}).areas()))
    alone = merge_evaluations({0: evaluation})
    assert alone.folds == () and alone.areas() == evaluation.areas()


def test_merged_folds_survive_their_folder_and_are_reported(tmp_path):
    merged = merge_evaluations(FOLDS)
    report = write_report(merged, tmp_path)
    again = Evaluation.load(tmp_path)
    assert again.folds == merged.folds and again.areas() == merged.areas()
    text = report.read_text()
    assert "means over the folds" in text and "| fold 0 | fold 1 | fold 2 |" in text
    assert f"| {FOLDS[1].areas()[0]:.4f} |" in text and f"| {merged.areas()[0]:.4f} |" in text
    assert len(json.loads((tmp_path / "summary.json").read_text())["folds"]) == 3
    for plot, score in ((plot_roc, "folds' mean AUC"), (plot_precision_recall, "folds' mean av")):
        texts = [t.get_text() for t in plot(merged).subfigs[0].legends[0].get_texts()]
        assert any(score in found for found in texts)
    write_report(FOLDS[0], tmp_path)  # a single fold into the same folder: the rest must go
    assert Evaluation.load(tmp_path).folds == () and summarise(FOLDS[0]).folds == ()


def test_an_image_of_several_folds_keeps_each_row():
    table = join_tables({0: FOLDS[0], 3: FOLDS[0], 1: FOLDS[1]})
    names = [case.name for case in table]
    assert len(names) == 180 and names[0] == "benign (0.0), fold 0"
    assert names[60] == "benign (0.0), fold 3" and names[120] == "benign (1.0)"
    alone = FOLDS[0].table.subset(lambda case: not case.group)
    assert len(set(join_tables({0: FOLDS[0], 3: FOLDS[0]}).groups)) == len(alone) + 2


def test_folds_that_do_not_belong_together_are_refused():
    masks = Evaluation(FOLDS[1].table)
    assert merge_evaluations({1: masks}).folds == ()
    with pytest.raises(ValueError, match="fold 1 holds no probabilities"):
        merge_evaluations({0: FOLDS[0], 1: masks})
    with pytest.raises(ValueError, match="received no fold"):
        merge_evaluations({})

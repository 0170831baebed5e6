"""Summaries and comparisons against their tables; every word of a report; what its folder holds."""

import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from test_evaluation import make_fold

from unet_lib.metrics import CaseTable, Evaluation, PixelCounts, of_kind
from unet_lib.metrics.intervals import group_bootstrap, share_interval
from unet_lib.report import compare, summarise, write_comparison, write_report
from unet_lib.report.markdown import AUC_BOUND, FIRST_README


def test_no_roc_curve_reaches_the_auc_of_the_first_readme():
    """Real counts of a million pixels that round to its three scores, and their bound."""
    rounded = {name: FIRST_README[name] for name in ("precision", "recall", "mean_iou")}
    rng, bounds = np.random.default_rng(9), []
    for _ in range(4_000):
        lesion = int(rng.integers(50_000, 75_000))
        tp = round(lesion * rng.uniform(0.7665, 0.7675))
        fp = round(tp * (1 / rng.uniform(0.8705, 0.8715) - 1))
        counts = PixelCounts(tp, fp, lesion - tp, 1_000_000 - lesion - fp)
        if all(round(getattr(counts, name), 3) == value for name, value in rounded.items()):
            bounds.append(1 - counts.false_positive_rate * (1 - counts.recall))
    assert len(bounds) > 500 and AUC_BOUND - 1e-4 < max(bounds) <= AUC_BOUND
    assert FIRST_README["auc"] - 0.0005 > AUC_BOUND  # the smallest area that rounds to it


# --- summaries ------------------------------------------------------------------------------


def pictures(about=None, count=48, seed=0, probabilities=True, spacing=None):
    """Make pictures of half a lesion each, some missed, some marked where there is none."""
    rng, evaluation = np.random.default_rng(seed), Evaluation(provenance=about or {"model": "a"})
    for i in range(count):
        label = ("benign", "malignant", "normal")[i % 3]
        truth, marked = np.zeros((2, 40 + i % 5, 50), bool)
        if label != "normal":
            truth[8 : 24 + i % 7, 10 : 30 + i % 11] = True
        if (label == "normal") == (i % 7 == 5) and i % 11:
            marked[10 : 26 + i % 3, 9 + i % 4 : 28] = True
        if i % 6 == 1:
            marked[2:5, 40:44] = True
        # Eighths, so that sums are exact on every machine.
        p = (marked * 4 + rng.integers(0, 4, marked.shape) + (truth & (i % 4 == 0))) / 8
        names = {"name": f"{label} ({i})", "label": label, "group": f"group {i // 2}"}
        evaluation.add(truth, p >= 0.5, p if probabilities else None, spacing=spacing, **names)
    return evaluation


EVALUATION = pictures()
SUMMARY = summarise(EVALUATION)


@pytest.mark.parametrize("index", range(3))
def test_rows_of_lesion_images_are_those_of_the_table(index):
    row, label = SUMMARY.per_image[index], ("lesion images", "benign", "malignant")[index]
    table = EVALUATION.cases_of(label)
    assert (row["label"], row["images"]) == (label, len(table)) == (label, 16 if index else 32)
    for name in of_kind("overlap", "contour", "area", "calibration"):
        values = table.column(name)
        expected = asdict(group_bootstrap(values, table.groups, seed=0))
        assert asdict(row["means"][name]) == pytest.approx(expected, nan_ok=True)
        assert row["means"][name].known <= (index == 0)  # 16 groups of one class are too few
        quartiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
        assert row["medians"][name] == pytest.approx(quartiles.pop(2))
        assert row["quantiles"][name] == pytest.approx(quartiles)
    assert row["missed"] == table.column("missed").sum() > 0
    assert row["detected"] == share_interval(~table.column("missed"), table.groups)
    pieces, found = row["components_found"], table.column("components_found").sum()
    assert pieces.n == table.column("components").sum() and pieces.mean == found / pieces.n
    false = table.column("false_components")
    assert repr(row["false_components"]) == repr(group_bootstrap(false, table.groups))  # with nan


def test_pooled_rows_are_of_the_images_that_they_name():
    rows = {row["label"]: row for row in SUMMARY.pooled}
    assert list(rows) == ["all images", "lesion images", "benign", "malignant"]
    for label, row in rows.items():
        table, histogram = EVALUATION.cases_of(label), EVALUATION.histogram(label)
        assert (row["images"], row["counts"]) == (len(table), table.pooled())
        assert row["scores"]["mean_iou"] == row["counts"].mean_iou
        assert (row["auc"], row["average_precision"]) == EVALUATION.areas(label)
        assert (row["brier"], row["band_ece"]) == (histogram.calibration.brier, histogram.band.ece)


def test_whether_there_is_a_lesion_is_answered_by_hand():
    table, scores, normals = EVALUATION.table, SUMMARY.detection, SUMMARY.normals
    lesions = [case for case in table if case.tp + case.fn]
    empty = [case.fp == 0 for case in table if case.tp + case.fn == 0]
    marked = [c.tp + c.fp > 0 for c in lesions]
    assert any(c.missed and c.fp for c in lesions)  # marked, in the wrong place
    assert (scores["marked"], normals["left_empty"]) == (sum(marked), sum(empty))
    assert scores["sensitivity"].mean == np.mean(marked) < 1
    assert scores["specificity"] == normals["specificity"] and 0 < np.mean(empty) < 1
    assert scores["specificity"].mean == np.mean(empty)
    assert scores["false_components"].mean == table.column("false_components").mean() > 0
    area = sk.roc_auc_score(table.column("has_lesion"), table.column("image_score"))
    assert scores["auc"] == pytest.approx(area) and 0.5 < area < 1
    area = table.normal_cases.column("false_positive_area")
    assert normals["false_positive_area"].mean == pytest.approx(area.mean())
    assert SUMMARY.missed == tuple(sorted(case.name for case in lesions if case.missed))
    assert (SUMMARY.images, SUMMARY.groups) == (48, 24)


def test_scores_not_known_of_every_image_have_no_mean():
    first, *rest = EVALUATION.table
    unknown = {"hd95": math.nan, "brier": math.nan, "components": math.nan, "image_score": math.nan}
    table = CaseTable([replace(first, **unknown), *rest])
    summary = summarise(replace(EVALUATION, table=table))
    row = summary.per_image[0]
    for interval in (row["means"]["hd95"], row["means"]["brier"], row["components_found"]):
        assert math.isnan(interval.mean) and not interval.known
    assert row["means"]["ece"] == SUMMARY.per_image[0]["means"]["ece"]
    assert math.isnan(row["medians"]["hd95"]) and math.isnan(summary.detection["auc"])
    text = summary.to_markdown()
    assert not re.search(r"\bnan\b", text) and "| - (-) |" in text


def test_summary_is_strict_json_with_both_questions():
    stored = json.loads(json.dumps(summarise(pictures(count=5)).to_dict(), allow_nan=False))
    assert stored["per_image"][0]["means"]["dice"]["low"] is None  # too few groups
    assert stored["about"]["model"] == "a" and set(stored["questions"]) <= set(stored)
    row = json.loads(json.dumps(SUMMARY.to_dict(), allow_nan=False))["pooled"][0]
    assert row["scores"]["f1"] == SUMMARY.pooled[0]["counts"].f1
    assert row["counts"]["tp"] == SUMMARY.pooled[0]["counts"].tp


# --- every word ------------------------------------------------------------------------------


BUSI = {"model": "unet-a", "data": "BUSI", "data_kind": "clinical"}
FOLD = {**BUSI, "split": "busi_5fold, fold 0", "fold": 0, "part": "test"}
KNOWN = {
    "seen_in_training": True,
    "training_overlap": {
        "compared_with": 624,
        "in_training": ["benign (0)", "normal (2)"],
        "near_duplicates": ["malignant (1)"],
    },
    "threshold": 0.45,
    "cleaning": {"minimum_area": 0.0, "minimum_peak": 0.9},
    "preprocessing": {"size": 128, "keep_aspect": False},
    "model_sha256": "10ab72bb",
    "normals": True,
    "sources": ["here", "there"],
    "started": None,
}


def test_report_says_what_was_agreed(tmp_path, agreed):
    """A change of the text shows as a change of the files; ``pytest --agree`` writes them anew."""
    known = write_report(pictures({**FOLD, **KNOWN}), tmp_path / "known", page=False)
    agreed(known.read_text(encoding="utf-8"), file="report.md")
    phantoms = {"model": "run", "data": "phantoms", "data_kind": "phantoms"}
    few = pictures(phantoms, 9, probabilities=False, spacing=(0.1, 0.08))
    agreed(summarise(few).to_markdown(level=3), file="report_few.md")


def test_comparison_says_what_was_agreed(tmp_path, agreed):
    about = {**FOLD, "seen_in_training": False, "data_kind": "phantoms"}
    compared = compare(pictures(about).table, pictures(about, seed=1).table)
    path = write_comparison(compared, tmp_path, "unet-a", "other|program", provenance=about)
    agreed(path.read_text(encoding="utf-8"), file="comparison.md")
    stored = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert list(stored) == ["warning", "intervals", "first", "second", "scores", "about"]
    assert stored["scores"][0] == asdict(compared[0]) and stored["about"] == about


def tables(text):
    """Give every Markdown table as a list of rows of cells, after checking its shape."""
    blocks = [block for block in re.split(r"\n\n+", text) if block.startswith("|")]
    made = [[re.split(r"(?<!\\)\|", line)[1:-1] for line in b.strip().splitlines()] for b in blocks]
    assert all(len({len(row) for row in rows}) == 1 for rows in made)
    return [[[cell.strip() for cell in row] for row in rows] for rows in made]


def test_every_table_is_either_per_image_or_pooled():
    firsts = [rows[0][0].lower() for rows in tables(SUMMARY.to_markdown())]
    kinds = ["pooled" if "pooled" in first else "per image" for first in firsts]
    assert kinds == ["per image"] * 3 + ["pooled"]
    assert all(("per image" in f) == (k == "per image") for f, k in zip(firsts, kinds, strict=True))


def test_unknown_is_a_dash_and_never_a_number():
    truth = np.zeros((6, 6), bool)
    truth[2:4, 2:4] = True
    lesion, normal = Evaluation(), Evaluation()
    lesion.add(truth, ~truth & truth, name="a|b", label="benign")
    normal.add(~truth & truth, ~truth & truth, name="n", label="normal")
    text = summarise(lesion).to_markdown()
    assert text.startswith("# Evaluation\n") and r"a\|b" in text
    assert "nan" not in text and "specificity is not known" in text
    outline, _, detection, _ = ({row[0]: row[-1] for row in rows} for rows in tables(text))
    pooled = {row[0]: row[1] for row in tables(text)[3]}
    assert (outline["Dice"], outline["missed"]) == ("0.000 (-)", "1 (100.0%)")
    assert detection["sensitivity"].startswith("0.000 (") and "specificity" not in detection
    assert (pooled["precision"], pooled["recall"], pooled["ROC AUC"]) == ("-", "0.000", "-")
    text = summarise(normal).to_markdown()
    assert "nan" not in text and "No image has a lesion" in text
    assert "1.000 (0.025 to 1.000)" in text  # one image: nearly no knowledge


def test_each_data_set_has_its_own_scores():
    cases = [
        replace(case, name=f"{'ab'[i > 30]}/{case.name}") for i, case in enumerate(EVALUATION.table)
    ]
    parts = [CaseTable(case for case in cases if case.name.startswith(name)) for name in "ab"]
    summary = summarise(Evaluation(CaseTable(cases), provenance={"sets": ["a", "b"]}))
    per_image, pooled = tables(summary.to_markdown())[3:5]
    rows = {row[0]: row[1:] for row in (*per_image, *pooled)}
    assert rows["per image"] == ["a (31)", "b (17)"] and per_image[2][1:] == ["21", "11"]
    dice = [f"{part.lesion_cases.column('dice').mean():.3f}" for part in parts]
    assert [cell.split(" (")[0] for cell in rows["Dice"]] == dice
    assert rows["F1"] == [f"{part.pooled().f1:.3f}" for part in parts]
    assert json.loads(json.dumps(summary.to_dict()))["sets"][0]["images"] == 31


def test_a_long_list_of_misses_is_cut_and_counted():
    evaluation = Evaluation()
    for i in range(35):
        evaluation.add(np.ones((2, 2), bool), np.zeros((2, 2), bool), name=f"x{i:02}")
    text = summarise(evaluation).to_markdown()
    assert "x00, x01" in text and "x29 and 5 more." in text and "x30" not in text


# --- the folder -----------------------------------------------------------------------------


def test_report_folder_holds_one_report_and_what_is_not_ours(tmp_path):
    report = write_report(EVALUATION, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("about.json", "calibration.png", "cases.csv", "confusion_matrix.png"),
        *("dice_by_size.png", "histograms.npz", "image_roc.png", "precision_recall.png"),
        *("report.html", "report.md", "roc.png", "summary.json"),
    ]
    text = report.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert text.startswith(SUMMARY.to_markdown()) and len(links) == 8
    assert all((tmp_path / link).is_file() for link in links)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix != ".npz"}
    write_report(Evaluation.load(tmp_path), tmp_path)  # from its own files: the same report
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name in before}
    # Of masks alone there are no curves: those of another model must not lie beside them.
    (tmp_path / "notes.txt").write_text("mine")
    masks = pictures({"model": "someone else's"}, 12, probabilities=False)
    text = write_report(masks, tmp_path, page=False).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("about.json", "cases.csv", "confusion_matrix.png", "dice_by_size.png"),
        *("histograms.npz", "notes.txt", "report.md", "summary.json"),
    ]
    assert "(roc.png)" not in text and "(confusion_matrix.png)" in text
    with pytest.raises(ValueError, match="no image"):
        write_report(Evaluation(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- two tables compared --------------------------------------------------------------------

GOOD, POOR = make_fold(0, 1.0).table, make_fold(0, 0.0, seed=1).table


def test_differences_are_those_of_the_same_images_in_any_order():
    shuffled = CaseTable(sorted(POOR, key=lambda case: case.name[::-1]))
    assert repr(compare(GOOD, shuffled)) == repr(compare(GOOD, POOR))  # with nan
    rows = {row.score: row for row in compare(GOOD, POOR)}
    assert list(rows) == [
        *("dice", "iou", "precision", "recall", "missed", "components_found", "surface_dice"),
        *("hd95", "mean_surface_distance", "absolute_area_error", "band_brier"),
        *("left_empty", "false_positive_area", "false_components"),
    ]
    lesions = GOOD.lesion_cases
    for name, sign in (("dice", 1), ("hd95", -1), ("absolute_area_error", -1)):
        ours, theirs = lesions.column(name), POOR.lesion_cases.column(name)
        one, difference = rows[name], ours - theirs
        assert (one.first, one.second) == pytest.approx((ours.mean(), theirs.mean()))
        assert one.difference == group_bootstrap(difference, lesions.groups)
        gain = sign * difference
        assert (one.better, one.worse) == ((gain > 0).sum(), (gain < 0).sum())
        means = [difference[lesions.groups == g].mean() for g in dict.fromkeys(lesions.groups)]
        assert len(means) == 34  # 40 images, 8 of which form 2 groups
        assert one.p == pytest.approx(stats.wilcoxon(means).pvalue)
    assert rows["dice"].difference.low > 0 and rows["dice"].better > 20
    area = rows["false_positive_area"]
    assert area.difference.n == 20 and not area.difference.known  # 18 groups of normal images
    assert math.isnan(area.p)


def test_a_table_does_not_differ_from_itself():
    for one in compare(GOOD, GOOD):
        assert (one.difference.mean, one.p, one.better, one.worse) == (0, 1, 0, 0)
        assert not one.difference.known


def test_unknown_scores_are_left_out_and_other_images_refused():
    masks_only = CaseTable(replace(case, band_brier=math.nan) for case in POOR)
    assert "band_brier" not in [row.score for row in compare(GOOD, masks_only)]
    with pytest.raises(ValueError, match=r"hold 60 and 59 images, 1 .* \(normal \(0.59\)\)"):
        compare(GOOD, CaseTable(POOR[:-1]))
    with pytest.raises(ValueError, match="hold 0 and 0 images"):
        compare(CaseTable(), CaseTable())
    other = replace(POOR[0], fn=POOR[0].fn + 1, tn=POOR[0].tn - 1)
    message = r"benign \(0.0\): the true masks differ, 24 x 30 with 120"
    with pytest.raises(ValueError, match=message):
        compare(GOOD, CaseTable([other, *POOR[1:]]))

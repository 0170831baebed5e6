"""Summaries against scikit-learn; every word of a report; what its folder holds."""

import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn import metrics as sk

from unet_lib.metrics import CaseTable, Evaluation, PixelCounts, merge_evaluations
from unet_lib.metrics.intervals import group_bootstrap, share_interval
from unet_lib.provenance import PHANTOM_BANNER, SEEN_BANNER
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


def make_images(count=48, seed=0):
    """Give name, label, group, truth, probabilities of benign, malignant and normal images."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        label = ("benign", "malignant", "normal")[i % 3]
        shape = tuple(rng.integers(20, 40, 2))
        truth = (rng.random(shape) < 0.2) & (label != "normal")
        logits = rng.normal(truth * 3.0 - 2, 1)
        if i in (3, 4, 8):  # a missed benign, a missed malignant, a normal left empty
            logits = logits - 20
        yield f"{label} ({i})", label, f"group {i // 2}", truth, 1 / (1 + np.exp(-logits))


def make_evaluation(about=None, images=None):
    evaluation = Evaluation(provenance=about or {"model": "unet-a", "data": "BUSI", "fold": 0})
    for name, label, group, truth, p in images or make_images():
        evaluation.add(truth, p >= 0.5, p, name=name, label=label, group=group)
    return evaluation


SUMMARY = summarise(make_evaluation())


def lesion_scores(score, label=None):
    chosen = [image for image in make_images() if image[3].any() and label in (None, image[1])]
    return [score(t.ravel(), p.ravel() >= 0.5) for *_, t, p in chosen], [i[2] for i in chosen]


@pytest.mark.parametrize("index", range(3))
def test_per_image_scores_are_those_of_scikit_learn(index):
    row, label = SUMMARY.per_image[index], (None, "benign", "malignant")[index]
    assert row["label"] == (label or "lesion images")
    precision = {"precision": lambda t, p: sk.precision_score(t, p, zero_division=0)}
    others = {"dice": sk.f1_score, "iou": sk.jaccard_score, "recall": sk.recall_score}
    for name, score in {**others, **precision}.items():
        values, groups = lesion_scores(score, label)
        assert row["images"] == len(values) == (16 if label else 32)
        assert row["medians"][name] == pytest.approx(np.median(values))
        expected = group_bootstrap(values, groups, seed=0)
        assert asdict(row["means"][name]) == pytest.approx(asdict(expected), nan_ok=True)
        assert expected.known == (label is None)  # 16 groups of one class are too few
    assert row["missed"] == (1 if label else 2)


def test_pooled_scores_are_those_of_scikit_learn():
    rows = {row["label"]: row for row in SUMMARY.pooled}
    assert list(rows) == ["all images", "lesion images", "benign", "malignant"]
    for label, row in rows.items():
        classes = {"all images": ["benign", "malignant", "normal"]}.get(label, [label])
        classes = ["benign", "malignant"] if label == "lesion images" else classes
        chosen = [image for image in make_images() if image[1] in classes]
        t, p = (np.concatenate([i[k].ravel() for i in chosen]) for k in (3, 4))
        assert row["images"] == len(chosen)
        assert row["counts"].precision == pytest.approx(sk.precision_score(t, p >= 0.5))
        assert row["scores"]["recall"] == pytest.approx(sk.recall_score(t, p >= 0.5))
        expected = sk.jaccard_score(t, p >= 0.5, average="macro")
        assert row["scores"]["mean_iou"] == pytest.approx(expected)
        assert row["auc"] == pytest.approx(sk.roc_auc_score(t, p), abs=1e-5)
        average = sk.average_precision_score(t, p)
        assert row["average_precision"] == pytest.approx(average, abs=1e-4)
        assert row["brier"] == pytest.approx(sk.brier_score_loss(t, p), abs=1e-6)


@pytest.mark.parametrize("index", range(3))
def test_contours_components_and_calibration_are_those_of_the_table(index):
    row, table = SUMMARY.per_image[index], make_evaluation().table.lesion_cases
    if index:
        table = table.subset(labels=[row["label"]])
    groups = [case.group for case in table]
    for name in ("surface_dice", "hd95", "area_error", "absolute_area_error", "ece", "band_brier"):
        values = [getattr(case, name) for case in table]
        assert row["means"][name] == group_bootstrap(values, groups)
        expected = np.quantile(values, [0.05, 0.25, 0.75, 0.95])
        assert row["quantiles"][name] == pytest.approx(expected.tolist())
    assert row["detected"] == share_interval([not case.missed for case in table], groups)
    pieces, found = row["components_found"], sum(case.components_found for case in table)
    assert pieces.n == sum(case.components for case in table)
    assert pieces.mean == pytest.approx(found / pieces.n) and pieces.groups == len(set(groups))
    false = [case.false_components for case in table]
    assert row["false_components"] == group_bootstrap(false, groups)


def test_scores_not_known_of_every_image_have_no_mean():
    evaluation = make_evaluation()
    first, *rest = evaluation.table
    unknown = replace(first, hd95=math.nan, brier=math.nan, components=math.nan)
    evaluation.table = CaseTable((unknown, *rest))
    row = summarise(evaluation).per_image[0]
    for interval in (row["means"]["hd95"], row["means"]["brier"], row["components_found"]):
        assert math.isnan(interval.mean) and not interval.known
    assert row["means"]["ece"] == SUMMARY.per_image[0]["means"]["ece"]
    assert math.isnan(row["medians"]["hd95"]) and np.isnan(row["quantiles"]["hd95"]).all()
    text = summarise(evaluation).to_markdown()
    assert not re.search(r"\bnan\b", text) and "| - (-) |" in text


def test_normals_give_specificity_and_area_by_hand():
    normals = [p >= 0.5 for _, label, _, _, p in make_images() if label == "normal"]
    empty, row = [not mask.any() for mask in normals], SUMMARY.normals
    assert (row["images"], row["left_empty"]) == (16, sum(empty)) and 0 < sum(empty) < 16
    assert row["specificity"].mean == pytest.approx(np.mean(empty))
    assert row["specificity"].low < row["specificity"].mean < row["specificity"].high
    false = [case.false_components for case in make_evaluation().table.normal_cases]
    assert row["false_components"].mean == pytest.approx(np.mean(false)) and max(false) > 1
    area = np.mean([mask.mean() for mask in normals])
    assert row["false_positive_area"].mean == pytest.approx(area)
    assert SUMMARY.missed == ("benign (3)", "malignant (4)")
    assert (SUMMARY.images, SUMMARY.groups) == (48, 24)
    alone = make_evaluation(images=[(n, label, "", t, p) for n, label, _, t, p in make_images()])
    assert summarise(alone).groups == 48  # an image without a group stands alone


def test_summary_is_strict_json():
    few = summarise(make_evaluation(images=list(make_images(5))))
    stored = json.loads(json.dumps(few.to_dict(), allow_nan=False))
    assert stored["per_image"][0]["means"]["dice"]["low"] is None  # too few groups
    assert stored["about"]["model"] == "unet-a"
    row = json.loads(json.dumps(SUMMARY.to_dict(), allow_nan=False))["pooled"][0]
    assert row["scores"]["f1"] == SUMMARY.pooled[0]["counts"].f1
    assert row["counts"]["tp"] == SUMMARY.pooled[0]["counts"].tp


def test_nothing_cannot_be_summarised(tmp_path):
    with pytest.raises(ValueError, match="no image"):
        write_report(Evaluation(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


def pictures(about, count=48, seed=0, probabilities=True, spacing=None):
    """Make pictures of half a lesion each, some missed, some marked where there is none."""
    rng, evaluation = np.random.default_rng(seed), Evaluation(provenance=about)
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


def test_report_says_what_was_agreed(tmp_path, agreed):
    """A change of the text shows as a change of the files; ``pytest --agree`` writes them anew."""
    known = write_report(pictures({**FOLD, **KNOWN}), tmp_path / "known")
    agreed(known.read_text(encoding="utf-8"), file="report.md")
    phantoms = {"model": "run", "data": "phantoms", "data_kind": "phantoms"}
    few = pictures(phantoms, 9, probabilities=False, spacing=(0.1, 0.08))
    agreed(summarise(few).to_markdown(level=3), file="report_few.md")


def test_comparison_says_what_was_agreed(tmp_path, agreed):
    about = {**FOLD, "seen_in_training": False, "data_kind": "phantoms"}
    first, second = pictures(about), pictures(about, seed=1)
    compared = compare(first.table, second.table)
    path = write_comparison(compared, tmp_path, "unet-a", "other|program", provenance=about)
    agreed(path.read_text(encoding="utf-8"), file="comparison.md")
    stored = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert list(stored) == ["warning", "intervals", "first", "second", "scores", "about"]
    assert stored["scores"][0] == asdict(compared[0]) and stored["about"] == about


def tables(text):
    """Give every Markdown table as a list of rows of cells, after checking its shape."""
    found = []
    for block in re.split(r"\n\n+", text):
        if block.startswith("|"):
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.strip().splitlines()]
            assert len({len(row) for row in rows}) == 1, block
            found.append([[cell.strip() for cell in row] for row in rows])
    return found


def test_every_table_is_either_per_image_or_pooled():
    kinds = []
    for section in re.split(r"\n## ", SUMMARY.to_markdown())[1:]:
        title = section.splitlines()[0]
        for table in tables(section):
            pooled = "pooled" in (title + table[0][0]).lower()
            assert pooled != ("per image" in (title + table[0][0]).lower()), title
            kinds.append("pooled" if pooled else "per image")
    assert kinds == ["per image"] * 6 + ["pooled"] * 3


def test_the_numbers_in_the_tables():
    means, medians, contours, _, misses, normals, pooled, calibration, beside = tables(
        SUMMARY.to_markdown()
    )
    row, benign = SUMMARY.per_image[:2]
    dice, hd95 = row["means"]["dice"], row["means"]["hd95"]
    assert means[2][3] == f"{dice.mean:.3f} ({dice.low:.3f} to {dice.high:.3f})"
    low, high = benign["quantiles"]["dice"][1:3]
    assert medians[3][2] == f"{benign['medians']['dice']:.3f} ({low:.3f} to {high:.3f})"
    assert contours[2][4].startswith(f"{hd95.mean:.1f} (")
    assert misses[2][2:4] == ["2", "6.2%"] and misses[2][5] == str(row["components_found"].n)
    area = SUMMARY.normals["false_positive_area"]
    assert normals[2][5].startswith(f"{100 * area.mean:.2f} (")
    row = SUMMARY.pooled[1]
    values = (row["brier"], row["ece"], row["band_brier"], row["band_ece"])
    assert calibration[3][2:] == [f"{value:.4f}" for value in values]
    counts = SUMMARY.pooled[0]["counts"]
    assert pooled[2][2:5] == [
        f"{counts.n:,}",
        f"{counts.prevalence:.3f}",
        f"{counts.precision:.3f}",
    ]
    assert beside[2][2] == f"{counts.mean_iou:.3f}" and beside[6][1] == "0.999 (1)"


def test_unknown_is_a_dash_and_never_a_number():
    truth = np.zeros((6, 6), bool)
    truth[2:4, 2:4] = True
    lesion, normal = Evaluation(), Evaluation()
    lesion.add(truth, np.zeros_like(truth), name="a|b", label="benign")
    normal.add(np.zeros_like(truth), np.zeros_like(truth), name="n", label="normal")
    text = summarise(lesion).to_markdown()
    assert text.startswith("# Evaluation\n") and r"a\|b" in text
    assert "nan" not in text and "specificity is not known" in text
    assert "The probabilities are not known." in text
    means, _, _, _, misses, pooled, _ = tables(text)
    assert means[2][3] == "0.000 (-)" and misses[2][2] == "1"
    row = dict(zip(pooled[0], pooled[2], strict=True))
    assert row["precision"] == "-" and row["recall"] == "0.000" and row["ROC AUC"] == "-"
    text = summarise(normal).to_markdown()
    assert "nan" not in text and "No image has a lesion" in text
    assert tables(text)[0][2][4] == "1.000 (0.025 to 1.000)"  # one image: nearly no knowledge
    row = dict(zip(tables(text)[1][0], tables(text)[1][2], strict=True))
    assert row["recall"] == row["F1"] == row["Mean IoU"] == "-"
    assert row["pixel accuracy"] == "1.000"


def test_a_long_list_of_misses_is_cut_and_counted():
    evaluation = Evaluation()
    for i in range(35):
        evaluation.add(np.ones((2, 2), bool), np.zeros((2, 2), bool), name=f"x{i:02}")
    text = summarise(evaluation).to_markdown()
    assert "x00, x01" in text and "x29 and 5 more." in text and "x30" not in text


# --- the folder -----------------------------------------------------------------------------


def test_report_folder(tmp_path):
    evaluation = make_evaluation()
    report = write_report(evaluation, tmp_path / "scores")
    folder = report.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        *("about.json", "calibration.png", "cases.csv", "confusion_matrix.png"),
        *("dice_by_size.png", "histograms.npz", "precision_recall.png", "report.html"),
        *("report.md", "roc.png", "summary.json"),
    ]
    text = report.read_text(encoding="utf-8")
    assert text.startswith(SUMMARY.to_markdown())
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) == 7 and all((folder / link).is_file() for link in links)
    assert CaseTable.read_csv(folder / "cases.csv") == evaluation.table
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".npz"}
    write_report(Evaluation.load(folder), folder)  # from its own files: the same report
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.name in before}


def test_nothing_of_an_earlier_report_stays_but_what_is_not_ours(tmp_path):
    """Of masks alone there are no curves: those of another model must not lie beside them."""
    write_report(make_evaluation(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    masks = Evaluation(provenance={"model": "someone else's"})
    for name, label, group, truth, p in make_images(12):
        masks.add(truth, p >= 0.5, name=name, label=label, group=group)
    text = write_report(masks, tmp_path, page=False).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("about.json", "cases.csv", "confusion_matrix.png", "dice_by_size.png"),
        *("histograms.npz", "notes.txt", "report.md", "summary.json"),
    ]
    assert "(roc.png)" not in text and "(confusion_matrix.png)" in text


def test_the_banner_of_one_leaking_or_seen_fold_is_that_of_all(tmp_path):
    """Merged folds join their values as text: "0 of ...; 3 of ..." is a leak all the same."""
    leak = "3 of 10 test images have a group mate in training or validation"
    folds = {
        fold: make_evaluation({**BUSI, "own_split": own, "seen_in_training": False})
        for fold, own in enumerate((leak.replace("3", "0", 1), leak))
    }
    report = write_report(merge_evaluations(folds), tmp_path)
    for path in (report, tmp_path / "report.html", tmp_path / "summary.json"):
        assert f"authors: {leak}" in path.read_text()
    folds[0].provenance = folds[0].provenance.but(data_kind="phantoms", seen_in_training=True)
    text = summarise(merge_evaluations(folds)).to_markdown()
    for banner in (PHANTOM_BANNER, SEEN_BANNER):
        assert text.index(banner) < text.index("|") and text.count(banner) == 2
    assert "phantoms: all images" in text and "this run:" not in text

"""Intervals against SciPy and simulation, summaries against scikit-learn, what the report says."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics as sk

from unet_lib.metrics import CaseTable, Evaluation, PixelCounts
from unet_lib.plots import PHANTOM_BANNER, SEEN_BANNER
from unet_lib.report import (
    FIRST_README,
    Interval,
    auc_bound,
    first_readme_auc_bound,
    group_bootstrap,
    implied_prevalence,
    share_interval,
    summarise,
    write_report,
)

# --- intervals ------------------------------------------------------------------------------


def names(count, size=1):
    return np.repeat([f"g{i}" for i in range(count)], size)


def test_images_that_stand_alone_give_the_studentised_bootstrap_by_a_loop():
    values, rng = np.random.default_rng(0).beta(5, 2, 60), np.random.default_rng(2)
    ours = group_bootstrap(values, names(60), draws=20_000, seed=1)
    error = stats.sem(values)
    samples = rng.choice(values, (20_000, 60))
    low, high = np.quantile(
        (samples.mean(1) - values.mean()) / stats.sem(samples, axis=1), [0.025, 0.975]
    )
    assert ours.mean == pytest.approx(values.mean())
    limits = (values.mean() - high * error, values.mean() - low * error)
    assert (ours.low, ours.high) == pytest.approx(limits, abs=0.06 * error)
    assert (ours.n, ours.groups) == (60, 60)


def clustered(rng, groups=40):
    """Give scores of groups of 1 to 4 near-duplicates that resemble each other."""
    sizes = rng.integers(1, 5, groups)
    centre = np.repeat(rng.normal(0.7, 0.15, groups), sizes)
    return centre + rng.normal(0, 0.03, sizes.sum()), np.repeat(names(groups), sizes)


def test_width_is_that_of_the_cluster_robust_error():
    values, groups = clustered(np.random.default_rng(3), groups=300)
    residual = [np.sum(values[groups == g] - values.mean()) for g in np.unique(groups)]
    error = np.sqrt(np.sum(np.square(residual))) / len(values)
    interval = group_bootstrap(values, groups, draws=20_000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.04)
    single = group_bootstrap(values, names(len(values)), draws=20_000)
    assert single.high - single.low < 0.75 * (interval.high - interval.low)


def test_a_copy_of_every_image_adds_no_certainty():
    values = np.random.default_rng(4).random(60)
    once = group_bootstrap(values, names(60))
    twice = group_bootstrap(np.repeat(values, 2), names(60, 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    assert (twice.n, twice.groups) == (120, 60)


def test_it_is_the_mean_over_images_that_is_bootstrapped():
    sizes = np.tile([1, 5], 40)  # large groups score 1, small ones 0
    interval = group_bootstrap(np.repeat(sizes == 5, sizes), np.repeat(names(80), sizes))
    assert interval.mean == pytest.approx(5 / 6)  # the mean over groups would be 1/2
    assert 0.7 < interval.low < 5 / 6 < interval.high < 0.95


def trials(kind, count, groups, seed=5):
    """Give scores of groups of 1 to 4 near-duplicates whose true mean is 0.7, and the groups."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        sizes = rng.choice([1, 1, 1, 1, 2, 2, 3, 4], groups)
        keys, total = np.repeat(names(groups), sizes), sizes.sum()
        if kind == "normal":
            values = rng.normal(0.7, 0.15, groups)[np.repeat(np.arange(groups), sizes)]
            values = values + rng.normal(0, 0.05, total)
        elif kind == "dice":  # 18 % of the groups missed, the others around .854
            values = np.where(rng.random(groups) < 0.18, 0, rng.beta(9, 1.5436, groups))
            values = np.repeat(values, sizes)
        else:  # a share
            values = rng.random(total) < np.repeat(rng.beta(1.4, 0.6, groups), sizes)
        yield values, keys


@pytest.mark.parametrize(
    ("kind", "groups"),
    [("normal", 20), ("normal", 60), ("dice", 20), ("dice", 60), ("share", 10), ("share", 60)],
)
def test_95_percent_of_intervals_hold_the_truth(kind, groups):
    ways = {"share": share_interval}
    way = ways.get(kind, lambda v, g: group_bootstrap(v, g, draws=500))
    intervals = [way(*trial) for trial in trials(kind, 1000, groups)]
    inside = np.mean([i.low <= 0.7 <= i.high for i in intervals])
    assert 0.93 <= inside <= 0.97


def test_ignoring_the_groups_would_hold_the_truth_too_rarely():
    inside = []
    for values, _ in trials("normal", 300, 40):
        interval = group_bootstrap(values, names(len(values)), draws=400)
        inside.append(interval.low <= 0.7 <= interval.high)
    assert np.mean(inside) < 0.9


def test_too_few_groups_give_a_mean_and_no_limits():
    values = np.linspace(0, 1, 190)
    interval = group_bootstrap(values, names(19, 10))
    assert interval.mean == pytest.approx(0.5) and not interval.known
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert (interval.n, interval.groups) == (190, 19)
    assert group_bootstrap(values[:180], names(20, 9)).known
    assert not group_bootstrap(np.full(30, 0.7), names(30)).known  # no spread to go by
    assert not group_bootstrap(np.tile([0.2, 0.4], 30), names(30, 2)).known
    few = share_interval(np.arange(18) % 2 == 0, names(9, 2))
    assert (few.mean, few.n, few.groups, few.known) == (0.5, 18, 9, False)
    assert share_interval(np.arange(20) % 2 == 0, names(10, 2)).known
    nothing = group_bootstrap([], np.array([], dtype=str))
    assert math.isnan(nothing.mean) and (nothing.n, nothing.groups) == (0, 0)


def test_the_seed_decides_and_the_level_widens():
    values, groups = clustered(np.random.default_rng(6))
    first = group_bootstrap(values, groups, seed=1)
    assert first == group_bootstrap(values, groups, seed=1)
    assert first != group_bootstrap(values, groups, seed=2)
    wide = group_bootstrap(values, groups, seed=1, level=0.99)
    assert wide.low < first.low < first.high < wide.high


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="one group for each value"):
        group_bootstrap([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="nan or infinite"):
        group_bootstrap([1.0, np.nan], ["a", "b"])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        group_bootstrap([1.0], ["a"], level=95)


@pytest.mark.parametrize("hit", [0, 1])
@pytest.mark.parametrize("groups", [3, 27])
def test_a_share_of_all_or_none_has_the_exact_interval(hit, groups):
    interval = share_interval(np.full(2 * groups, bool(hit)), names(groups, 2))
    reference = stats.binomtest(hit * groups, groups).proportion_ci(0.95, method="exact")
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high))
    assert (interval.mean, interval.n, interval.groups) == (hit, 2 * groups, groups)


def test_a_share_of_images_that_stand_alone_is_nearly_wilsons_interval():
    hits = np.arange(400) % 8 == 0
    interval = share_interval(hits, names(400))
    reference = stats.binomtest(50, 400).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == pytest.approx(tuple(reference), abs=1e-3)
    assert share_interval(hits, names(400), level=0.5).low > interval.low


def test_copies_of_images_do_not_narrow_the_interval_of_a_share():
    hits = np.arange(60) % 3 == 0
    once, twice = share_interval(hits, names(60)), share_interval(np.repeat(hits, 2), names(60, 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=2e-3)
    assert 0 < once.low < 1 / 3 < once.high < 1


# --- the first README -----------------------------------------------------------------------


def test_no_roc_curve_beats_the_bound_through_any_of_its_points():
    rng = np.random.default_rng(7)
    for _ in range(60):
        truth = rng.random(200) < rng.uniform(0.1, 0.6)
        truth[:2] = True, False
        scores = np.round(rng.normal(truth * rng.uniform(0, 4), 1), rng.integers(0, 3))
        fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
        area = sk.roc_auc_score(truth, scores)
        assert all(area <= auc_bound(x, y) + 1e-12 for x, y in zip(fpr, tpr, strict=True))


def test_the_bound_is_reached():
    for x, y in [(0.1, 0.8), (0.5, 0.2), (0.0, 0.3), (1.0, 1.0)]:
        assert sk.auc([0, 0, x, x, 1], [0, y, y, 1, 1]) == pytest.approx(auc_bound(x, y))
    with pytest.raises(ValueError, match="a rate must lie"):
        auc_bound(0.1, 1.2)


def test_prevalence_follows_from_three_scores_of_real_counts():
    rng = np.random.default_rng(8)
    for _ in range(300):
        counts = PixelCounts(*rng.integers(1, 10_000, 4).tolist())
        implied = implied_prevalence(counts.precision, counts.recall, counts.mean_iou)
        assert implied == pytest.approx(counts.prevalence)
    with pytest.raises(ValueError, match="contradict each other"):
        implied_prevalence(0.9, 0.9, 0.3)


def test_the_auc_of_the_first_readme_is_impossible():
    assert FIRST_README == {
        **{"mean_iou": 0.833, "precision": 0.871, "recall": 0.767, "f1": 0.815, "auc": 0.999}
    }
    bound = first_readme_auc_bound()
    assert f"{bound:.4f}" == "0.9984"
    assert bound < 0.9985  # the smallest area that rounds to .999
    # brute force: real counts of a million pixels that round to the published scores
    rounded = {"precision": 0.871, "recall": 0.767, "mean_iou": 0.833}
    rng, found = np.random.default_rng(9), []
    for _ in range(4_000):
        lesion = int(rng.integers(50_000, 75_000))
        tp = round(lesion * rng.uniform(0.7665, 0.7675))
        fp = round(tp * (1 / rng.uniform(0.8705, 0.8715) - 1))
        counts = PixelCounts(tp, fp, lesion - tp, 1_000_000 - lesion - fp)
        if all(round(getattr(counts, name), 3) == value for name, value in rounded.items()):
            found.append(1 - counts.false_positive_rate * (1 - counts.recall))
    assert len(found) > 500 and max(found) <= bound + 1e-6
    assert min(found) > 0.998 and max(found) > bound - 5e-5  # no slack in the bound either


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


@pytest.mark.parametrize("row", range(3))
def test_per_image_scores_are_those_of_scikit_learn(row):
    summary = SUMMARY.per_image[row]
    label = (None, "benign", "malignant")[row]
    assert summary.label == (label or "lesion images")
    precision = {"precision": lambda t, p: sk.precision_score(t, p, zero_division=0)}
    others = {"dice": sk.f1_score, "iou": sk.jaccard_score, "recall": sk.recall_score}
    for name, score in {**others, **precision}.items():
        values, groups = lesion_scores(score, label)
        assert summary.images == len(values) == (16 if label else 32)
        assert summary.means[name].mean == pytest.approx(np.mean(values))
        assert summary.medians[name] == pytest.approx(np.median(values))
        expected = group_bootstrap(values, groups, seed=0)
        assert (summary.means[name].low, summary.means[name].high) == pytest.approx(
            (expected.low, expected.high), nan_ok=True
        )
        assert expected.known == (label is None)  # 16 groups of one class are too few
    assert summary.missed == (1 if label else 2)


def test_pooled_scores_are_those_of_scikit_learn():
    rows = {row.label: row for row in SUMMARY.pooled}
    assert list(rows) == ["all images", "lesion images", "benign", "malignant"]
    for label, row in rows.items():
        classes = {"all images": ["benign", "malignant", "normal"]}.get(label, [label])
        classes = ["benign", "malignant"] if label == "lesion images" else classes
        chosen = [image for image in make_images() if image[1] in classes]
        t, p = (np.concatenate([i[k].ravel() for i in chosen]) for k in (3, 4))
        assert row.images == len(chosen)
        assert row.counts.precision == pytest.approx(sk.precision_score(t, p >= 0.5))
        assert row.counts.recall == pytest.approx(sk.recall_score(t, p >= 0.5))
        expected = sk.jaccard_score(t, p >= 0.5, average="macro")
        assert row.counts.mean_iou == pytest.approx(expected)
        assert row.auc == pytest.approx(sk.roc_auc_score(t, p), abs=1e-5)
        assert row.average_precision == pytest.approx(sk.average_precision_score(t, p), abs=1e-4)
        assert row.brier == pytest.approx(sk.brier_score_loss(t, p), abs=1e-6)


@pytest.mark.parametrize("row", range(3))
def test_contours_components_and_calibration_are_those_of_the_table(row):
    summary, table = SUMMARY.per_image[row], make_evaluation().table.lesion_cases
    if row:
        table = table.subset(labels=[summary.label])
    groups = [case.group for case in table]
    for name in ("surface_dice", "hd95", "area_error", "absolute_area_error", "ece", "band_brier"):
        values = [getattr(case, name) for case in table]
        assert summary.means[name] == group_bootstrap(values, groups)
        assert summary.medians[name] == pytest.approx(np.median(values))
        expected = np.quantile(values, [0.05, 0.25, 0.75, 0.95])
        assert summary.quantiles[name] == pytest.approx(tuple(expected))
    hits = [not case.missed for case in table]
    assert summary.detected == share_interval(hits, groups)
    found = sum(case.components_found for case in table)
    assert summary.components_found.n == sum(case.components for case in table)
    assert summary.components_found.mean == pytest.approx(found / summary.components_found.n)
    assert summary.components_found.groups == len(set(groups))
    false = [case.false_components for case in table]
    assert summary.false_components == group_bootstrap(false, groups)


def test_scores_not_known_of_every_image_have_no_mean():
    evaluation = make_evaluation()
    known = evaluation.table.cases
    unknown = replace(known[0], hd95=math.nan, brier=math.nan, components=math.nan)
    evaluation.table = CaseTable((unknown, *known[1:]))
    row = summarise(evaluation).per_image[0]
    for interval in (row.means["hd95"], row.means["brier"], row.components_found):
        assert math.isnan(interval.mean) and not interval.known
    assert row.means["ece"] == SUMMARY.per_image[0].means["ece"]
    assert math.isnan(row.medians["hd95"]) and np.isnan(row.quantiles["hd95"]).all()
    text = summarise(evaluation).to_markdown()
    assert not re.search(r"\bnan\b", text) and "| - (-) |" in text


def test_normals_give_specificity_and_area_by_hand():
    normals = [p >= 0.5 for _, label, _, _, p in make_images() if label == "normal"]
    empty = [not mask.any() for mask in normals]
    found = SUMMARY.normals
    assert (found.images, found.left_empty) == (16, sum(empty)) and 0 < sum(empty) < 16
    assert found.specificity.mean == pytest.approx(np.mean(empty))
    assert found.specificity.low < found.specificity.mean < found.specificity.high
    false = [case.false_components for case in make_evaluation().table.normal_cases]
    assert found.false_components.mean == pytest.approx(np.mean(false)) and max(false) > 1
    area = np.mean([mask.mean() for mask in normals])
    assert found.false_positive_area.mean == pytest.approx(area)
    assert SUMMARY.missed == ("benign (3)", "malignant (4)")
    assert (SUMMARY.images, SUMMARY.groups) == (48, 24)


def test_images_without_a_group_stand_alone():
    images = [(name, label, "", t, p) for name, label, _, t, p in make_images()]
    summary = summarise(make_evaluation(images=images))
    assert summary.groups == 48 and summary.per_image[0].means["dice"].groups == 32


def test_summary_is_strict_json():
    few = summarise(make_evaluation(images=list(make_images(5))))
    text = json.dumps(few.to_dict(), allow_nan=False)
    plain = json.loads(text)
    assert plain["per_image"][0]["means"]["dice"]["low"] is None  # too few groups
    row = json.loads(json.dumps(SUMMARY.to_dict(), allow_nan=False))["pooled"][0]
    assert row["scores"]["f1"] == SUMMARY.pooled[0].counts.f1
    assert row["counts"]["tp"] == SUMMARY.pooled[0].counts.tp
    assert plain["about"]["model"] == "unet-a"


def test_nothing_cannot_be_summarised(tmp_path):
    with pytest.raises(ValueError, match="no image"):
        summarise(Evaluation())
    with pytest.raises(ValueError, match="no image"):
        write_report(Evaluation(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Markdown -------------------------------------------------------------------------------


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
    text = SUMMARY.to_markdown()
    kinds = []
    sections = re.split(r"\n## ", text)[1:]
    for section in sections:
        title = section.splitlines()[0]
        for table in tables(section):
            pooled = "pooled" in (title + table[0][0]).lower()
            per_image = "per image" in (title + table[0][0]).lower()
            assert pooled != per_image, title
            kinds.append("pooled" if pooled else "per image")
    assert kinds == ["per image"] * 6 + ["pooled"] * 3


def test_the_numbers_in_the_tables():
    text = SUMMARY.to_markdown()
    means, medians, contours, _, misses, normals, pooled, calibration, beside = tables(text)
    assert means[0] == ["mean (95 % interval)", "images", "groups", "Dice", "IoU", "precision",
                        "recall"]  # fmt: skip
    dice = SUMMARY.per_image[0].means["dice"]
    first = f"{dice.mean:.3f} ({dice.low:.3f} to {dice.high:.3f})"
    assert means[2][:4] == ["lesion images", "32", "24", first]
    benign = SUMMARY.per_image[1]
    low, high = benign.quantiles["dice"][1:3]
    median = f"{benign.medians['dice']:.3f} ({low:.3f} to {high:.3f})"
    assert medians[3][:3] == ["benign", "16", median]
    assert contours[0][3:5] == ["surface Dice", "HD95"]
    assert contours[2][4].startswith(f"{SUMMARY.per_image[0].means['hd95'].mean:.1f} (")
    assert "Distances in px" in text and "within 5 px of each other" in text
    assert misses[2][:4] == ["lesion images", "32", "2", "6.2%"]
    assert misses[2][5] == str(SUMMARY.per_image[0].components_found.n)
    row = SUMMARY.pooled[1]
    assert calibration[3] == ["lesion images", "32", *(f"{value:.4f}" for value in (
        row.brier, row.ece, row.band_brier, row.band_ece))]  # fmt: skip
    assert "No true pixel predicted: benign (3), malignant (4)." in text
    area = SUMMARY.normals.false_positive_area
    assert normals[2][5].startswith(f"{100 * area.mean:.2f} (") and "# Evaluation: unet-a" in text
    assert summarise(Evaluation(make_evaluation().table)).to_markdown().startswith("# Evaluation\n")
    assert normals[2][1] == "16" and normals[2][3] == str(SUMMARY.normals.left_empty)
    counts = SUMMARY.pooled[0].counts
    assert pooled[2][:5] == ["all images", "48", f"{counts.n:,}", f"{counts.prevalence:.3f}",
                             f"{counts.precision:.3f}"]  # fmt: skip
    assert [row[:2] for row in beside[2:]] == [
        ["Mean IoU", "0.833"], ["precision", "0.871"], ["recall", "0.767"], ["F1", "0.815"],
        ["ROC AUC", "0.999 (1)"],
    ]  # fmt: skip
    assert beside[0][2:] == ["this run: all images (48)", "this run: lesion images (32)"]
    assert beside[2][2] == f"{counts.mean_iou:.3f}"
    assert "at most 0.9984" in text and "- fold: 0" in text


def test_phantoms_and_training_images_are_announced_before_any_number():
    about = {"model": "m", "data_kind": "phantoms", "seen_in_training": True}
    text = summarise(make_evaluation(about)).to_markdown()
    assert text.index(PHANTOM_BANNER) < text.index("|") and text.count(PHANTOM_BANNER) == 2
    assert text.index(SEEN_BANNER) < text.index("|")
    assert "phantoms: all images (48)" in text and "this run:" not in text
    clean = SUMMARY.to_markdown()
    assert "PHANTOM" not in clean and "TRAINING IMAGES" not in clean


def test_unknown_is_a_dash_and_never_a_number():
    truth = np.zeros((6, 6), bool)
    truth[2:4, 2:4] = True
    lesion, normal = Evaluation(), Evaluation()
    lesion.add(truth, np.zeros_like(truth), name="a|b", label="benign")
    normal.add(np.zeros_like(truth), np.zeros_like(truth), name="n", label="normal")
    text = summarise(lesion).to_markdown()
    assert "nan" not in text and "specificity is not known" in text
    means, _, _, _, misses, pooled, _ = tables(text)
    assert "The probabilities are not known." in text
    assert means[2][3] == "0.000 (-)" and misses[2][2] == "1"
    row = dict(zip(pooled[0], pooled[2], strict=True))
    assert row["precision"] == "-" and row["recall"] == "0.000" and row["ROC AUC"] == "-"
    assert r"a\|b" in text
    text = summarise(normal).to_markdown()
    assert "nan" not in text and "No image has a lesion" in text
    table = tables(text)[0]
    assert table[2][4] == "1.000 (0.025 to 1.000)"  # one image, left empty: nearly no knowledge
    row = dict(zip(tables(text)[1][0], tables(text)[1][2], strict=True))
    assert row["recall"] == row["F1"] == row["Mean IoU"] == "-"
    assert row["pixel accuracy"] == "1.000"


def test_settings_are_listed_as_words():
    about = {"model": "m", "cleaning": {"area": 0.1, "on": True}, "more": [1, 2], "seed": None}
    text = summarise(make_evaluation(about)).to_markdown(level=3)
    assert text.startswith("### Evaluation: m\n") and "\n#### Pooled pixels\n" in text
    assert "- cleaning: area 0.1, on yes\n- more: 1, 2\n- seed: not known\n" in text


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
    assert report == tmp_path / "scores" / "report.md"
    assert sorted(path.name for path in folder.iterdir()) == [
        "about.json", "calibration.png", "cases.csv", "confusion_matrix.png", "dice_by_size.png",
        "histograms.npz", "precision_recall.png", "report.html", "report.md", "roc.png",
        "summary.json",
    ]  # fmt: skip
    text = report.read_text(encoding="utf-8")
    assert text.startswith(SUMMARY.to_markdown())
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) == 7 and all((folder / link).is_file() for link in links)
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            picture.verify()
    assert CaseTable.read_csv(folder / "cases.csv") == evaluation.table
    assert json.loads((folder / "summary.json").read_text())["images"] == 48
    before = {
        p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".md", ".json", ".html")
    }
    write_report(Evaluation.load(folder), folder)  # from its own files: the same report
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.name in before}


def test_report_of_masks_alone_has_no_curves(tmp_path):
    evaluation = Evaluation(provenance={"model": "someone else's"})
    for name, label, group, truth, p in make_images(12):
        evaluation.add(truth, p >= 0.5, name=name, label=label, group=group)
    report = write_report(evaluation, tmp_path)
    assert not (tmp_path / "roc.png").exists()
    assert "(roc.png)" not in report.read_text() and "confusion_matrix.png" in report.read_text()


def test_an_interval_knows_whether_it_has_limits():
    assert Interval(0.5, 0.4, 0.6, 20, 20).known
    assert not Interval(0.5, math.nan, math.nan, 3, 3).known

"""Scores against scikit-learn, SciPy and hand counts; empty masks; files; bounded memory."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import dice as scipy_dice_distance
from scipy.special import expit
from sklearn import metrics as sk

from unet_lib.metrics import (
    BIN_EDGES,
    CaseScore,
    CaseTable,
    Evaluation,
    PixelCounts,
    ProbabilityHistogram,
    count_pixels,
    score_case,
)
from unet_lib.report import summarise


def mask_pairs(count=560, seed=3):
    """Give mask pairs: random shares, the four empty combinations, full masks, one pixel."""
    rng = np.random.default_rng(seed)
    fixed = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0.4), (0.4, 0), (1, 0.4), (0.4, 1)]
    shares = fixed + [tuple(rng.random(2) ** 2) for _ in range(count - len(fixed) - 40)]
    for truth_share, prediction_share in shares:
        shape = tuple(rng.integers(1, 24, 2))
        yield rng.random(shape) < truth_share, rng.random(shape) < prediction_share
    for _ in range(20):  # one lesion pixel, hit or not, and one predicted pixel
        truth = np.zeros((7, 9), bool)
        truth[rng.integers(7), rng.integers(9)] = True
        yield truth, rng.random((7, 9)) < rng.choice([0, 0.3, 1])
        yield rng.random((7, 9)) < rng.choice([0, 0.3, 1]), truth


PAIRS = list(mask_pairs())


def same(ours, reference):
    return ours == pytest.approx(float(reference), abs=1e-12, nan_ok=True)


def test_the_pairs_hold_every_corner_case():
    corners = {(bool(t.any()), bool(p.any())) for t, p in PAIRS}
    assert len(PAIRS) >= 500
    assert corners == {(False, False), (False, True), (True, False), (True, True)}
    assert any(t.all() and p.all() for t, p in PAIRS)
    assert sum(t.sum() == 1 for t, _ in PAIRS) >= 20


def test_counts_equal_scikit_learn_confusion_matrix():
    for truth, prediction in PAIRS:
        counts = count_pixels(truth, prediction)
        matrix = sk.confusion_matrix(truth.ravel(), prediction.ravel(), labels=[False, True])
        assert [[counts.tn, counts.fp], [counts.fn, counts.tp]] == matrix.tolist()


def test_pooled_scores_equal_scikit_learn_with_zero_division_nan():
    for truth, prediction in PAIRS:
        t, p = truth.ravel().astype(int), prediction.ravel().astype(int)
        counts = count_pixels(truth, prediction)
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            t, p, labels=[0, 1], zero_division=np.nan
        )
        assert same(counts.precision, precision[1])
        assert same(counts.recall, recall[1])
        assert same(counts.pixel_specificity, recall[0])
        assert same(counts.false_positive_rate, 1 - recall[0])
        assert same(counts.accuracy, np.mean(t == p))
        assert same(counts.prevalence, t.mean())
        if not (t.any() or p.any()):
            assert math.isnan(counts.f1) and math.isnan(counts.iou) and math.isnan(counts.mean_iou)
            continue
        assert same(counts.f1, f1[1])
        assert same(counts.dice, 1 - scipy_dice_distance(t == 1, p == 1))
        iou = sk.jaccard_score(t, p, labels=[0, 1], average=None, zero_division=0)
        assert same(counts.iou, iou[1])
        if not (t.all() and p.all()):  # else the IoU of the background is 0/0
            assert same(counts.background_iou, iou[0])
            assert same(counts.mean_iou, iou.mean())  # the first README's "Mean IoU"


def test_per_image_scores_equal_scikit_learn_with_zero_division_zero():
    lesion = [(t, p) for t, p in PAIRS if t.any()]
    assert len(lesion) > 400
    for truth, prediction in lesion:
        t, p = truth.ravel(), prediction.ravel()
        score = score_case(truth, prediction, name="x")
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            t, p, average="binary", zero_division=0
        )
        assert same(score.dice, f1) and same(score.precision, precision)
        assert same(score.recall, recall) and same(score.iou, sk.jaccard_score(t, p))
        assert score.missed == (not (t & p).any())
        assert math.isnan(score.left_empty)


def test_an_image_without_lesion_has_no_overlap_scores():
    normal = [(t, p) for t, p in PAIRS if not t.any()]
    assert len(normal) >= 3
    for truth, prediction in normal:
        score = score_case(truth, prediction, name="x")
        assert all(math.isnan(v) for v in (score.dice, score.iou, score.precision, score.recall))
        assert score.left_empty == float(not prediction.any())
        assert same(score.false_positive_area, prediction.mean())
        assert not score.missed and not score.has_lesion


def test_a_missed_lesion_scores_zero_and_not_a_half():
    truth = np.zeros((10, 10), bool)
    truth[2, 3] = True
    nothing, elsewhere = np.zeros_like(truth), np.zeros_like(truth)
    elsewhere[8, 8] = True
    for prediction in (nothing, elsewhere):
        score = score_case(truth, prediction, name="x")
        assert (score.dice, score.iou, score.precision, score.recall) == (0, 0, 0, 0)
        assert score.missed
    assert math.isnan(count_pixels(truth, nothing).precision)  # pooled: 0/0
    assert count_pixels(truth, nothing).accuracy == 0.99


def test_counts_add_up_and_never_overflow():
    left, right = PixelCounts(np.uint8(200), 1, 2, 3), PixelCounts(np.uint8(100), 10, 20, 30)
    assert left + right == PixelCounts(300, 11, 22, 33)
    huge = PixelCounts(2**62, 2**62, 2**62, 2**62)
    assert (huge + huge).n == 2**65 and huge.dice == 0.5
    assert math.isnan(PixelCounts().accuracy) and math.isnan(PixelCounts().prevalence)
    with pytest.raises(ValueError, match="fp must be 0 or more"):
        PixelCounts(1, -1, 0, 0)
    with pytest.raises(TypeError):
        PixelCounts(1.5, 0, 0, 0)
    with pytest.raises(TypeError):
        left + 3


def test_bad_masks_are_refused_with_the_reason():
    good = np.zeros((4, 5), bool)
    with pytest.raises(ValueError, match=r"scan 7: the predicted mask must be a bool.*uint8"):
        score_case(good, good.astype(np.uint8), name="scan 7")
    with pytest.raises(ValueError, match="the true mask must be a bool mask, got dtype float32"):
        score_case(np.full((4, 5), np.nan, np.float32), good, name="x")
    with pytest.raises(ValueError, match=r"\(4, 5\).*but the predicted mask is \(5, 4\)"):
        score_case(good, good.T, name="x")
    with pytest.raises(ValueError, match=r"shape \(H, W\)"):
        score_case(good[..., None], good[..., None], name="x")
    with pytest.raises(ValueError, match=r"shape \(H, W\)"):
        score_case(good[:0], good[:0], name="x")


def test_a_score_card_must_add_up():
    with pytest.raises(ValueError, match="benign.*5 pixels, but the image has 2 x 3 = 6"):
        CaseScore("benign (1)", "benign", "", 2, 3, 1, 1, 1, 2)
    with pytest.raises(ValueError, match="fn must be 0 or more"):
        CaseScore("x", "", "", 1, 2, 1, 1, -1, 1)
    with pytest.raises(ValueError, match="line breaks"):
        CaseScore("a\rb", "", "", 1, 1, 1, 0, 0, 0)


# --- tables ---------------------------------------------------------------------------------

counts_strategy = st.tuples(*[st.integers(0, 2**40)] * 4).filter(any)
text = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=12)
case_strategy = st.builds(
    lambda name, label, group, c, found, m: CaseScore(
        name, label, group, 1, sum(c), *c, *found, *m, math.nan, math.nan
    ),
    text, text, text, counts_strategy,
    st.tuples(*[st.integers(0, 2**40) | st.just(math.nan)] * 4),
    st.tuples(*[st.floats(0, high, allow_infinity=False) | st.just(math.nan)
                for high in (None, None, 1, 1, 1, 1, 1)]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(case_strategy, max_size=8, unique_by=lambda case: case.name))
def test_csv_round_trip_is_exact(tmp_path_factory, cases):
    path = tmp_path_factory.mktemp("table") / "cases.csv"
    table = CaseTable(cases)
    assert CaseTable.read_csv(table.to_csv(path)) == table


def small_table():
    return CaseTable(
        (
            CaseScore("benign (2)", "benign", "g1", 2, 10, 4, 2, 2, 12, 2, 1, 3, 2, 1.25),
            CaseScore("malignant (1)", "malignant", "g2", 2, 10, 0, 0, 5, 15),
            CaseScore("normal (1)", "normal", "g3", 2, 10, 0, 5, 0, 15),
            CaseScore("benign (1)", "benign", "g1", 2, 10, 4, 2, 2, 12),
            CaseScore("normal (2)", "normal", "g4", 2, 10, 0, 0, 0, 20),
        )
    )


def test_csv_is_readable_and_its_scores_are_by_hand(tmp_path):
    lines = small_table().to_csv(tmp_path / "new" / "cases.csv").read_text().splitlines()
    assert lines[0].split(",") == [
        *("name", "label", "group", "height", "width", "tp", "fp", "fn", "tn"),
        *("dice", "iou", "precision", "recall", "left_empty", "false_positive_area"),
        *("area_error", "absolute_area_error", "components", "components_found"),
        *("predicted_components", "false_components", "hd95", "mean_surface_distance"),
        *("surface_dice", "brier", "ece", "band_brier", "band_ece"),
        *("pixel_height_mm", "pixel_width_mm"),
    ]
    scores = "0.6667,0.5000,0.6667,0.6667,,0.1000,0.0000,0.0000"
    assert lines[1] == f"benign (2),benign,g1,2,10,4,2,2,12,{scores},2,1,3,2,1.25{',' * 8}"
    assert lines[2].endswith(",0.0000,0.0000,0.0000,0.0000,,0.0000,-1.0000,1.0000" + "," * 13)
    assert lines[3].endswith(",0,5,0,15,,,,,0.0000,0.2500,," + "," * 13)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cases.csv"]


def test_a_csv_with_a_file_name_that_is_not_utf8_round_trips(tmp_path):
    table = CaseTable((CaseScore("ni\udcf1o", "", "", 1, 1, 1, 0, 0, 0),))
    assert CaseTable.read_csv(table.to_csv(tmp_path / "t.csv")) == table


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,b,g,1,2,1,1,1,1", r"line 2: a: tp \+ fp \+ fn \+ tn is 4 .* 1 x 2"),
        ("a,b,g,1,2,1,one,0,0", "line 2: .*one"),
        ("a,b,g,1,2,1,1", "line 2: "),
        ("a,b,g,1,2,1,1,0,0,9", "line 2: there are more cells"),
        ("a,b,g,1,2,1,1,0,0\na,b,g,1,2,1,1,0,0", "a is in the table twice"),
    ],
)
def test_a_broken_csv_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "broken.csv"
    path.write_text(f"name,label,group,height,width,tp,fp,fn,tn\n{line}\n")
    with pytest.raises(ValueError, match=message):
        CaseTable.read_csv(path)


@pytest.mark.parametrize(
    "header", ["", "name,label", "name,label,group,height,width,tp,fp,fn,tn,x"]
)
def test_a_csv_with_other_columns_is_refused(tmp_path, header):
    path = tmp_path / "other.csv"
    path.write_text(header + "\n")
    with pytest.raises(ValueError, match="other.csv: expected the columns name, label"):
        CaseTable.read_csv(path)


def test_table_subsets_columns_and_order():
    table = small_table()
    assert len(table) == 5 and table[0].name == "benign (2)"
    assert table.labels == ("benign", "malignant", "normal")
    assert [c.name for c in table.lesion_cases] == ["benign (2)", "malignant (1)", "benign (1)"]
    assert {c.name for c in table.normal_cases} == {"normal (1)", "normal (2)"}
    assert len(table.subset(lambda c: c.missed, labels=["malignant", "normal"])) == 1
    assert table.pooled() == PixelCounts(8, 9, 9, 74)
    assert np.array_equal(table.column("dice"), [2 / 3, 0, math.nan, 2 / 3, math.nan], True)
    assert table.column("left_empty")[2:].tolist()[0] == 0 and table.column("tp").dtype == np.int64
    assert table.column("missed").tolist() == [False, True, False, False, False]
    benign, normal = ["benign (1)", "benign (2)"], ["normal (1)", "normal (2)"]
    worst_first = [c.name for c in table.sorted("dice")]
    assert worst_first == ["malignant (1)", *benign, *normal]
    best_first = [c.name for c in table.sorted("dice", descending=True)]
    assert best_first == [*benign, "malignant (1)", *normal]
    assert table.sorted("name")[0].name == "benign (1)"
    assert np.array_equal(table.column("hd95"), [1.25, *[math.nan] * 4], True)
    with pytest.raises(ValueError, match="no column 'volume'; there are name, label"):
        table.column("volume")


def test_an_empty_table_has_no_scores():
    assert CaseTable().pooled() == PixelCounts()
    assert CaseTable().column("dice").shape == (0,) and CaseTable().labels == ()


# --- histograms -----------------------------------------------------------------------------


def random_maps(kind, seed, shape=(200, 250)):
    """Give truth and probabilities: uniform, as a saturated network, or with few values."""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.1
    noise = rng.normal(size=shape)
    probabilities = {
        "uniform": rng.random(shape),
        "saturated": expit(np.where(truth, 4 + 9 * noise, -14 + 4 * noise)),
        "ties": rng.integers(0, 5, shape) / 4,
        "constant": np.full(shape, 0.3),
        "8 bit": rng.integers(0, 256, shape) / 255,
    }[kind]
    return truth, probabilities.astype(np.float32)


@pytest.mark.parametrize("kind", ["uniform", "saturated", "ties", "constant", "8 bit"])
@pytest.mark.parametrize("seed", range(5))
def test_areas_equal_scikit_learn(kind, seed):
    truth, probabilities = random_maps(kind, seed)
    histogram = ProbabilityHistogram()
    for rows in np.array_split(np.arange(200), 7):  # in pieces, as images come
        histogram.add(truth[rows], probabilities[rows])
    t, p = truth.ravel(), probabilities.ravel()
    # where pixels share a bin without being equal, the average precision feels it most
    few_values = kind not in ("uniform", "saturated")
    auc, average = sk.roc_auc_score(t, p), sk.average_precision_score(t, p)
    assert histogram.auc == pytest.approx(auc, abs=1e-12 if few_values else 1e-6)
    assert histogram.average_precision == pytest.approx(average, abs=1e-12 if few_values else 5e-6)
    assert histogram.calibration.brier == pytest.approx(sk.brier_score_loss(t, p), abs=1e-7)
    assert (histogram.n, histogram.lesion_pixels) == (t.size, t.sum())


def test_equal_bins_would_not_be_fine_enough_for_a_saturated_network():
    truth, probabilities = random_maps("saturated", 0)
    equal_bins = np.floor(probabilities * 65536)
    exact = sk.roc_auc_score(truth.ravel(), probabilities.ravel())
    assert abs(sk.roc_auc_score(truth.ravel(), equal_bins.ravel()) - exact) > 1e-3


@pytest.mark.parametrize("kind", ["ties", "constant", "8 bit"])
def test_curves_equal_scikit_learn_point_by_point(kind):
    truth, probabilities = random_maps(kind, 1)
    histogram = ProbabilityHistogram()
    histogram.add(truth, probabilities)
    t, p = truth.ravel(), probabilities.ravel()
    roc = histogram.roc()
    fpr, tpr, thresholds = sk.roc_curve(t, p, drop_intermediate=False)
    np.testing.assert_allclose(roc.x, fpr, atol=1e-12)
    np.testing.assert_allclose(roc.y, tpr, atol=1e-12)
    np.testing.assert_allclose(roc.thresholds, thresholds, rtol=1 / 2048)
    curve = histogram.precision_recall()
    precision, recall, _ = sk.precision_recall_curve(t, p)
    np.testing.assert_allclose(curve.x, recall[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(curve.y, precision[:-1][::-1], atol=1e-12)


def test_every_curve_point_is_the_confusion_matrix_at_its_threshold():
    truth, probabilities = random_maps("saturated", 2)
    histogram = ProbabilityHistogram()
    histogram.add(truth, probabilities)
    roc, curve = histogram.roc(), histogram.precision_recall()
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(roc.x) >= 0) and np.all(np.diff(roc.thresholds) < 0)
    for i in np.linspace(1, len(roc.x) - 1, 60).astype(int):
        counts = count_pixels(truth, probabilities >= roc.thresholds[i])
        assert (roc.x[i], roc.y[i]) == pytest.approx((counts.false_positive_rate, counts.recall))
        assert (curve.x[i - 1], curve.y[i - 1]) == pytest.approx((counts.recall, counts.precision))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_bins_bracket_every_float32(values):
    from unet_lib.metrics.curves import bin_index

    p = np.sort(np.array([*values, 0.0, -0.0, 1.0, 0.5, 1e-40, 1 - 2**-24], np.float32))
    index = bin_index(p)
    assert np.all(np.diff(index) >= 0)
    edges = BIN_EDGES[index]
    assert np.all(edges <= p)
    assert np.all(bin_index(edges) == index)  # the edge belongs to its bin ...
    below = np.nextafter(edges[edges > 0], np.float32(-1))
    assert np.all(bin_index(below) < index[edges > 0])  # ... and is the smallest there
    distance = np.minimum(p, 1 - p)
    assert np.all(p - edges <= np.maximum(distance / 1024, 1e-40))  # and the bin is narrow


def test_bin_edges_increase_and_bound_the_memory():
    assert np.all(np.diff(BIN_EDGES) >= 0) and len(BIN_EDGES) == 516_097
    histogram = ProbabilityHistogram()
    size = histogram.lesion.nbytes + histogram.background.nbytes
    for _ in range(20):
        histogram.add(*random_maps("uniform", 0))
    assert histogram.lesion.nbytes + histogram.background.nbytes == size < 2**23
    assert histogram.n == 20 * 200 * 250


def test_histograms_merge_and_survive_arrays():
    parts = []
    for seed in range(3):
        parts.append(ProbabilityHistogram())
        parts[-1].add(*random_maps("saturated", seed))
    whole = sum(parts, ProbabilityHistogram())
    maps = [random_maps("saturated", seed) for seed in range(3)]
    t, p = (np.concatenate([m[i].ravel() for m in maps]) for i in (0, 1))
    assert whole.auc == pytest.approx(sk.roc_auc_score(t, p), abs=1e-6)
    copy = ProbabilityHistogram.from_arrays(whole.to_arrays())
    assert (copy.auc, copy.calibration.brier, copy.n) == (
        whole.auc,
        whole.calibration.brier,
        whole.n,
    )
    assert parts[0].n == 200 * 250  # merging changed no part
    with pytest.raises(ValueError, match="516097 bins, got an array of shape"):
        ProbabilityHistogram(lesion=np.zeros(3))
    with pytest.raises(TypeError):
        whole + 1


@pytest.mark.parametrize("share", [0, 1])
def test_areas_of_one_class_alone_are_undefined(share):
    histogram = ProbabilityHistogram()
    assert all(
        math.isnan(v)
        for v in (histogram.auc, histogram.average_precision, histogram.calibration.brier)
    )
    histogram.add(np.full((5, 5), bool(share)), np.full((5, 5), 0.25))
    assert math.isnan(histogram.auc)
    assert math.isnan(histogram.average_precision) == (share == 0)
    assert histogram.calibration.brier == pytest.approx((share - 0.25) ** 2)


def test_bad_probabilities_are_refused_and_leave_no_trace():
    histogram, truth = ProbabilityHistogram(), np.zeros((2, 2), bool)
    cases = [
        ([[0, 0], [0, np.nan]], "1 nan"),
        ([[0, 0], [0, 1.01]], r"\[0, 1\], got 0 to 1.01"),
        ([[0, 0], [-0.1, 1]], r"got -0.1 to 1"),
        ([[0, 0, 0], [0, 0, 0]], r"probability map is \(2, 3\)"),
    ]
    for probabilities, message in cases:
        with pytest.raises(ValueError, match=message):
            histogram.add(truth, np.array(probabilities, dtype=float))
    with pytest.raises(ValueError, match="bool"):
        histogram.add(truth.astype(int), np.zeros((2, 2)))
    assert histogram.n == 0 and histogram.calibration.n == 0


# --- evaluation -----------------------------------------------------------------------------


def small_evaluation():
    evaluation = Evaluation(provenance={"model": "unet", "fold": 0, "threshold": 0.5})
    for seed, (label, empty) in enumerate(
        [("benign", False), ("malignant", False), ("normal", True), ("unknown", True)]
    ):
        truth, probabilities = random_maps("saturated", seed, (30, 40))
        truth &= not empty
        evaluation.add(truth, probabilities >= 0.5, probabilities, name=f"{label} 1", label=label)
    return evaluation


def test_evaluation_survives_its_folder(tmp_path):
    evaluation = small_evaluation()
    again = Evaluation.load(evaluation.save(tmp_path / "run" / "scores"))
    assert again.table == evaluation.table and again.provenance == evaluation.provenance
    assert list(again.histograms) == list(evaluation.histograms)
    for key, histogram in evaluation.histograms.items():
        assert np.array_equal(again.histograms[key].lesion, histogram.lesion)
        assert np.array_equal(again.histograms[key].background, histogram.background)
        assert again.histograms[key].calibration.brier == histogram.calibration.brier
    (tmp_path / "run" / "scores" / "cases.csv").unlink()
    with pytest.raises(FileNotFoundError, match="cases.csv is missing"):
        Evaluation.load(tmp_path / "run" / "scores")


def test_evaluation_keeps_images_without_lesion_apart():
    evaluation = small_evaluation()
    assert set(evaluation.histograms) == {
        *("benign", "malignant", "normal (no lesion)", "unknown (no lesion)")
    }
    assert evaluation.histogram().n == 4 * 1200
    assert evaluation.histogram(lesion_only=True).n == 2 * 1200
    assert evaluation.histogram(label="benign").n == 1200
    assert evaluation.histogram(label="normal").n == evaluation.histogram(label="axilla").n == 0
    assert Evaluation().histogram(lesion_only=True).n == 0


def test_a_normal_image_with_a_lesion_is_a_lesion_image_of_its_class():
    evaluation = Evaluation()
    for name, lesion in (("normal 1", True), ("normal 2", False), ("normal 3", True)):
        truth, probabilities = random_maps("saturated", 3, (30, 40))
        truth &= lesion
        evaluation.add(truth, probabilities >= 0.5, probabilities, name=name, label="normal")
    assert evaluation.histogram(label="normal").n == 2 * 1200
    assert evaluation.histogram(lesion_only=True).n == 2 * 1200
    rows = {row.label: row.images for row in summarise(evaluation).pooled}
    assert rows == {"all images": 3, "lesion images": 2}


def test_folders_of_earlier_versions_hold_images_without_lesion_as_normal(tmp_path):
    old = small_evaluation()
    old.histograms = {key.removesuffix(" (no lesion)"): h for key, h in old.histograms.items()}
    again = Evaluation.load(old.save(tmp_path))
    assert "normal" in again.histograms and again.histogram(label="normal").n == 0
    assert again.histogram(lesion_only=True).n == 2 * 1200 and again.histogram().n == 4 * 1200


def test_adding_images_takes_time_in_proportion():
    card = CaseScore("x", "benign", "", 2, 10, 4, 2, 2, 12)
    seconds = []
    for count in (2_000, 32_000):
        cases = [replace(card, name=str(i)) for i in range(count)]
        table, start = CaseTable(), perf_counter()
        for case in cases:
            table.add(case)
        seconds.append(perf_counter() - start)
    assert seconds[1] < 64 * seconds[0]  # 16 times as many; the square would be 256


def test_evaluation_refuses_what_does_not_belong():
    evaluation = small_evaluation()
    truth, probabilities = random_maps("uniform", 9, (30, 40))
    for kwargs, values, message in [
        ({"name": "benign 1"}, probabilities, "benign 1 is in the table twice"),
        ({"name": "new", "label": "benign"}, probabilities * 2, "new: probabilities must lie"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluation.add(truth, truth, values, **kwargs)
    assert len(evaluation.table) == 4 and evaluation.histogram().n == 4 * 1200
    evaluation.add(truth, truth, name="mask only", label="benign")
    with pytest.raises(ValueError, match="histograms hold 4800 pixels"):
        evaluation.histogram()


def test_about_must_be_json_and_nothing_is_written_otherwise(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Evaluation(provenance={"score": math.nan}).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert Evaluation(provenance={"a": [1]}).save(tmp_path / "out") == tmp_path / "out"
    assert json.loads((tmp_path / "out" / "about.json").read_text()) == {"a": [1]}


def test_importing_metrics_loads_nothing_heavy():
    code = "import sys, unet_lib.metrics; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"tensorflow", "keras", "jax", "torch", "matplotlib", "sklearn", "cv2", "PIL", "scipy"}
    assert "unet_lib.metrics" in loaded and "numpy" in loaded
    assert not heavy & {name.split(".")[0] for name in loaded}

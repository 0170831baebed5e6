"""Curves and calibration against scikit-learn; evaluations, their folders, several folds."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn import metrics as sk

from unet_lib.metrics import (
    BAND_PX,
    Evaluation,
    ProbabilityHistogram,
    join_tables,
    merge_evaluations,
)
from unet_lib.metrics.curves import BIN_EDGES, bin_index
from unet_lib.metrics.scores import contour, contour_band
from unet_lib.report import summarise


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


def of(*maps):
    return sum((ProbabilityHistogram.of(*pair) for pair in maps), ProbabilityHistogram())


@pytest.mark.parametrize("kind", ["uniform", "saturated", "ties", "constant", "8 bit"])
def test_areas_equal_scikit_learn(kind):
    truth, probabilities = random_maps(kind, 0)
    histogram = ProbabilityHistogram()
    for rows in np.array_split(np.arange(200), 7):  # in pieces, as images come
        histogram += ProbabilityHistogram.of(truth[rows], probabilities[rows])
    t, p = truth.ravel(), probabilities.ravel()
    # where pixels share a bin without being equal, the average precision feels it most
    few_values = kind not in ("uniform", "saturated")
    auc, average = sk.roc_auc_score(t, p), sk.average_precision_score(t, p)
    assert histogram.auc == pytest.approx(auc, abs=1e-12 if few_values else 1e-6)
    assert histogram.average_precision == pytest.approx(average, abs=1e-12 if few_values else 5e-6)
    assert histogram.calibration.brier == pytest.approx(sk.brier_score_loss(t, p), abs=1e-7)
    assert (histogram.n, histogram.lesion_pixels) == (t.size, t.sum())


@pytest.mark.parametrize("kind", ["ties", "constant", "8 bit"])
def test_curves_equal_scikit_learn_point_by_point(kind):
    truth, probabilities = random_maps(kind, 1)
    t, p, histogram = truth.ravel(), probabilities.ravel(), of((truth, probabilities))
    roc, curve = histogram.roc(), histogram.precision_recall()
    fpr, tpr, thresholds = sk.roc_curve(t, p, drop_intermediate=False)
    np.testing.assert_allclose([roc.x, roc.y], [fpr, tpr], atol=1e-12)
    np.testing.assert_allclose(roc.thresholds, thresholds, rtol=1 / 2048)
    precision, recall, _ = sk.precision_recall_curve(t, p)
    np.testing.assert_allclose(curve.x, recall[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(curve.y, precision[:-1][::-1], atol=1e-12)


def test_a_bin_begins_at_its_threshold_and_is_narrow():
    """So that a point of a curve is the confusion matrix at its threshold."""
    p = np.random.default_rng(0).random(9999).astype(np.float32)
    p = np.sort(np.concatenate([p, p**9, 1 - p**9, np.float32([0, -0.0, 1, 0.5, 1e-40])]))
    index = bin_index(p)
    edges = BIN_EDGES[index]
    assert np.all(np.diff(index) >= 0) and np.all(edges <= p) and np.all(bin_index(edges) == index)
    below = np.nextafter(edges[edges > 0], np.float32(-1))
    assert np.all(bin_index(below) < index[edges > 0])
    assert np.all(p - edges <= np.maximum(np.minimum(p, 1 - p) / 1024, 1e-40))


def test_histograms_merge_in_bounded_memory():
    assert np.all(np.diff(BIN_EDGES) >= 0) and len(BIN_EDGES) == 516_097
    maps = [random_maps("saturated", seed) for seed in range(3)]
    parts = [of(pair) for pair in maps]
    whole = sum(parts, ProbabilityHistogram())
    assert whole.lesion.nbytes + whole.background.nbytes < 2**23
    t, p = (np.concatenate([m[i].ravel() for m in maps]) for i in (0, 1))
    assert whole.auc == pytest.approx(sk.roc_auc_score(t, p), abs=1e-6)
    copy = ProbabilityHistogram(**whole.to_arrays())
    assert (copy.auc, copy.calibration.brier) == (whole.auc, whole.calibration.brier)
    copy += ProbabilityHistogram.of(*maps[0])
    assert whole.n == t.size and parts[0].n == 200 * 250  # merging and copying change no part
    assert whole.calibration.n == t.size
    with pytest.raises(ValueError, match="516097 bins, got an array of shape"):
        ProbabilityHistogram(lesion=np.zeros(3))
    with pytest.raises(ValueError, match="a calibration has 4 sums of 15 bins"):
        ProbabilityHistogram(calibration=np.zeros((4, 3)))


@pytest.mark.parametrize("share", [0, 1])
def test_areas_of_one_class_alone_are_undefined(share):
    nothing = ProbabilityHistogram()
    assert all(map(math.isnan, (nothing.auc, nothing.average_precision, nothing.band.ece)))
    histogram = of((np.full((5, 5), bool(share)), np.full((5, 5), 0.25)))
    assert math.isnan(histogram.auc)
    assert math.isnan(histogram.average_precision) == (share == 0)
    assert histogram.calibration.brier == pytest.approx((share - 0.25) ** 2)


# --- calibration ----------------------------------------------------------------------------


def maps(seed, shape=(70, 90)):
    """Give a truth with a lesion at the edge and probabilities, some exactly at bin limits."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: shape[0], : shape[1]]
    truth = (y - 5) ** 2 + (x - 50) ** 2 < 200
    probabilities = rng.beta(0.3, 0.5, shape)
    probabilities[::3] = rng.integers(0, 16, probabilities[::3].shape) / 15
    return truth, probabilities.astype(np.float32)


def ece_by_loop(truth, probabilities, bins=15):
    """Work out the expected calibration error bin by bin."""
    limits, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(limits[:-1], limits[1:], strict=True):
        inside = (probabilities >= low) & ((probabilities < high) | (high == 1))
        if inside.any():
            gap = probabilities[inside].mean(dtype=float) - truth[inside].mean()
            total += abs(gap) * inside.sum() / truth.size
    return total


def band_by_loop(truth):
    """Work out the band from all distances of pixels to contour pixels."""
    points, every = np.argwhere(contour(truth)), np.argwhere(np.ones_like(truth))
    squared = ((every[:, None] - points[None]) ** 2).sum(-1).min(1)
    return (squared <= BAND_PX**2).reshape(truth.shape)


def test_calibration_equals_scikit_learn_and_a_loop_by_image_and_pooled():
    evaluation, pixels = Evaluation(), {"calibration": [], "band": []}
    for seed in range(3):
        truth, probabilities = maps(seed)
        truth &= seed < 2  # the last is a normal image: it has no band
        score = evaluation.add(truth, truth, probabilities, name=str(seed), label="benign")
        band = band_by_loop(truth) if seed < 2 else truth
        assert np.array_equal(contour_band(truth), band) and not band.all()
        assert band[0, 50] == truth[0, 50] == (seed < 2)  # inside the lesion as well
        for where, part, brier, ece in (
            (np.ones_like(truth), "calibration", score.brier, score.ece),
            (band, "band", score.band_brier, score.band_ece),
        ):
            t, p = truth[where], probabilities[where]
            pixels[part].append((t, p))
            if where.any():
                assert brier == pytest.approx(np.mean((p.astype(float) - t) ** 2), abs=1e-9)
                assert ece == pytest.approx(ece_by_loop(t, p), abs=1e-9)
            else:
                assert math.isnan(brier) and math.isnan(ece)
    for part, pairs in pixels.items():
        t, p = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
        pooled = getattr(evaluation.histogram(), part)
        assert pooled.n == len(t) and pooled.ece == pytest.approx(ece_by_loop(t, p), abs=1e-9)
        brier = sk.brier_score_loss(t, p.astype(float))
        assert pooled.brier == pytest.approx(brier, abs=1e-9)


# --- evaluation -----------------------------------------------------------------------------


def small_evaluation():
    evaluation = Evaluation(provenance={"model": "unet", "fold": 0, "threshold": 0.5})
    labels = {"benign": True, "malignant": True, "normal": False, "unknown": False}
    for seed, (label, lesion) in enumerate(labels.items()):
        truth, probabilities = random_maps("saturated", seed, (30, 40))
        truth &= lesion
        evaluation.add(truth, probabilities >= 0.5, probabilities, name=f"{label} 1", label=label)
    return evaluation


def test_evaluation_survives_its_folder(tmp_path):
    evaluation = small_evaluation()
    again = Evaluation.load(evaluation.save(tmp_path))
    assert again.table == evaluation.table and again.provenance == evaluation.provenance
    assert list(again.histograms) == list(evaluation.histograms)
    for key, histogram in evaluation.histograms.items():
        for name, values in histogram.to_arrays().items():
            assert np.array_equal(again.histograms[key].to_arrays()[name], values)
    with np.load(tmp_path / "histograms.npz") as arrays:
        kept = {name: arrays[name] for name in arrays if not name.startswith("band")}
    np.savez_compressed(tmp_path / "histograms.npz", **kept)
    with pytest.raises(ValueError, match="histograms.npz: lacks band_0.*Evaluate again"):
        Evaluation.load(tmp_path)
    (tmp_path / "cases.csv").unlink()
    with pytest.raises(FileNotFoundError, match="cases.csv is missing"):
        Evaluation.load(tmp_path)


def test_evaluation_keeps_images_without_lesion_apart(tmp_path):
    evaluation = small_evaluation()
    normals = {"normal (no lesion)", "unknown (no lesion)"}
    assert set(evaluation.histograms) == {"benign", "malignant", *normals}
    assert evaluation.histogram("axilla").n == 0
    assert Evaluation().histogram("lesion images").n == 0
    old = small_evaluation()  # as earlier versions called them
    old.histograms = {key.removesuffix(" (no lesion)"): h for key, h in old.histograms.items()}
    for one in (evaluation, Evaluation.load(old.save(tmp_path))):
        assert one.histogram().n == 4 * 1200
        assert one.histogram("lesion images").n == 2 * 1200
        assert one.histogram("benign").n == 1200 and one.histogram("normal").n == 0


def test_a_normal_image_with_a_lesion_is_a_lesion_image_of_its_class():
    evaluation = Evaluation()
    for name, lesion in (("normal 1", True), ("normal 2", False), ("normal 3", True)):
        truth, probabilities = random_maps("saturated", 3, (30, 40))
        truth &= lesion
        evaluation.add(truth, probabilities >= 0.5, probabilities, name=name, label="normal")
    assert evaluation.histogram("normal").n == 2 * 1200
    assert evaluation.histogram("lesion images").n == 2 * 1200
    rows = {row["label"]: row["images"] for row in summarise(evaluation).pooled}
    assert rows == {"all images": 3, "lesion images": 2}


def test_evaluation_refuses_what_does_not_belong():
    evaluation = small_evaluation()
    truth, probabilities = random_maps("uniform", 9, (30, 40))
    with pytest.raises(ValueError, match="benign 1 is in the table twice"):
        evaluation.add(truth, truth, probabilities, name="benign 1")
    assert len(evaluation.table) == 4 and evaluation.histogram().n == 4 * 1200
    score = evaluation.add(truth, truth, name="mask only", label="benign")
    assert math.isnan(score.image_score) and math.isnan(score.band_ece)
    with pytest.raises(ValueError, match="histograms hold 4800 pixels"):
        evaluation.histogram()


def test_provenance_must_be_json_and_nothing_is_written_otherwise(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Evaluation(provenance={"score": math.nan}).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    Evaluation(provenance={"a": [1]}).save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "about.json").read_text()) == {"a": [1]}


# --- folds ----------------------------------------------------------------------------------


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
        names = {"name": f"{label} ({fold}.{i})", "label": label}
        group = f"group {fold}.{i // 6}" if i < 12 else ""
        evaluation.add(truth, p >= 0.5, p, group=group, **names)
    return evaluation


FOLDS = {fold: make_fold(fold, fold / 2) for fold in range(3)}


def test_merged_folds_have_the_mean_of_the_folds_areas(tmp_path):
    merged = merge_evaluations(FOLDS)
    assert len(merged.table) == 180 and merged.table == join_tables(FOLDS)
    for images in ("all images", "lesion images", "benign"):
        areas = [e.areas(images) for e in FOLDS.values()]
        assert merged.areas(images) == pytest.approx(tuple(np.mean(areas, axis=0)))
        assert merged.areas(images)[0] > merged.histogram(images).auc + 0.01  # other scales
    assert merged.image_auc == np.mean([one.image_auc for one in FOLDS.values()]) > 0.9
    calibrations = [e.histogram().calibration for e in FOLDS.values()]
    squared = sum(c.brier * c.n for c in calibrations) / sum(c.n for c in calibrations)
    assert merged.histogram().calibration.brier == pytest.approx(squared)
    known = {"model": "net0; net1; net2", "data": "BUSI", "fold": "0; 1; 2"}
    assert merged.provenance.to_dict() == {**known, "seen_in_training": False}
    again = Evaluation.load(merged.save(tmp_path))
    assert again.folds == merged.folds and again.areas() == merged.areas()
    text = summarise(again).to_markdown()
    assert "means over the folds" in text and "| fold 0 | fold 1 | fold 2 |" in text
    assert f"| {FOLDS[1].areas()[0]:.4f} |" in text and f"| {merged.areas()[0]:.4f} |" in text
    FOLDS[0].save(tmp_path)  # a single fold into the same folder: the rest must go
    assert Evaluation.load(tmp_path).folds == ()


def test_a_fold_where_an_area_is_undefined_is_left_out_of_the_mean():
    truth, p = np.zeros((9, 9), bool), np.random.default_rng(0).random((9, 9)).astype(np.float32)
    truth[2:5, 3:8] = True
    evaluation, normal = Evaluation(), Evaluation()
    evaluation.add(truth, p > 0.5, p, name="a", label="benign")
    normal.add(truth & False, p > 0.5, p, name="b", label="normal")
    merged = merge_evaluations({0: evaluation, 1: normal})
    assert merged.areas()[0] == pytest.approx(sk.roc_auc_score(truth.ravel(), p.ravel()), abs=1e-6)
    assert merged.folds[1]["auc"] == {"all images": None, "lesion images": None}
    assert f"| all images | {merged.areas()[0]:.4f} | - |" in summarise(merged).to_markdown()
    assert all(map(math.isnan, merge_evaluations({1: normal}).areas()))
    alone = merge_evaluations({0: evaluation})
    assert alone.folds == () and alone.areas() == evaluation.areas()


def test_an_image_of_several_folds_keeps_each_row_in_one_group():
    table = join_tables({0: FOLDS[0], 3: FOLDS[0], 1: FOLDS[1]})
    names = [case.name for case in table]
    assert len(names) == 180 and names[0] == "benign (0.0), fold 0"
    assert names[60] == "benign (0.0), fold 3" and names[120] == "benign (1.0)"
    alone = FOLDS[0].table.subset(lambda case: not case.group)
    assert len(set(join_tables({0: FOLDS[0], 3: FOLDS[0]}).groups)) == len(alone) + 2


def test_folds_that_do_not_belong_together_are_refused():
    masks = replace(FOLDS[1], histograms={})
    assert merge_evaluations({1: masks}).folds == ()
    with pytest.raises(ValueError, match="fold 1 holds no probabilities"):
        merge_evaluations({0: FOLDS[0], 1: masks})
    with pytest.raises(ValueError, match="received no fold"):
        merge_evaluations({})

"""Contours, components and calibration against MedPy, SimpleITK, scikit-learn and hand counts."""

import math

import medpy.metric.binary as medpy
import numpy as np
import pytest
import SimpleITK as sitk
from sklearn import metrics as sk

from unet_lib.metrics import (
    BAND_PX,
    TOLERANCE_MM,
    TOLERANCE_PX,
    Calibration,
    CaseTable,
    Evaluation,
    ProbabilityHistogram,
    score_case,
)
from unet_lib.metrics.surfaces import component_counts, contour, contour_band

CONTOUR = ("hd95", "mean_surface_distance", "surface_dice")
EMPTY, FULL = np.zeros((30, 40), bool), np.ones((30, 40), bool)


def blob(rng, shape):
    """Give an ellipse, sometimes with holes and specks, sometimes cut by the image's edge."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    centre, axes = rng.random(2) * shape, 1 + rng.random(2) * np.array(shape) / 2
    mask = ((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2 < 1
    noise = rng.random(shape)
    return (mask & (noise > rng.choice([0, 0.1]))) | (noise > rng.choice([1, 0.995]))


def mask_pairs(count=2000, seed=11):
    """Give blobs and noise, one pixel, full masks, and the four empty combinations."""
    rng = np.random.default_rng(seed)
    pixel = np.zeros((9, 12), bool)
    pixel[3, 4] = True
    fixed = [EMPTY, FULL]
    yield from ((truth, prediction) for truth in fixed for prediction in fixed)
    for other in (pixel, pixel[::-1, ::-1], np.zeros_like(pixel), np.ones_like(pixel)):
        yield from ((pixel, other), (other, pixel))
    for index in range(count - 12):
        shape = tuple(rng.integers(2, 60, 2))
        truth, prediction = (
            blob(rng, shape) if rng.random() < 0.8 else rng.random(shape) < rng.random() ** 3
            for _ in range(2)
        )
        yield (truth & (index % 25 > 0)), (prediction & (index % 20 > 0))


PAIRS = list(mask_pairs())
SCORES = [score_case(truth, prediction, name="x") for truth, prediction in PAIRS]


def chosen(kind):
    """Give the pairs of one of the four empty combinations with their scores."""
    both = zip(PAIRS, SCORES, strict=True)
    return [(t, p, s) for (t, p), s in both if (bool(t.any()), bool(p.any())) == kind]


def test_the_pairs_hold_every_corner_case():
    assert len(PAIRS) == 2000
    assert len(chosen((True, True))) > 1500 and len(chosen((False, False))) >= 3
    assert len(chosen((True, False))) > 50 and len(chosen((False, True))) > 50
    assert sum(t.sum() == 1 for t, _ in PAIRS) > 8 and sum(t.all() for t, _ in PAIRS) >= 3


def test_distances_equal_medpy():
    for truth, prediction, score in chosen((True, True)):
        assert score.hd95 == pytest.approx(medpy.hd95(prediction, truth), abs=1e-9)
        distance = medpy.assd(prediction, truth)
        assert score.mean_surface_distance == pytest.approx(distance, abs=1e-9)
        assert score.area_error == pytest.approx(medpy.ravd(prediction, truth), abs=1e-12)


def itk_distances(truth, prediction, spacing=(1.0, 1.0)):
    """Give the distances of each contour to the other by ITK's contour and distance filters."""
    images, edges = [], []
    for mask in (truth, prediction):
        image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
        image.SetSpacing([float(step) for step in spacing[::-1]])
        edges.append(sitk.LabelContour(image, fullyConnected=False))
        images.append(
            sitk.SignedMaurerDistanceMap(
                edges[-1], squaredDistance=False, useImageSpacing=True, insideIsPositive=False
            )
        )
    (truth_edge, edge), (to_truth, to_edge) = (
        [sitk.GetArrayFromImage(image) for image in pair] for pair in (edges, images)
    )
    return np.abs(to_truth)[edge > 0].astype(float), np.abs(to_edge)[truth_edge > 0].astype(float)


@pytest.mark.parametrize("spacing", [None, (0.11, 0.07)])
def test_all_contour_scores_equal_simpleitk(spacing):
    tolerance = TOLERANCE_PX if spacing is None else TOLERANCE_MM
    pairs = chosen((True, True))
    for truth, prediction, score in pairs[:: 1 if spacing is None else 10]:
        if spacing is not None:
            score = score_case(truth, prediction, name="x", spacing=spacing)
        joined = np.concatenate(itk_distances(truth, prediction, spacing or (1.0, 1.0)))
        assert score.hd95 == pytest.approx(np.percentile(joined, 95), rel=1e-6, abs=1e-6)
        mean = joined.mean()
        assert score.mean_surface_distance == pytest.approx(mean, rel=1e-6, abs=1e-6)
        # ITK's distances are float32: keep clear of the tolerance itself
        share = np.mean(joined <= tolerance + 1e-6)
        assert score.surface_dice == pytest.approx(share, abs=1e-6)
        assert score.unit == ("px" if spacing is None else "mm")


def test_contours_and_distances_by_hand():
    truth, prediction = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    truth[5:8, 5:8] = True  # 8 contour pixels around one inside
    prediction[5:8, 9:12] = True  # the same, 4 pixels to the right
    assert contour(truth).sum() == 8 and not contour(truth)[6, 6]
    assert contour(FULL).sum() == 2 * 30 + 2 * 40 - 4  # the image's edge is a contour
    score = score_case(truth, prediction, name="x")
    # each side: three at 2, then rows 5 and 7 at 3, three at 4
    distances = [2] * 6 + [3] * 4 + [4] * 6
    assert score.hd95 == np.percentile(distances, 95) == 4
    assert score.mean_surface_distance == pytest.approx(np.mean(distances))
    assert score.surface_dice == 1 and score.missed
    far = score_case(truth, np.roll(prediction, 2, axis=1), name="x")
    assert far.surface_dice == pytest.approx(10 / 16)  # 4, 5 and 6 pixels away
    in_mm = score_case(truth, prediction, name="x", spacing=(9.0, 0.25))
    assert in_mm.hd95 == 1 and in_mm.surface_dice == pytest.approx(6 / 16)


def test_the_rule_for_empty_masks_holds_for_every_score():
    for _, prediction, score in chosen((False, False)) + chosen((False, True)):
        names = (
            *CONTOUR,
            "area_error",
            "absolute_area_error",
            "dice",
            "iou",
            "precision",
            "recall",
        )
        assert all(math.isnan(getattr(score, name)) for name in names)
        assert (score.components, score.components_found) == (0, 0)
        assert score.false_components == score.predicted_components
        assert bool(score.predicted_components) == prediction.any()
        assert not score.missed and score.left_empty == float(not prediction.any())
    for truth, _, score in chosen((True, False)):
        assert score.hd95 == score.mean_surface_distance == pytest.approx(math.hypot(*truth.shape))
        assert (score.surface_dice, score.dice, score.iou, score.precision) == (0, 0, 0, 0)
        assert score.area_error == -1 and score.absolute_area_error == 1 and score.missed
        assert score.components > 0 and score.components_found == score.false_components == 0
        assert score.predicted_components == 0
    assert score_case(FULL, EMPTY, name="x", spacing=(0.1, 0.2)).hd95 == math.hypot(3, 8)
    same = score_case(FULL, FULL, name="x")
    assert (same.hd95, same.mean_surface_distance, same.surface_dice, same.area_error) == (
        0,
        0,
        1,
        0,
    )


def test_components_equal_simpleitk():
    for truth, prediction, score in chosen((True, True)):
        counts = []
        for mask, other in ((truth, prediction), (prediction, truth)):
            image = sitk.GetImageFromArray(mask.astype(np.uint8))
            labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
            touched = set(labels[mask & other].tolist())
            counts += [labels.max(), len(touched)]
        assert [score.components, score.components_found] == counts[:2]
        assert score.predicted_components == counts[2]
        assert score.false_components == counts[2] - counts[3]


def test_components_by_hand():
    truth, prediction = EMPTY.copy(), EMPTY.copy()
    truth[2, 2] = truth[3, 3] = truth[10, 10] = True  # touching corners are one
    prediction[3, 3] = prediction[20, 5] = prediction[25:, 30:] = True
    assert component_counts(truth, prediction) == {
        "components": 2, "components_found": 1, "predicted_components": 3, "false_components": 2,
    }  # fmt: skip


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (math.nan, 1), (1,), 0.1, (1, math.inf)])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(ValueError, match="a: spacing must be the height and width of a pixel"):
        score_case(EMPTY, FULL, name="a", spacing=spacing)


def test_mm_and_pixels_do_not_share_a_table(tmp_path):
    known = score_case(FULL, FULL, name="a", spacing=(0.1, 0.2))
    assert CaseTable((known,)).unit == "mm" and CaseTable().unit == "px"
    assert CaseTable.read_csv(CaseTable((known,)).to_csv(tmp_path / "t.csv"))[0] == known
    with pytest.raises(ValueError, match="known for a and not for b"):
        CaseTable((known, score_case(FULL, FULL, name="b")))


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


@pytest.mark.parametrize("seed", range(4))
def test_calibration_equals_scikit_learn_and_a_loop(seed):
    truth, probabilities = maps(seed)
    evaluation = Evaluation()
    score = evaluation.add(truth, truth, probabilities, name="a", label="benign")
    band = band_by_loop(truth)
    assert np.array_equal(contour_band(truth), band) and not band.all()
    assert band[0, 50] and truth[0, 50]  # inside the lesion as well
    for where, brier, ece in (
        (np.ones_like(truth), score.brier, score.ece),
        (band, score.band_brier, score.band_ece),
    ):
        t, p = truth[where], probabilities[where]
        assert brier == pytest.approx(sk.brier_score_loss(t, p.astype(float)), abs=1e-9)
        assert ece == pytest.approx(ece_by_loop(t, p), abs=1e-9)
    assert score.band_brier != score.brier


def test_calibration_is_pooled_over_images():
    evaluation, parts = Evaluation(), [maps(seed) for seed in range(3)]
    for index, (truth, probabilities) in enumerate(parts):
        truth &= index < 2  # the last is a normal image: it has no band
        evaluation.add(truth, truth, probabilities, name=str(index), label="benign")
    histogram = evaluation.histogram()
    t, p = (np.concatenate([part[i].ravel() for part in parts]) for i in (0, 1))
    assert histogram.calibration.brier == pytest.approx(
        sk.brier_score_loss(t, p.astype(float)), abs=1e-9
    )
    assert histogram.calibration.ece == pytest.approx(ece_by_loop(t, p), abs=1e-9)
    bands = [band_by_loop(truth) for truth, _ in parts[:2]]
    t, p = (
        np.concatenate([part[i][band] for part, band in zip(parts[:2], bands, strict=True)])
        for i in (0, 1)
    )
    assert histogram.band.n == len(t)
    assert histogram.band.ece == pytest.approx(ece_by_loop(t, p), abs=1e-9)
    normal = evaluation.table[2]
    assert math.isnan(normal.band_brier) and math.isnan(normal.band_ece) and normal.brier > 0
    mean, share = histogram.calibration.reliability()
    inside = (np.concatenate([part[1].ravel() for part in parts]) * 15).astype(int) == 4
    truths = np.concatenate([part[0].ravel() for part in parts])
    assert share[4] == pytest.approx(truths[inside].mean())
    assert 4 / 15 <= mean[4] < 5 / 15


def test_probabilities_that_are_never_predicted_leave_empty_bins():
    calibration = Calibration.of(np.array([True, False, True]), np.array([1, 0, 1], np.float32))
    assert (calibration.n, calibration.brier, calibration.ece) == (3, 0, 0)
    mean, share = calibration.reliability()
    assert (mean[[0, -1]].tolist(), share[[0, -1]].tolist()) == ([0, 1], [0, 1])
    assert np.isnan(mean[1:-1]).all() and np.isnan(share[1:-1]).all()
    assert math.isnan(Calibration().brier) and math.isnan(Calibration().ece)
    with pytest.raises(ValueError, match="a calibration has 4 sums of 15 bins"):
        Calibration(np.zeros(3))
    with pytest.raises(TypeError):
        calibration + 1


def test_calibration_survives_the_folder_and_an_older_file_is_refused(tmp_path):
    truth, probabilities = maps(0)
    evaluation = Evaluation()
    evaluation.add(truth, truth, probabilities, name="a", label="benign")
    again = Evaluation.load(evaluation.save(tmp_path))
    assert again.table == evaluation.table and again.table[0].ece > 0
    for part in ("calibration", "band"):
        before, after = (getattr(e.histograms["benign"], part) for e in (evaluation, again))
        assert (before.n, before.brier, before.ece) == (after.n, after.brier, after.ece)
    with np.load(tmp_path / "histograms.npz") as arrays:
        kept = {name: arrays[name] for name in arrays if not name.startswith("band")}
    np.savez_compressed(tmp_path / "histograms.npz", **kept)
    with pytest.raises(ValueError, match="histograms.npz: lacks band_0.*Evaluate again"):
        Evaluation.load(tmp_path)


def test_masks_without_probabilities_have_no_calibration(tmp_path):
    evaluation = Evaluation()
    score = evaluation.add(FULL, FULL, name="a")
    assert all(math.isnan(getattr(score, n)) for n in ("brier", "ece", "band_brier", "band_ece"))
    assert Evaluation.load(evaluation.save(tmp_path)).table == evaluation.table
    assert ProbabilityHistogram().calibration.n == 0


def test_a_table_of_an_earlier_version_has_unknown_scores(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("name,label,group,height,width,tp,fp,fn,tn\na,benign,,2,3,1,1,1,3\n")
    case = CaseTable.read_csv(path)[0]
    assert case.dice == 0.5 and math.isnan(case.hd95) and math.isnan(case.components)
    path.write_text("name,label,group,height,width,tp,fp,fn,tn,hd95\na,benign,,2,3,1,1,1,3,-1\n")
    with pytest.raises(ValueError, match="line 2: a: hd95 must be 0 or more"):
        CaseTable.read_csv(path)

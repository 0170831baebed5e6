"""Scores of mask pairs against scikit-learn, MedPy, SimpleITK and hand counts; tables and files."""

import math
from dataclasses import replace

import medpy.metric.binary as medpy
import numpy as np
import pytest
import SimpleITK as sitk
from sklearn import metrics as sk

from unet_lib.metrics import (
    SCORES,
    TOLERANCE_MM,
    TOLERANCE_PX,
    CaseScore,
    CaseTable,
    PixelCounts,
    count_pixels,
    of_kind,
    score_case,
)
from unet_lib.metrics.scores import component_counts, contour

EMPTY, FULL = np.zeros((30, 40), bool), np.ones((30, 40), bool)


def blob(rng, shape):
    """Give an ellipse, sometimes with holes and specks, sometimes cut by the image's edge."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    centre, axes = rng.random(2) * shape, 1 + rng.random(2) * np.array(shape) / 2
    mask = ((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2 < 1
    noise = rng.random(shape)
    return (mask & (noise > rng.choice([0, 0.1]))) | (noise > rng.choice([1, 0.995]))


def mask_pairs(count=2000, seed=11):
    """Give the four empty combinations, full masks, one pixel, then blobs and noise."""
    rng = np.random.default_rng(seed)
    pixel = np.zeros((9, 12), bool)
    pixel[3, 4] = True
    yield from ((truth, prediction) for truth in (EMPTY, FULL) for prediction in (EMPTY, FULL))
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
SCORED = [(t, p, score_case(t, p, name="x")) for t, p in PAIRS]


def chosen(truth, prediction):
    """Give the pairs of one of the four empty combinations with their scores."""
    kind = truth, prediction
    return [(t, p, s) for t, p, s in SCORED if (bool(t.any()), bool(p.any())) == kind]


def same(ours, reference):
    return ours == pytest.approx(float(reference), abs=1e-12, nan_ok=True)


def test_the_pairs_hold_every_corner_case():
    assert len(chosen(True, True)) > 1100 and len(chosen(False, False)) >= 3
    assert len(chosen(True, False)) > 40 and len(chosen(False, True)) > 40
    assert sum(t.sum() == 1 for t, _ in PAIRS) > 8 and sum(t.all() for t, _ in PAIRS) >= 3


def test_pooled_scores_equal_scikit_learn_with_zero_division_nan():
    for truth, prediction in PAIRS[:40] + PAIRS[40::5]:
        t, p = truth.ravel().astype(int), prediction.ravel().astype(int)
        counts = count_pixels(truth, prediction)
        matrix = sk.confusion_matrix(t, p, labels=[0, 1])
        assert [[counts.tn, counts.fp], [counts.fn, counts.tp]] == matrix.tolist()
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            t, p, labels=[0, 1], zero_division=np.nan
        )
        assert same(counts.precision, precision[1]) and same(counts.recall, recall[1])
        assert same(counts.false_positive_rate, 1 - recall[0])
        assert same(counts.accuracy, np.mean(t == p)) and same(counts.prevalence, t.mean())
        if not (t.any() or p.any()):
            assert math.isnan(counts.f1) and math.isnan(counts.iou) and math.isnan(counts.mean_iou)
            continue
        assert same(counts.f1, f1[1]) and counts.dice == counts.f1
        iou = sk.jaccard_score(t, p, labels=[0, 1], average=None, zero_division=0)
        assert same(counts.iou, iou[1])
        if not (t.all() and p.all()):  # else the IoU of the background is 0/0
            assert same(counts.background_iou, iou[0])
            assert same(counts.mean_iou, iou.mean())  # the first README's "Mean IoU"


def test_per_image_scores_equal_scikit_learn_with_zero_division_zero():
    for truth, prediction, score in chosen(True, True)[::5] + chosen(True, False):
        t, p = truth.ravel(), prediction.ravel()
        options = {"average": "binary", "zero_division": 0}
        *expected, _ = sk.precision_recall_fscore_support(t, p, **options)
        expected.append(sk.jaccard_score(t, p))
        ours = score.precision, score.recall, score.dice, score.iou
        assert ours == pytest.approx(tuple(expected), abs=1e-12)
        assert score.missed == (not (t & p).any()) and math.isnan(score.left_empty)


def test_the_rule_for_empty_masks_holds_for_every_score():
    undefined = of_kind("overlap", "contour", "area")
    for _, prediction, score in chosen(False, False) + chosen(False, True):
        assert all(math.isnan(getattr(score, name)) for name in undefined)
        assert (score.components, score.components_found) == (0, 0)
        assert score.false_components == score.predicted_components
        assert bool(score.predicted_components) == prediction.any()
        assert not score.missed and score.left_empty == float(not prediction.any())
        assert same(score.false_positive_area, prediction.mean())
    for truth, _, score in chosen(True, False):
        assert score.hd95 == score.mean_surface_distance == pytest.approx(math.hypot(*truth.shape))
        assert (score.surface_dice, score.dice, score.iou, score.precision) == (0, 0, 0, 0)
        assert score.area_error == -1 and score.absolute_area_error == 1 and score.missed
        assert score.components > 0 and score.components_found == score.false_components == 0
    truth, elsewhere = np.zeros((2, 10, 10), bool)
    truth[2, 3] = elsewhere[8, 8] = True
    missed = score_case(truth, elsewhere, name="x")  # 0, and not a half
    assert missed.missed and not any(getattr(missed, name) for name in of_kind("overlap"))
    assert score_case(FULL, EMPTY, name="x", spacing=(0.1, 0.2)).hd95 == math.hypot(3, 8)
    equal = score_case(FULL, FULL, name="x")
    assert (equal.hd95, equal.mean_surface_distance, equal.area_error) == (0, 0, 0)
    assert equal.surface_dice == 1


def test_counts_add_up_and_never_overflow():
    left, right = PixelCounts(np.uint8(200), 1, 2, 3), PixelCounts(np.uint8(100), 10, 20, 30)
    assert left + right == PixelCounts(300, 11, 22, 33)
    huge = PixelCounts(2**62, 2**62, 2**62, 2**62)
    assert (huge + huge).n == 2**65 and huge.dice == 0.5
    with pytest.raises(ValueError, match="fp must be 0 or more"):
        PixelCounts(1, -1, 0, 0)
    for wrong in (lambda: PixelCounts(1.5, 0, 0, 0), lambda: left + 3):
        with pytest.raises(TypeError):
            wrong()


GOOD = np.zeros((4, 5), bool)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (GOOD, GOOD.astype(np.uint8), r"scan 7: the predicted mask must be a bool.*uint8"),
        (np.full((4, 5), np.nan, np.float32), GOOD, "the true mask must be a bool.*float32"),
        (GOOD, GOOD.T, r"\(4, 5\).*but the predicted mask is \(5, 4\)"),
        (GOOD[..., None], GOOD[..., None], r"shape \(H, W\)"),
        (GOOD[:0], GOOD[:0], r"shape \(H, W\)"),
    ],
)
def test_bad_masks_are_refused_with_the_reason(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        score_case(truth, prediction, name="scan 7")


# --- contours and components ------------------------------------------------------------------


def test_distances_equal_medpy():
    for truth, prediction, score in chosen(True, True):
        assert score.hd95 == pytest.approx(medpy.hd95(prediction, truth), abs=1e-9)
        distance = medpy.assd(prediction, truth)
        assert score.mean_surface_distance == pytest.approx(distance, abs=1e-9)
        assert score.area_error == pytest.approx(medpy.ravd(prediction, truth), abs=1e-12)


def itk_distances(truth, prediction, spacing):
    """Give the distances of each contour to the other by ITK's contour and distance filters."""
    images, edges = [], []
    for mask in (truth, prediction):
        image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
        image.SetSpacing([float(step) for step in spacing[::-1]])
        edges.append(sitk.LabelContour(image, fullyConnected=False))
        options = {"squaredDistance": False, "useImageSpacing": True, "insideIsPositive": False}
        images.append(sitk.SignedMaurerDistanceMap(edges[-1], **options))
    (truth_edge, edge), (to_truth, to_edge) = (
        [sitk.GetArrayFromImage(image) for image in pair] for pair in (edges, images)
    )
    return np.abs(to_truth)[edge > 0].astype(float), np.abs(to_edge)[truth_edge > 0].astype(float)


@pytest.mark.parametrize("spacing", [None, (0.11, 0.07)])
def test_contours_and_components_equal_simpleitk(spacing):
    tolerance = TOLERANCE_PX if spacing is None else TOLERANCE_MM
    for truth, prediction, _ in chosen(True, True)[:: 4 if spacing is None else 12]:
        score = score_case(truth, prediction, name="x", spacing=spacing)
        joined = np.concatenate(itk_distances(truth, prediction, spacing or (1.0, 1.0)))
        assert score.hd95 == pytest.approx(np.percentile(joined, 95), rel=1e-6, abs=1e-6)
        mean = joined.mean()
        assert score.mean_surface_distance == pytest.approx(mean, rel=1e-6, abs=1e-6)
        # ITK's distances are float32: keep clear of the tolerance itself
        share = np.mean(joined <= tolerance + 1e-6)
        assert score.surface_dice == pytest.approx(share, abs=1e-6)
        counts = []
        for mask, other in ((truth, prediction), (prediction, truth)):
            image = sitk.GetImageFromArray(mask.astype(np.uint8))
            labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
            counts += [labels.max(), len(set(labels[mask & other].tolist()))]
        assert [score.components, score.components_found] == counts[:2]
        assert score.predicted_components == counts[2]
        assert score.false_components == counts[2] - counts[3]


def test_contours_distances_and_components_by_hand():
    truth, prediction = np.zeros((2, 20, 30), bool)
    truth[5:8, 5:8] = True  # 8 contour pixels around one inside
    prediction[5:8, 9:12] = True  # the same, 4 pixels to the right
    assert contour(truth).sum() == 8 and not contour(truth)[6, 6]
    assert contour(FULL).sum() == 2 * 30 + 2 * 40 - 4  # the image's edge is a contour
    score = score_case(truth, prediction, name="x")
    # each side: three at 2, then rows 5 and 7 at 3, three at 4
    distances = [2] * 6 + [3] * 4 + [4] * 6
    assert score.hd95 == np.percentile(distances, 95) == 4
    assert score.mean_surface_distance == pytest.approx(np.mean(distances))
    assert score.surface_dice == 1 and score.missed and score.unit == "px"
    far = score_case(truth, np.roll(prediction, 2, axis=1), name="x")
    assert far.surface_dice == pytest.approx(10 / 16)  # 4, 5 and 6 pixels away
    in_mm = score_case(truth, prediction, name="x", spacing=(9.0, 0.25))
    assert in_mm.hd95 == 1 and in_mm.surface_dice == pytest.approx(6 / 16) and in_mm.unit == "mm"
    truth, prediction = EMPTY.copy(), EMPTY.copy()
    truth[2, 2] = truth[3, 3] = truth[10, 10] = True  # touching corners are one
    prediction[3, 3] = prediction[20, 5] = prediction[25:, 30:] = True
    assert list(component_counts(truth, prediction).values()) == [2, 1, 3, 2]


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (math.nan, 1), (1,), 0.1, (1, math.inf)])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(ValueError, match="a: spacing must be the height and width of a pixel"):
        score_case(EMPTY, FULL, name="a", spacing=spacing)


# --- tables ---------------------------------------------------------------------------------

STRANGE = ['a, "b"', "ß 乳腺 \U0001f600", " x\t", "=1+1", "'", "ni\udcf1o", "nan", ""]


def test_csv_round_trip_is_exact(tmp_path):
    rng, cases = np.random.default_rng(0), []
    for index, name in enumerate(STRANGE):
        counts = [int(n) for n in rng.integers(0, 2**40, 4)]
        more = [int(n) for n in rng.integers(0, 2**40, 4)] + [*rng.random(8) * (index > 0)]
        more = [math.nan if rng.random() < 0.3 else float(v) if v % 1 else v for v in more]
        cases.append(CaseScore(name, name, name, 1, sum(counts), *counts, *more))
    table = CaseTable(cases)
    assert CaseTable.read_csv(table.to_csv(tmp_path / "cases.csv")) == table


def small_table():
    return CaseTable(
        [
            CaseScore("benign (2)", "benign", "g1", 2, 10, 4, 2, 2, 12, 2, 1, 3, 2, 1.25),
            CaseScore("malignant (1)", "malignant", "g2", 2, 10, 0, 0, 5, 15),
            CaseScore("normal (1)", "normal", "g3", 2, 10, 0, 5, 0, 15),
            CaseScore("benign (1)", "benign", "g1", 2, 10, 4, 2, 2, 12),
            CaseScore("normal (2)", "normal", "g4", 2, 10, 0, 0, 0, 20),
        ]
    )


def test_csv_is_readable_and_its_scores_are_by_hand(tmp_path):
    lines = small_table().to_csv(tmp_path / "new" / "cases.csv").read_text().splitlines()
    assert lines[0].split(",") == [
        *("name", "label", "group", "height", "width", "tp", "fp", "fn", "tn"),
        *("dice", "iou", "precision", "recall", "left_empty", "false_positive_area"),
        *("area_error", "absolute_area_error", "components", "components_found"),
        *("predicted_components", "false_components", "hd95", "mean_surface_distance"),
        *("surface_dice", "image_score", "brier", "ece", "band_brier", "band_ece"),
        *("pixel_height_mm", "pixel_width_mm"),
    ]
    scores = "0.6667,0.5000,0.6667,0.6667,,0.1000,0.0000,0.0000"
    assert lines[1] == f"benign (2),benign,g1,2,10,4,2,2,12,{scores},2,1,3,2,1.25{',' * 9}"
    assert lines[2].endswith(f",0.0000,0.0000,0.0000,0.0000,,0.0000,-1.0000,1.0000{',' * 14}")
    assert lines[3].endswith(f",0,5,0,15,,,,,0.0000,0.2500,,{',' * 14}")


HEADER = "name,label,group,height,width,tp,fp,fn,tn"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (f"{HEADER}\na,b,g,1,2,1,1,1,1", r"line 2: a: tp \+ fp \+ fn \+ tn is 4 .* 1 x 2"),
        (f"{HEADER}\na,b,g,1,2,1,one,0,0", "line 2: .*one"),
        (f"{HEADER}\na,b,g,1,2,1,1", "line 2: "),
        (f"{HEADER}\na,b,g,1,2,1,-1,1,1", "line 2: fp must be 0 or more"),
        (f"{HEADER}\na,b,g,1,2,1,1,0,0,9", "line 2: there are more cells"),
        (f"{HEADER}\na,b,g,1,2,1,1,0,0\na,b,g,1,2,1,1,0,0", "a is in the table twice"),
        (f"{HEADER},hd95\na,b,,2,3,1,1,1,3,-1", "line 2: a: hd95 must be 0 or more"),
        (f"{HEADER},brier\na,b,,2,3,1,1,1,3,2", "line 2: a: brier must be from 0 to 1"),
        ("", "broken.csv: expected the columns name, label"),
        ("name,label", "broken.csv: expected the columns name, label"),
        (f"{HEADER},x", "broken.csv: expected the columns name, label"),
    ],
)
def test_a_broken_csv_names_file_and_line(tmp_path, lines, message):
    path = tmp_path / "broken.csv"
    path.write_text(f"{lines}\n")
    with pytest.raises(ValueError, match=message):
        CaseTable.read_csv(path)


def test_a_table_of_an_earlier_version_has_unknown_scores(tmp_path):
    (tmp_path / "old.csv").write_text(f"{HEADER}\na,benign,,2,3,1,1,1,3\n")
    case = CaseTable.read_csv(tmp_path / "old.csv")[0]
    assert case.dice == 0.5 and math.isnan(case.hd95) and math.isnan(case.components)
    with pytest.raises(ValueError, match="line breaks"):
        replace(case, name="a\rb")


def test_table_subsets_columns_and_order():
    table = small_table()
    assert len(table) == 5 and table[0].name == "benign (2)"
    assert table.labels == ("benign", "malignant", "normal")
    assert [c.name for c in table.lesion_cases] == ["benign (2)", "malignant (1)", "benign (1)"]
    assert {c.name for c in table.normal_cases} == {"normal (1)", "normal (2)"}
    assert len(table.subset(lambda c: c.missed, labels=["malignant", "normal"])) == 1
    assert table.pooled() == PixelCounts(8, 9, 9, 74)
    assert np.array_equal(table.column("dice"), [2 / 3, 0, math.nan, 2 / 3, math.nan], True)
    assert table.column("tp").dtype == np.int64 and table.column("missed").dtype == bool
    benign, normal = ["benign (1)", "benign (2)"], ["normal (1)", "normal (2)"]
    assert [c.name for c in table.sorted("dice")] == ["malignant (1)", *benign, *normal]
    best_first = [c.name for c in table.sorted("dice", descending=True)]
    assert best_first == [*benign, "malignant (1)", *normal]
    assert table.sorted("name")[0].name == "benign (1)"
    with pytest.raises(ValueError, match="no column 'volume'; there are name, label"):
        table.column("volume")
    for name in SCORES:  # every score of one image is a column
        if SCORES[name].kind != "pooled":
            assert CaseTable().column(name).shape == (0,) and len(table.column(name)) == 5


def test_mm_and_pixels_do_not_share_a_table(tmp_path):
    known = score_case(FULL, FULL, name="a", spacing=(0.1, 0.2))
    assert CaseTable([known]).unit == "mm" and CaseTable().unit == "px"
    assert CaseTable.read_csv(CaseTable([known]).to_csv(tmp_path / "t.csv"))[0] == known
    with pytest.raises(ValueError, match="known for a and not for b"):
        CaseTable([known, score_case(FULL, FULL, name="b")])

"""Figures: what they show is true, nothing is cropped, covered or left unsaid."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from PIL import Image
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from unet_lib import plots
from unet_lib.augment import Augmentation
from unet_lib.metrics import Evaluation
from unet_lib.provenance import PHANTOM_BANNER, SEEN_BANNER

ABOUT = {"model": "unet-a", "data": "BUSI", "fold": 0, "part": "test", "threshold": 0.5}
LONG = {**ABOUT, "model": "a model with a long name " * 5}
PHANTOMS = {**LONG, "data": "phantoms", "data_kind": "phantoms", "seen_in_training": True}


def disc(height, width, y, x, radius):
    rows, columns = np.mgrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def make_pair(seed, shape=(40, 60), lesion=True):
    """Give image, truth and probabilities."""
    rng = np.random.default_rng(seed)
    height, width = shape
    truth = disc(height, width, 0.5 * height, 0.4 * width, 0.3 * height) & lesion
    found = disc(height, width, 0.55 * height, 0.45 * width, 0.3 * height)
    probabilities = np.clip(0.7 * found + 0.3 * rng.random(shape), 0, 1).astype(np.float32)
    return rng.random((*shape, 1), dtype=np.float32), truth, probabilities


def make_evaluation(about=ABOUT, normals=True):
    evaluation = Evaluation(provenance=about)
    for seed in range(6):
        lesion = seed % 3 > 0 or not normals
        _, truth, p = make_pair(seed, lesion=lesion)
        label = "benign" if lesion else "normal"
        evaluation.add(truth, p >= 0.5, p, name=f"{label} {seed}", label=label)
    return evaluation


def make_rows(count=3, shapes=((40, 60), (70, 30), (30, 90))):
    rows = []
    for seed, shape in zip(range(count), itertools.cycle(shapes), strict=False):
        image, truth, p = make_pair(seed, shape, lesion=seed != 1)
        rows.append((image, truth, p, p >= 0.5, f"benign ({seed}), a longer title"))
    return rows


def make_history(epochs=30):
    keys = ("loss", "accuracy", "dice", "val_loss", "val_accuracy", "val_dice")
    rng = np.random.default_rng(0)
    return [{"epoch": e + 1, **{key: rng.random() for key in keys}} for e in range(epochs)]


def draw_all(about):
    """Draw every figure of the package once."""
    more, evaluation = {"provenance": about}, make_evaluation(about)
    image, truth, _ = make_pair(0)
    t = np.linspace(0.1, 0.9, 9)
    counts = {"chosen": 0.4, "lesions": 51, "normals": 12}
    return {
        "examples": plots.plot_examples([(i, t, n) for i, t, _, _, n in make_rows(4)], **more),
        "augmentation": plots.plot_augmentation(image, truth, Augmentation(), 3, **more),
        "predictions": plots.plot_predictions(make_rows(), **more),
        "history": plots.plot_history(make_history(), **more),
        "threshold": plots.plot_threshold_curve(t, t, 1 - t, **counts, **more),
        "roc": plots.plot_roc(evaluation),
        "image_roc": plots.plot_image_roc(evaluation),
        "precision_recall": plots.plot_precision_recall(evaluation),
        "confusion": plots.plot_confusion_matrix(evaluation),
        "calibration": plots.plot_calibration(evaluation),
        "size": plots.plot_dice_by_size(evaluation),
    }


def legends(figure):
    return figure.subfigs[0].legends


def words(figure):
    """Give all text of a figure on one line."""
    texts = [text.get_text() for text in (*figure.texts, *figure.subfigs[0].texts)]
    for axes in figure.axes:
        texts += [axes.get_title(), axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()]
        texts += [text.get_text() for text in axes.texts]
        texts += [tick.get_text() for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    texts += [text.get_text() for legend in legends(figure) for text in legend.get_texts()]
    return " ".join(" ".join(texts).replace("\u00a0", " ").split())


FIGURES = draw_all(ABOUT)
EXPECTED = {
    "examples": ["4 images", "benign (3)", "mask"],
    "augmentation": ["original", "draw 7", "seed 3"],
    "predictions": ["3 images", "truth", "prediction", "per image, of this one"],
    "history": ["30 epochs", "lowest validation loss", "training", "validation", "loss"],
    "threshold": ["validation", "per image", "51 lesion images", "12 images", "0.4", "0.8"],
    "roc": ["pooled over pixels", "all 6 images", "4 lesion images", "14,400 pixels"],
    "image_roc": ["per image", "6 images", "4 with a lesion", "highest probability"],
    "precision_recall": ["pooled over pixels", "all 6 images", "4 lesion images"],
    "confusion": ["6 images pooled", "14,400 pixels", "Mean IoU"],
    "calibration": ["pooled over pixels", "6 images", "14,400 pixels", "20 px from", "ECE"],
    "size": ["per image", "4 lesion images", "0 missed", "benign (4)", "% of the image"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_shows(name):
    text = words(FIGURES[name])
    assert "data: BUSI · fold: 0 · part: test" in text
    assert [part for part in EXPECTED[name] if part not in text] == []


def render(figure):
    """Draw a figure, so that the layout is done; give the renderer that measures texts."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def boxes(figure):
    """Give the box of every panel with its labels, legend and text outside the panels."""
    renderer = render(figure)
    texts = (*figure.texts, *figure.subfigs[0].texts)
    found = {f"text {t.get_text()[:30]!r}": t.get_window_extent(renderer) for t in texts}
    for i, legend in enumerate(figure.subfigs[0].legends):
        found[f"legend {i}"] = legend.get_window_extent(renderer)
    for i, axes in enumerate(figure.axes):
        found[f"panel {i}"] = axes.get_tightbbox(renderer)
    return found


@pytest.mark.parametrize("about", [ABOUT, PHANTOMS], ids=["short", "long with banner"])
def test_nothing_overlaps_or_leaves_the_figure(about):
    for name, figure in draw_all(about).items():
        found = boxes(figure)
        for (first, a), (second, b) in itertools.combinations(found.items(), 2):
            width = min(a.x1, b.x1) - max(a.x0, b.x0)
            height = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(width, height) < 1.5, (name, first, second)
        for part, box in found.items():
            inside = box.x0 >= -1 and box.y0 >= -1
            inside &= box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
            assert inside, (name, part)
        assert (PHANTOM_BANNER in words(figure)) == (about is PHANTOMS)
        assert (SEEN_BANNER in words(figure)) == (about is PHANTOMS)


def pooled_pixels():
    pairs = [make_pair(seed, lesion=seed % 3 > 0)[1:] for seed in range(6)]
    return (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))


def test_the_roc_figures_show_those_of_scikit_learn():
    truth, p = pooled_pixels()
    fpr, tpr, _ = sk.roc_curve(truth, p, drop_intermediate=False)
    whole, close = FIGURES["roc"].axes
    assert close.get_xlim()[1] == 0.1
    for axes in (whole, close):
        line, dot = axes.lines[0], axes.lines[1]
        x, y = line.get_xdata(), line.get_ydata()
        points = set(zip(fpr, tpr, strict=True))
        assert len(x) > 100 and set(zip(x, y, strict=True)) <= points  # exact points, only thinned
        assert sk.auc(x, y) == pytest.approx(sk.roc_auc_score(truth, p), abs=1e-3)
        tn, fp, fn, tp = sk.confusion_matrix(truth, p >= 0.5).ravel()
        assert dot.get_xydata()[0] == pytest.approx([fp / (fp + tn), tp / (tp + fn)])
    assert f"AUC {sk.roc_auc_score(truth, p):.4f}" in words(FIGURES["roc"])
    table = make_evaluation().table
    expected = sk.roc_curve(
        table.column("has_lesion"), table.column("image_score"), drop_intermediate=False
    )
    line, _, dot = FIGURES["image_roc"].axes[0].lines
    assert line.get_xydata() == pytest.approx(np.stack(expected[:2], axis=1))
    assert dot.get_xydata()[0].tolist() == [1, 1]  # every image of these is marked


def test_curves_matrix_and_calibration_show_those_of_scikit_learn():
    truth, p = pooled_pixels()
    axes, text = FIGURES["precision_recall"].axes[0], words(FIGURES["precision_recall"])
    assert f"average precision {sk.average_precision_score(truth, p):.3f}" in text
    assert f"guessing: {truth.mean():.3f}" in text
    scores = sk.recall_score(truth, p >= 0.5), sk.precision_score(truth, p >= 0.5)
    assert axes.lines[2].get_xydata()[0] == pytest.approx(scores)
    matrix, text = sk.confusion_matrix(truth, p >= 0.5), words(FIGURES["confusion"])
    for kind, row, column in [("TP", 1, 1), ("FN", 1, 0), ("FP", 0, 1), ("TN", 0, 0)]:
        count, share = matrix[row, column], matrix[row, column] / matrix[row].sum()
        assert f"({kind}) {count:,} {share:.2%} of the row" in text
    assert f"F1 {sk.f1_score(truth, p >= 0.5):.3f}" in text
    share, mean = calibration_curve(truth, p, n_bins=15)
    line = FIGURES["calibration"].axes[0].lines[1]
    shown = np.isfinite(line.get_xdata())
    assert line.get_xdata()[shown] == pytest.approx(mean, abs=1e-6)
    assert line.get_ydata()[shown] == pytest.approx(share, abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_what_is_not_there_is_a_dash_an_error_or_left_out():
    evaluation, masks = Evaluation(), Evaluation()
    empty = np.zeros((5, 5), bool)
    evaluation.add(empty, empty, np.zeros((5, 5)), name="x")
    text = words(plots.plot_confusion_matrix(evaluation))
    assert "(TP) 0 -" in text and "precision -" in text
    assert "AUC -" in words(plots.plot_roc(evaluation))
    assert "average precision -" in words(plots.plot_precision_recall(evaluation))
    with pytest.raises(ValueError, match="no image has a lesion"):
        plots.plot_dice_by_size(evaluation)
    masks.add(~empty, ~empty, name="x")
    for plot in (plots.plot_roc, plots.plot_precision_recall, plots.plot_calibration):
        with pytest.raises(ValueError, match="masks only"):
            plot(masks)
    with pytest.raises(ValueError, match="6 images have a lesion and 0 none"):
        plots.plot_image_roc(make_evaluation(normals=False))
    text = words(plots.plot_roc(make_evaluation(normals=False)))
    assert "all 6 images" in text and "lesion images" not in text  # they are the same
    for plot in (plots.plot_examples, plots.plot_predictions, plots.plot_history):
        with pytest.raises(ValueError, match="at least one"):
            plot([])


def test_every_lesion_image_has_its_mark_and_every_size_its_mean():
    evaluation, rng = Evaluation(), np.random.default_rng(0)
    for i in range(90):
        truth = disc(40, 60, 20, 30, rng.uniform(3, 18))
        seen = truth & disc(40, 60, 20, rng.uniform(5, 35), 15)
        evaluation.add(truth, seen, name=str(i), label=("benign", "malignant", "")[i % 3])
    figure = plots.plot_dice_by_size(evaluation)
    axes = figure.axes[0]
    scattered = [c for c in axes.collections if isinstance(c, PathCollection)]
    marks = np.concatenate([marks.get_offsets() for marks in scattered])
    expected = np.array([(100 * (c.tp + c.fn) / 2400, c.dice) for c in evaluation.table])
    assert np.allclose(np.sort(np.asarray(marks), axis=0), np.sort(expected, axis=0))
    assert "benign (30)" in words(figure) and "no class (30)" in words(figure)
    means = [bars.lines[0].get_xydata()[0] for bars in axes.containers]
    sizes, dice = expected.T
    ranges = [(low <= sizes) & (sizes < high) for low, high in ((0, 2), (2, 5), (5, 10), (10, 101))]
    by_hand = [(np.median(sizes[r]), np.mean(dice[r])) for r in ranges if r.any()]
    assert len(means) == 4 and np.allclose(means, by_hand)


# --- pictures -------------------------------------------------------------------------------


def enclosed(collection):
    """Give the area enclosed by contour lines: outer rings positive, holes negative."""
    rings = (r for path in collection.get_paths() for r in path.to_polygons(closed_only=False))
    pairs = [(ring[:, 0], ring[:, 1]) for ring in rings]
    return abs(sum((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2 for x, y in pairs))


def test_predictions_crop_nothing_and_keep_the_aspect():
    rows = make_rows(3)
    figure = plots.plot_predictions(rows)
    render(figure)
    panels = figure.axes[:12]
    for index, axes in enumerate(panels):
        height, width = rows[index // 4][1].shape
        assert axes.get_xlim() == (-0.5, width - 0.5) and axes.get_ylim() == (height - 0.5, -0.5)
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(width / height, rel=0.02)
    image, _, probabilities, *_ = rows[0]
    shown = image[..., 0], image[..., 0], probabilities, image[..., 0]
    for axes, expected in zip(panels, shown, strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), expected)
    assert figure.axes[12].get_xlim() == (0, 1)  # the bar of the probability


def test_fill_and_outline_cover_the_masks():
    square, ring, edge, dot = (np.zeros((50, 60), bool) for _ in range(4))
    square[10:30, 20:50] = True
    ring[5:45, 5:45] = True
    ring[15:35, 15:35] = False
    edge[:20, :10] = True
    dot[25, 30] = True
    for mask in (square, ring, edge, np.ones((50, 60), bool), dot):
        figure = plots.plot_predictions([(mask[..., None] * 1.0, mask, mask * 1.0, mask, "x")])
        _, truth, _, prediction = figure.axes[3].collections
        for shape in figure.axes[3].collections:  # the line cuts the corners of pixels
            assert enclosed(shape) == pytest.approx(mask.sum(), abs=4)
    assert not np.allclose(truth.get_edgecolor(), prediction.get_edgecolor())
    assert truth.get_linestyle() != prediction.get_linestyle()
    (legend,) = legends(figure)
    assert [t.get_text() for t in legend.get_texts()] == ["truth", "prediction (final mask)"]
    for line, collection in zip(legend.get_lines(), (truth, prediction), strict=True):
        assert np.allclose(to_rgba(line.get_color()), collection.get_edgecolor()[0])


@pytest.mark.filterwarnings("error")
def test_the_text_above_a_prediction_is_the_score_of_this_image():
    image, truth, p = make_pair(0)
    empty, mask = np.zeros_like(truth), p >= 0.5
    rows = [
        (image, truth, p, mask, "found"),
        (image, truth, p, empty, "nothing"),
        (image, empty, p, empty, "normal"),
        (image, empty, p, mask, "alarm"),
        (image, None, p, mask, "unknown"),
    ]
    figure = plots.plot_predictions(rows)
    render(figure)
    above = [axes.get_title("left").split("\n") for axes in figure.axes[:20:4]]
    dice = sk.f1_score(truth.ravel(), mask.ravel())
    iou = sk.jaccard_score(truth.ravel(), mask.ravel())
    assert above == [
        ["found", f"Dice {dice:.2f}, IoU {iou:.2f}"],
        ["nothing", "Dice 0.00, IoU 0.00, missed"],
        ["normal", "no lesion: left empty"],
        ["alarm", f"no lesion: false area {mask.mean():.1%} of image"],
        ["unknown", ""],
    ]
    assert "no truth given" in words(figure)


def test_augmentation_is_shown_as_it_is_drawn():
    image, mask, _ = make_pair(0)
    augmentation = Augmentation()
    figure = plots.plot_augmentation(image, mask, augmentation, seed=5, count=2)
    panels = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    expected = augmentation.apply(image, mask, np.random.default_rng([5, 2]))[0]
    np.testing.assert_array_equal(panels[0], image[..., 0])
    np.testing.assert_array_equal(panels[2], expected[..., 0])


# --- history and threshold ------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_history_shows_every_value_and_the_best_epoch():
    history = make_history()
    figure = plots.plot_history(history)
    best = 1 + int(np.argmin([row["val_loss"] for row in history]))
    for axes, key in zip(figure.axes, ("loss", "accuracy", "dice"), strict=True):
        for line, name in zip(axes.lines, (key, f"val_{key}"), strict=False):
            assert list(line.get_ydata()) == [row[name] for row in history]
        assert axes.lines[2].get_xdata() == [best, best]
    assert f"epoch {best}" in words(figure)
    figure = plots.plot_history([{"epoch": 1, "loss": 0.5, "val_loss": None}])  # one, with a gap
    render(figure)
    assert [len(axes.lines) for axes in figure.axes] == [1, 0, 0]
    assert figure.axes[0].lines[0].get_marker() == "o"
    nan = [{"epoch": e, "loss": 1.0, "val_loss": v} for e, v in ((1, np.nan), (2, 0.3))]
    assert "epoch 2" in words(plots.plot_history(nan))


def test_threshold_curve_marks_choice_and_requirement():
    curves = [0.2, 0.5], [0.7, 0.6], [0.5, 0.9]
    counts = {"lesions": 9, "chosen": 0.5, "required": None}
    axes = plots.plot_threshold_curve(*curves, normals=10, **counts).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[0.7, 0.6], [0.5, 0.9]]
    assert axes.lines[2].get_xdata() == [0.5, 0.5] and len(axes.lines) == 3
    few = plots.plot_threshold_curve(*curves, normals=9, **counts).axes[0]
    assert len(few.lines[1].get_ydata()) == 0 and "too few" in few.lines[1].get_label()


# --- files ----------------------------------------------------------------------------------


def test_figures_are_saved_and_displayed(tmp_path):
    path = plots.save_figure(FIGURES["roc"], tmp_path / "new" / "roc.png", dpi=60)
    with Image.open(path) as picture:
        width, height = FIGURES["roc"].get_size_inches()
        assert picture.size == pytest.approx((60 * width, 60 * height), abs=1)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # printable: white paper
    assert [p.name for p in path.parent.iterdir()] == ["roc.png"]
    assert FIGURES["roc"]._repr_jpeg_().startswith(b"\xff\xd8")
    assert plots.save_figure(FIGURES["roc"], tmp_path / "roc.pdf").read_bytes().startswith(b"%PDF")

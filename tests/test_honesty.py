"""No number can be misread: every figure and page says what it is of, and nothing else gets in."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_png
from test_evaluation import make_fold
from test_inference import dark_is_lesion
from test_plots import draw_all, words

from lab import ledger
from lab.tables import all_tables
from unet_lib import plots
from unet_lib.dataset import Split, TrainingImages, content_hash, find_cases, load_case
from unet_lib.foreign import ForeignWeights
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter, evaluate_cases
from unet_lib.metrics import Evaluation, ProbabilityHistogram, score_case
from unet_lib.metrics.curves import Calibration
from unet_lib.phantoms import make_phantoms
from unet_lib.predictions import find_predictions
from unet_lib.provenance import PHANTOM_BANNER, SEEN_BANNER, Provenance
from unet_lib.report import compare, summarise, write_comparison, write_report
from unet_lib.report.markdown import NO_INTERVAL
from unet_lib.training import load_crossvalidation, train, tune_threshold
from unet_lib.weights import ExportError
from unet_lib.weights.export import _compare

# --- every figure and page ------------------------------------------------------------------

OF_DATA = {"plot_examples": "examples", "plot_augmentation": "augmentation"}
OF_SCORES = {
    "plot_predictions": "predictions",
    "plot_history": "history",
    "plot_threshold_curve": "threshold",
    "plot_roc": "roc",
    "plot_image_roc": "image_roc",
    "plot_precision_recall": "precision_recall",
    "plot_confusion_matrix": "confusion",
    "plot_calibration": "calibration",
    "plot_dice_by_size": "size",
}
PARTS = {"train": 112, "validation": 16, "test": 32}
CLEAN = {"model": "unet", "data": "BUSI", "split": "five, fold 2", "fold": 2, "parts": PARTS}
SPLITS = "five, fold 0; five, fold 1"
ABOUTS = {
    "clinical": CLEAN | {"part": "test", "seen_in_training": False},
    "phantoms": CLEAN | {"data": "phantoms", "data_kind": "phantoms"},
    "merged": CLEAN | {"data_kind": "clinical; phantoms", "split": SPLITS, "fold": "0; 1"},
    "seen": CLEAN | {"part": "validation", "seen_in_training": True},
    "unknown": {"seen_in_training": None, "own_split": "3 of 9 test images have a group mate"},
}
BANNERS = dict.fromkeys(("phantoms", "merged"), PHANTOM_BANNER) | {"seen": SEEN_BANNER}
BANNERS["unknown"] = "LEAKING SPLIT of the data set's authors: 3 of 9 test images"
ANY_BANNER = ("PHANTOMS", "TRAINING IMAGES", "LEAKING SPLIT")


def says_what_it_is_of(text, kind, model=True):
    """Check what every figure and page must say."""
    about = ABOUTS[kind]
    assert (BANNERS[kind] in text) if kind in BANNERS else not any(b in text for b in ANY_BANNER)
    assert f"data: {about.get('data', 'not named')}" in text
    assert re.search(r"\d+ (\w+ )?images?\b", text), "no number of images"
    assert f"fold: {about.get('fold', 'not named')}" in text
    assert ("split: five " in text + " ") == ("split" in about)
    if model:
        assert f"model: {about.get('model', 'not named')}" in text
        if "seen_in_training" in about:
            assert ("training images unknown" in text.lower()) == (kind == "unknown")
    assert ("validation (no test)" in text) == (about.get("part") == "validation")


@pytest.mark.parametrize("kind", ABOUTS)
def test_every_figure_says_what_it_is_of(kind):
    drawn = draw_all(ABOUTS[kind])
    # a new figure belongs into one of the two lists, and into draw_all
    assert {*OF_DATA, *OF_SCORES} == {name for name in plots.__all__ if name.startswith("plot_")}
    for name in (*OF_DATA.values(), *OF_SCORES.values()):
        text = words(drawn[name])
        says_what_it_is_of(text, kind, model=name in OF_SCORES.values())
        if name in OF_DATA.values():
            assert "no scores" in text, name
        else:
            assert re.search(r"pooled|per (lesion )?image", text), name


@pytest.mark.parametrize("kind", ["clinical", "phantoms", "seen", "unknown"])
def test_every_page_says_what_it_is_of(kind, tmp_path):
    """Markdown, HTML and JSON of the report, the comparison, the tables of a cross-validation."""
    scored = make_fold(0, count=24)
    evaluation = Evaluation(scored.table, scored.histograms, dict(ABOUTS[kind]))
    folder = write_report(evaluation, tmp_path, answer="It works here.").parent
    other = compare(scored.table, make_fold(0, 1.0, count=24).table)
    write_comparison(other, folder, "a", "b", provenance=evaluation.provenance)
    for name in ("report.html", "comparison.md"):
        text = re.sub(r"\\(.)", r"\1", (folder / name).read_text(encoding="utf-8"))
        says_what_it_is_of(text.replace("&#39;", "'"), kind, model=name == "report.html")
    tables = re.sub(r"\\(.)", r"\1", all_tables({0: evaluation}, name="unet"))
    assert (BANNERS[kind] in tables) if kind in BANNERS else "PHANTOMS" not in tables
    assert f"data: {ABOUTS[kind].get('data', 'not named')}" in tables and "24 images" in tables
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert -1 < report.find(BANNERS.get(kind, "# ")) < report.index("It works here.")
    for name in ("report.md", "summary.json", "comparison.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert (BANNERS[kind] in text) if kind in BANNERS else "PHANTOMS" not in text
    for key in ("model", "data", "fold", "part"):
        assert (f"- {key}: " in report) == (key in ABOUTS[kind])
    assert "- images: 24 (16 with a lesion, 8 without)" in report


# --- too few images -------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(1, 1), (19, 1), (20, 1), (38, 2), (40, 2), (40, 3)])
def test_too_few_groups_give_no_interval_and_every_text_says_so(count, size):
    rng = np.random.default_rng(count)
    evaluation = Evaluation(provenance={"model": "m", "data": "d", "fold": 0})
    for i in range(count):
        truth = np.zeros((12, 12), bool)
        truth[2:8, 2:8] = True
        found = truth & (rng.random(truth.shape) < 0.7)
        name = f"image {i}"
        evaluation.add(truth, found, found * 0.9, name=name, label="benign", group=f"g{i // size}")
    summary = summarise(evaluation)
    dice, groups = summary.per_image[0]["means"]["dice"], -(-count // size)
    assert dice.known == (groups >= 20)
    plain = summary.to_dict()
    low = plain["per_image"][0]["means"]["dice"]["low"]
    assert (low is None) == (not dice.known) and "20 near-duplicate groups" in plain["intervals"]
    text = summary.to_markdown()
    for section in re.split(r"\n## ", text)[1:]:
        assert ("(-)" in re.sub(r'"\(-\)"', "", section)) == (NO_INTERVAL in section)
    tables = all_tables({0: evaluation}, name="m")
    assert ("(-)" in re.sub(r'"\(-\)"', "", tables)) == (NO_INTERVAL in tables)
    assert not re.search(r"\bnan\b", text + tables)
    assert dice.known or f"{dice.mean:.3f} (-)" in text


def test_a_row_of_the_ledger_says_what_is_not_known():
    published = Path(__file__).parent.parent / "experiments" / "joint" / "joint-BUSI"
    folds = load_crossvalidation(published)
    row = ledger.row_of(folds, "validation", folds)
    row |= {name: float("nan") for name, value in row.items() if isinstance(value, float)}
    text = ledger.to_text(row)
    assert text.count(NO_INTERVAL) == 2 and not re.search(r"\bnan\b", text)


# --- what is no probability or no mask ------------------------------------------------------

TRUTH = np.zeros((6, 7), bool)
TRUTH[2:5, 1:4] = True
GOOD = TRUTH.astype(np.float32)
CORNER = np.arange(TRUTH.size).reshape(TRUTH.shape) == 5
NO_MAPS = [np.where(CORNER, np.float32(value), GOOD) for value in (np.nan, -0.001, 1.001, np.inf)]
NO_MAPS += [GOOD.T, GOOD[1:], GOOD[..., None], GOOD[0], GOOD * 1j]
NO_MAPS += [(GOOD * 255).astype(kind) for kind in ("uint8", "int64", "bool")]


@pytest.mark.parametrize("wrong", NO_MAPS, ids=lambda x: f"{x.dtype} {x.shape}")
def test_what_is_no_probability_is_refused_everywhere(wrong):
    evaluation = Evaluation()
    evaluation.add(TRUTH, TRUTH, GOOD, name="first")
    before = list(evaluation.table), evaluation.histogram().n
    image = TRUTH[..., None] * 1.0
    for refuse in (
        lambda: ProbabilityHistogram.of(TRUTH, wrong),
        lambda: Calibration.of(TRUTH, wrong),
        lambda: evaluation.add(TRUTH, TRUTH, wrong, name="x"),
        lambda: plots.plot_predictions([(image, TRUTH, wrong, TRUTH, "x")]),
        lambda: plots.plot_predictions([(image, None, wrong, TRUTH, "x")]),
    ):
        with pytest.raises(ValueError, match="probabilit"):
            refuse()
    assert (list(evaluation.table), evaluation.histogram().n) == before  # nothing of it was added


NO_MASKS = [*map(TRUTH.astype, ("uint8", "int64", "float32"))]
NO_MASKS += [TRUTH.T, TRUTH[1:], TRUTH[..., None], TRUTH[0], TRUTH[:0]]


@pytest.mark.parametrize("wrong", NO_MASKS, ids=lambda x: f"{x.dtype} {x.shape}")
def test_what_is_no_mask_is_refused_everywhere(wrong):
    image = TRUTH[..., None] * 1.0
    for truth, mask in ((TRUTH, wrong), (wrong, TRUTH)):
        for refuse in (
            lambda t=truth, m=mask: score_case(t, m, name="x"),
            lambda t=truth, m=mask: Evaluation().add(t, m, GOOD, name="x"),
            lambda t=truth, m=mask: plots.plot_predictions([(image, t, GOOD, m, "x")]),
        ):
            with pytest.raises(ValueError, match="^x: .*mask"):
                refuse()
    for take in (ProbabilityHistogram.of, Calibration.of):
        with pytest.raises(ValueError, match=r"mask|probabilit"):
            take(wrong, GOOD)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return find_cases(make_phantoms(tmp_path_factory.mktemp("data") / "p", 6, 3, progress=False))


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.5])
def test_a_broken_network_gives_no_number(value, cases):
    """Segmenter, evaluation, threshold and export, each refuses what is no probability."""
    network = dark_is_lesion(32)
    network.set_weights([np.zeros((1, 1, 1, 1)), np.full(1, value)])
    segmenter = Segmenter(network, Preprocessing(32))
    for refuse in (
        lambda: segmenter.segment(load_case(cases[0])[0]),
        lambda: evaluate_cases(segmenter, cases, progress=False),
        lambda: tune_threshold(segmenter, cases, progress=False),
    ):
        with pytest.raises(ValueError, match="network is broken|End it with a sigmoid"):
            refuse()
    constant = np.full((4, 32, 32, 1), value, np.float32)
    with pytest.raises(ExportError, match="probabilities lie in"):
        _compare(lambda batch: batch, constant, constant)


def test_a_network_of_two_outputs_is_refused():
    import keras

    inputs = keras.Input((16, 16, 1))
    two = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="softmax")(inputs))
    with pytest.raises(ValueError, match=r"output is \(None, 16, 16, 2\); expected \(N, S, S, 1\)"):
        Segmenter(two, Preprocessing(16))


# --- thresholds and the images that chose them ----------------------------------------------


def recorded(cases, chosen):
    """A segmenter that says that it was trained on `chosen`."""
    record = TrainingImages.of("p", chosen, [content_hash(load_case(c)[0]) for c in chosen])
    about = {"name": "m", "data": "p", "training_images": record.to_dict()}
    return Segmenter(dark_is_lesion(32), Preprocessing(32), provenance=about)


def seen(segmenter, cases):
    return evaluate_cases(segmenter, cases, progress=False).provenance.seen_in_training


def test_a_threshold_is_not_tuned_on_test_images(cases):
    segmenter = recorded(cases, cases[:4])
    with pytest.raises(ValueError, match=f"{re.escape(cases[4].name)} is neither a training nor"):
        tune_threshold(segmenter, cases[2:], progress=False)
    assert seen(segmenter, cases[4:]) is False
    tune_threshold(segmenter, cases[2:4], progress=False)
    assert seen(segmenter, cases[4:]) is False
    tune_threshold(segmenter, cases[:5], new_images=True, progress=False)
    assert seen(segmenter, cases[4:]) is True and seen(segmenter, cases[5:]) is False


def test_an_operating_point_needs_a_split_without_test_images(cases, tmp_path):
    """It may have been chosen on them; the threshold of a split with validation images neither."""
    point = (0.5, Cleaning())
    for split, message in (
        (Split(tuple(cases[:3]), (), tuple(cases[3:]), "s"), "'validation': 0, 'test': [1-9]"),
        (Split(tuple(cases[:3]), tuple(cases[3:]), (), "s"), "'validation': [1-9]"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*may have been chosen on the others"):
            train(split, tmp_path / "run", operating_point=point, progress=False)


def test_images_that_tuned_a_network_from_elsewhere_are_no_test(cases):
    segmenter = Segmenter(dark_is_lesion(32), Preprocessing(32))
    tune_threshold(segmenter, cases[:4], progress=False)
    assert seen(segmenter, cases) is True
    assert seen(segmenter, cases[4:]) is None  # what trained it is still not known
    assert SEEN_BANNER in Provenance(seen_in_training=seen(segmenter, cases[:1])).banner


def test_weights_from_elsewhere_say_which_images_settled_their_reading(cases):
    used = tuple(content_hash(load_case(case)[0]) for case in cases[:2])
    foreign = ForeignWeights(
        dark_is_lesion(32), {}, (), Preprocessing(32), "unit", 0, "w.h5", calibrated_on=used
    )
    assert seen(foreign.segmenter(), cases) is True
    assert seen(foreign.segmenter(), cases[2:]) is None


def test_an_evaluation_says_what_chose_its_threshold(cases):
    segmenter = recorded(cases, cases[:4])

    def told(run, threshold=0.5):
        segmenter.provenance = segmenter.provenance.but(training=run)
        segmenter.threshold = threshold
        return evaluate_cases(segmenter, cases[4:], progress=False).provenance.threshold_chosen

    run = {"threshold": 0.5, "cleaning": Cleaning().to_dict()}
    assert told(None).startswith("not recorded")
    assert told(run) == "beforehand, by whoever trained it"
    assert told({**run, "validation_dice": 0.7, "lesions": 9, "normals": 3}) == (
        "on 12 validation images"
    )
    assert told({**run, "validation_dice": 0.7, "fixed": True}) == "beforehand, by the recipe"
    assert told(run, 0.4).startswith("changed after training")


def test_facts_of_the_model_and_phantoms_cannot_be_talked_away(cases):
    """What the caller says does not hide threshold, preprocessing, phantoms or seen images."""
    lies = {"threshold": 0.9, "preprocessing": {}, "cleaning": {}, "model_sha256": "0"}
    lies |= {"data_kind": "clinical", "seen_in_training": False, "threshold_chosen": ""}
    segmenter = replace(recorded(cases, cases[:1]), threshold=0.3, cleaning=Cleaning(0.1))
    about = evaluate_cases(segmenter, cases, provenance=lies, progress=False).provenance
    assert {key for key, value in lies.items() if getattr(about, key) == value} == set()
    assert (about.threshold, about.cleaning["minimum_area"]) == (0.3, 0.1)
    assert about.banner == f"{PHANTOM_BANNER}\n{SEEN_BANNER}"


def test_scored_predictions_say_what_is_not_known_of_them(cases, tmp_path):
    for case in cases:
        write_png(tmp_path / f"{case.name}_pred.png", load_case(case)[1].astype("uint8") * 255)
    about = find_predictions(tmp_path, cases).evaluate({"data": "p"}, progress=False).provenance
    assert about.banner == PHANTOM_BANNER  # noticed without being said
    first = evaluate_cases(recorded(cases, []), cases, progress=False).provenance
    assert about.data_sha256 == first.data_sha256 and len(about.predictions_sha256) == 64
    write_png(tmp_path / f"{cases[0].name}_pred.png", 0 * load_case(cases[0])[1].astype("uint8"))
    again = find_predictions(tmp_path, cases).evaluate(progress=False).provenance
    assert again.data_sha256 == about.data_sha256
    assert again.predictions_sha256 != about.predictions_sha256

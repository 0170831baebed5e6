"""The command score: masks of any program, the same table as ours, one clear error each."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_png
from test_dicom import region, write_dicom

from unet_lib.cli import main
from unet_lib.dataset import find_cases, load_case, make_folds
from unet_lib.images import ImageError
from unet_lib.metrics import CaseTable, Evaluation
from unet_lib.predictions import PredictionError, find_predictions
from unet_lib.report import summarise


def predict(cases, folder, seed=0, flips=0.15, ending="_pred", maps=None):
    """Write a perturbed truth as the mask of every case, perhaps with probability maps."""
    rng = np.random.default_rng(seed)
    for case in cases:
        truth = load_case(case)[1]
        p = np.where(rng.random(truth.shape) < flips, 0.4, 0.9) * truth
        p = (p + 0.05 * rng.random(truth.shape)).astype(np.float32)
        write_png(folder / f"{case.name}{ending}.png", np.uint8(p >= 0.5) * 255)
        if maps == "npy":
            np.save(folder / f"{case.name}_prob.npy", p)
        elif maps == "16 bit":
            write_png(folder / f"{case.name}_prob.png", np.uint16(np.round(p * 65535)))
    return folder


@pytest.fixture
def cases(tiny_busi):
    return find_cases(tiny_busi)


def score(*words):
    """Run the command; returns its exit code."""
    return main(["score", *map(str, words)])


def refused(capsys, arguments, *words):
    capsys.readouterr()
    assert score(*arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("unet_lib score: ") and all(str(word) in last for word in words), last


@pytest.mark.keras
@pytest.mark.slow
def test_masks_of_segment_and_evaluate_give_the_same_table_to_the_last_digit(
    tiny_busi, cases, tmp_path
):
    from unet_lib.images import Preprocessing
    from unet_lib.inference import Segmenter, evaluate_cases
    from unet_lib.model import UNetConfig, build_unet
    from unet_lib.weights import load_segmenter, save_segmenter

    config = UNetConfig(filters=4, depth=2)
    network = build_unet(config, 32)
    raw = Segmenter(network, Preprocessing(32))
    values = np.concatenate([raw.probabilities(load_case(case)[0]).ravel() for case in cases])
    model = tmp_path / "model"
    save_segmenter(Segmenter(network, Preprocessing(32), float(np.median(values))), config, model)
    segmenter = load_segmenter(model)
    evaluation = evaluate_cases(segmenter, cases, progress=False)
    assert 0 < evaluation.table.lesion_cases.pooled().dice < 0.9
    # what the command segment writes, images and overlays of the classes in one folder
    folders = [str(tiny_busi / label) for label in ("benign", "malignant", "normal")]
    written = tmp_path / "segmented"
    assert main(["segment", "--model", str(model), "--out", str(written), *folders]) == 0
    assert score(written, tiny_busi, "--out", tmp_path / "report") == 0
    columns = ("tp", "fp", "fn", "tn", "hd95", "mean_surface_distance", "surface_dice", "dice")
    again = CaseTable.read_csv(tmp_path / "report" / "cases.csv")
    for name in (*columns, "false_components", "area_error"):
        ours = evaluation.table.column(name)
        assert np.array_equal(again.column(name), ours, equal_nan=True), name
    # the same with the probabilities of evaluate, as another program would store them
    images = [load_case(case)[0] for case in cases]
    for case, p in zip(cases, segmenter.iter_probabilities(images), strict=True):
        np.save(written / f"{case.name}_prob.npy", p)
    scored = find_predictions(written, cases).evaluate(progress=False)
    assert scored.table == evaluation.table and scored.table[0].ece > 0
    assert scored.histograms.keys() == evaluation.histograms.keys()
    for key, histogram in scored.histograms.items():
        assert np.array_equal(histogram.lesion, evaluation.histograms[key].lesion)


def test_the_report_is_that_of_the_same_evaluation(tiny_busi, cases, tmp_path, capsys):
    folder = predict(cases, tmp_path / "theirs", maps="npy")
    assert score(folder, tiny_busi, "--out", tmp_path / "out") == 0
    saved = Evaluation.load(tmp_path / "out")
    expected = Evaluation(provenance=saved.provenance)
    for case in cases:
        mask = cv2.imread(str(folder / f"{case.name}_pred.png"), 0) > 0
        p = np.load(folder / f"{case.name}_prob.npy")
        truth = load_case(case)[1]
        expected.add(truth, mask, p, name=case.name, label=case.label, group=case.group)
    assert saved.table == expected.table
    known = saved.provenance.to_dict()
    assert {len(known.pop(key)) for key in ("data_sha256", "predictions_sha256")} == {64}
    assert "numpy" in known.pop("versions") and known == {
        **{"seen_in_training": None, "model": "theirs", "data": "Dataset_BUSI_with_GT"},
        **{"data_kind": "clinical", "part": "all images", "split": "none"},
        "threshold": "that of the given masks",
        "threshold_chosen": "not recorded: nobody can tell on which images",
        "groups": "near-duplicates found by the library (0 images in 0 groups)",
    }
    text = (tmp_path / "out" / "report.md").read_text()
    assert text in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").read_text().count("<svg role") > 0  # outlines
    image, truth, mask = find_predictions(folder, cases).show("benign (2)")
    assert image.shape == (*truth.shape, 1) and truth.sum() > mask.sum() > 0


def test_one_part_of_a_split_is_scored(tiny_busi, cases, tmp_path):
    split, path, out = make_folds(cases, count=3, seed=0), tmp_path / "split.csv", tmp_path / "out"
    split.save(path)
    test = split.split(cases, 1).test
    folder = predict(test, tmp_path / "p", ending="_mask")
    for _ in range(2):
        assert score(folder, tiny_busi, "--out", out, "--split", path, "--fold", 1) == 0
        saved = Evaluation.load(out)
        assert [case.name for case in saved.table] == [case.name for case in test]
        assert (saved.provenance.fold, saved.provenance.part) == (1, "test")
        predict(cases, folder, ending="_mask")  # more predictions than the part: passed over
    assert not saved.histograms and len(test) < len(cases)


def test_maps_of_16_bit_and_masks_in_folders(cases, tmp_path):
    folder = tmp_path / "p"
    for case in cases:
        predict([case], folder / case.label, ending="", maps="16 bit")
    evaluation = find_predictions(folder, cases).evaluate(progress=False)
    assert len(evaluation.table) == 9 and evaluation.table[0].brier > 0
    case = cases[0]
    stored = cv2.imread(str(folder / case.label / f"{case.name}_prob.png"), -1) / 65535
    expected = np.mean((stored - load_case(case)[1]) ** 2)
    assert evaluation.table[0].brier == pytest.approx(expected, abs=1e-6)


def test_another_size_is_refused_or_stretched(tiny_busi, cases, tmp_path, capsys):
    folder = predict(cases, tmp_path / "p", maps="npy")
    path = folder / "benign (1)_pred.png"
    truth = load_case(cases[0])[1]
    write_png(path, cv2.resize(np.uint8(truth) * 255, None, fx=2, fy=2, interpolation=0))
    arguments = [folder, tiny_busi, "--out", tmp_path / "out"]
    sizes = ["{} x {}".format(*(factor * side for side in truth.shape)) for factor in (2, 1)]
    refused(capsys, arguments, path, *sizes, "--resize")
    assert not (tmp_path / "out").exists()
    np.save(folder / "benign (1)_prob.npy", np.full((20, 20), 0.25))
    assert score(*arguments, "--resize") == 0
    saved = Evaluation.load(tmp_path / "out")
    assert saved.table[0].dice == 1 and "stretched" in saved.provenance.resized
    share = truth.mean()
    assert saved.table[0].brier == pytest.approx(share * 0.75**2 + (1 - share) * 0.25**2)
    predict(cases[:1], folder)
    refused(capsys, arguments, "benign (1)_prob.npy", "20 x 20")


def test_distances_of_dicom_images_are_in_mm(tmp_path):
    truth, pixels = np.zeros((30, 40), np.uint8), np.full((1, 30, 40), 90, np.uint8)
    truth[10:20, 10:20] = 255
    data = tmp_path / "data"
    for name in ("a", "b"):
        write_png(data / "masks" / f"{name}.png", truth)
        (data / "images").mkdir(exist_ok=True)
        calibrated = [region((0, 0, 39, 29))]  # .01 cm from column to column, .02 from row to row
        write_dicom(data / "images" / f"{name}.dcm", pixels, SequenceOfUltrasoundRegions=calibrated)
        write_png(tmp_path / "p" / f"{name}.png", np.roll(truth, 3, axis=0))
    evaluation = find_predictions(tmp_path / "p", find_cases(data)).evaluate(progress=False)
    case = evaluation.table[0]
    assert (case.unit, case.pixel_height_mm, case.pixel_width_mm) == ("mm", 0.2, 0.1)
    assert case.hd95 == pytest.approx(0.6)
    assert "| HD95 (mm) |" in summarise(evaluation).to_markdown()
    write_dicom(data / "images" / "b.dcm", pixels)  # one is not calibrated: pixels for all
    evaluation = find_predictions(tmp_path / "p", find_cases(data)).evaluate(progress=False)
    assert [case.hd95 for case in evaluation.table] == [3, 3] and evaluation.table.unit == "px"


def replaced(path, content):
    """Write another file in place of one."""
    path.write_bytes(content) if isinstance(content, bytes) else write_png(path, content)


MASK = "benign (1)_pred.png"
GREY = np.tile(np.arange(60, dtype=np.uint8), (50, 1))
BROKEN = {
    "missing": (
        lambda p: [(p / name).unlink() for name in (MASK, "normal (2)_pred.png")],
        ["2 of 9 images have no predicted mask: benign (1), normal (2)", "black mask"],
    ),
    "extra": (
        lambda p: (p / MASK).rename(p / "benign (99)_pred.png"),
        ["benign (99)_pred.png: belong to no image", "NAME_pred.png"],
    ),
    "grey": (lambda p: replaced(p / MASK, GREY), [MASK, "not a mask", "60 grey values"]),
    "two": (
        lambda p: replaced(p / "more" / "benign (1).png", GREY),
        ["benign (1)_pred.png and benign (1).png: two predictions of benign (1)"],
    ),
    "unreadable": (lambda p: replaced(p / MASK, b"nothing"), [MASK]),
    "some maps": (
        lambda p: np.save(p / "benign (1)_prob.npy", np.zeros((5, 5))),
        ["8 of 9 images have no predicted probability map: benign (2)"],
    ),
    "lost map": (
        lambda p: np.save(p / "benign 1_prob.npy", np.zeros((5, 5))),
        ["benign 1_prob.npy: belong to no image"],
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_does_not_fit_is_one_clear_error_and_nothing_is_written(
    kind, tiny_busi, cases, tmp_path, capsys
):
    folder, (spoil, words) = predict(cases, tmp_path / "p"), BROKEN[kind]
    spoil(folder)
    refused(capsys, [folder, tiny_busi, "--out", tmp_path / "out"], *words)
    assert not (tmp_path / "out").exists()


def npy(values, save=np.save):
    buffer = io.BytesIO()
    save(buffer, values)
    return buffer.getvalue()


GOOD = npy(np.zeros((50, 50)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.full((3, 3, 2), 0.5)), r"expected float probabilities \(H, W\)"),
        (npy(np.array([["a"]])), "expected float probabilities"),
        (npy(np.zeros((3, 3), np.uint8)), "got uint8 .* Divide 8-bit values by 255"),
        (npy(np.zeros((0, 3))), "expected float probabilities"),
        (npy(np.array([[None]])), "not an array file"),
        (npy(np.zeros((3, 3)), np.savez), "not an array file"),
        (b"", "not an array file"),
        (b"text", "not an array file"),
        (GOOD[:-8], "not an array file"),
        (GOOD.replace(b"(50, 50)", b"(-9, 50)"), "not an array file"),
        (GOOD.replace(b"(50, 50), }  ", b"(50, 99999), }"), "not an array file"),
        (None, r"benign \(1\): probabilities must lie in \[0, 1\], got 0 to 255"),
    ],
)
def test_a_map_that_is_none_is_refused(cases, tmp_path, content, message):
    folder = predict(cases, tmp_path / "p", maps="npy")
    content = npy(load_case(cases[0])[1] * 255.0) if content is None else content
    (folder / "benign (1)_prob.npy").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_predictions(folder, cases).evaluate(progress=False)


def test_masks_that_segment_wrote_may_cover_most(cases, tmp_path):
    """A bad model marks nearly all: `segment` knows that white is lesion, so it is scored."""
    folder = tmp_path / "masks"
    for case in cases:
        mask = np.full(load_case(case)[1].shape, 255, np.uint8)
        write_png(folder / f"{case.name}_pred.png", mask)
    with pytest.raises(ImageError, match="of one single value"):
        find_predictions(folder, cases).evaluate(progress=False)
    (folder / "lesions.csv").write_text("image\n")
    table = find_predictions(folder, cases).evaluate(progress=False).table
    assert all(score.fn == score.tn == 0 for score in table)


def test_the_truth_is_not_scored_against_itself(tiny_busi, cases, tmp_path, capsys):
    for folder in (tiny_busi, tiny_busi / "benign", tiny_busi.parent):
        refused(capsys, [folder, tiny_busi, "--out", tmp_path / "out"], "holds the data themselves")
    refused(capsys, [tmp_path / "absent", tiny_busi, "--out", tmp_path / "out"], "no such folder")
    folder = predict(cases, tmp_path / "p")
    refused(capsys, [folder, tiny_busi, "--out", folder], "never written among inputs")
    with pytest.raises(PredictionError, match="no such folder"):
        find_predictions(Path("absent"), cases)


def test_compare_takes_a_folder_of_predictions_a_report_and_a_table(
    tiny_busi, cases, tmp_path, capsys
):
    good, poor = predict(cases, tmp_path / "good"), predict(cases, tmp_path / "poor", 1, 0.6)
    report, out, texts = tmp_path / "their report", tmp_path / "out", []
    assert score(poor, tiny_busi, "--out", report) == 0
    for other, name in ((poor, "poor"), (report / "cases.csv", "their report")):
        given = (good, tiny_busi, "--out", out, "--name", "ours", "--compare", other)
        assert score(*given) == 0
        text = (out / "comparison.md").read_text()
        assert text.startswith(f"# ours compared with {name}\n")
        assert text in capsys.readouterr().out
        texts.append(text.replace(name, "poor"))
    plain = json.loads((out / "comparison.json").read_text())
    dice = next(score for score in plain["scores"] if score["score"] == "dice")
    ours, theirs = (CaseTable.read_csv(p / "cases.csv").lesion_cases for p in (out, report))
    difference = ours.column("dice") - theirs.column("dice")
    assert dice["difference"]["mean"] == pytest.approx(difference.mean())
    assert dice["better"] == 7 and dice["difference"]["low"] is None  # 7 groups are too few
    assert texts[0] == texts[1] and "too few" in texts[0]
    absent = ["--compare", tmp_path / "absent"]
    refused(capsys, [good, tiny_busi, "--out", tmp_path / "new", *absent], "--compare", "absent")
    assert not (tmp_path / "new").exists()


def test_a_table_of_more_images_is_cut_to_those_that_are_scored(tiny_busi, cases, tmp_path, capsys):
    folder = predict(cases, tmp_path / "p")
    assert score(folder, tiny_busi, "--out", tmp_path / "all") == 0
    split = make_folds(cases, count=3, seed=0)
    options = ["--split", split.save(tmp_path / "split.csv"), "--compare", tmp_path / "all"]
    assert score(folder, tiny_busi, "--out", tmp_path / "part", *options) == 0
    left = 9 - len(split.split(cases, 0).test)
    assert f"all: {left} images that are not scored here are left out" in capsys.readouterr().out

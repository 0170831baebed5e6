import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import save_constant, write_png
from test_dicom import SECRET, region, write_dicom

from unet_lib.cli import main
from unet_lib.cli.models import _SHORT, read_recipe
from unet_lib.training import RECIPES, Recipe, TrainingError

pytestmark = pytest.mark.keras
ROOT = Path(__file__).parent.parent
VERBS = (
    *("phantoms", "check", "duplicates", "train", "evaluate", "segment", "score"),
    *("crossvalidate", "download", "weights", "export", "view", "site"),
)
SMALL = ["--size", "32", "--filters", "4", "--depth", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    assert main(["phantoms", str(folder), "--count", "12", "--seed", "3"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", str(data), "--out", str(folder), *SMALL, "--epochs", "1"]
    assert main([*arguments, "--batch-size", "4", "--seed", "5"]) == 0
    return folder


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """A model folder with a network that says .75 of every pixel, and its bare weights file."""
    folder = save_constant(tmp_path_factory.mktemp("models"), 0.6)
    bare = folder.parent / "bare.weights.h5"
    shutil.copyfile(folder / "model.weights.h5", bare)
    return folder, bare


def images(folder, *names):
    """Write pictures of noise of different sizes; returns the folder."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        write_png(folder / name, rng.integers(0, 256, (40 + number, 61), dtype=np.uint8))
    return folder


def files(folder):
    """All names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def lesions(folder):
    with open(folder / "lesions.csv", newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys, arguments, *words):
    """The command ends with code 2, and its last line holds the words."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"unet_lib {arguments[0]}: ")
    for word in words:
        assert str(word) in last


# help and exit codes


@pytest.mark.slow
def test_the_real_program(tmp_path, phantoms, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)

    def program(*arguments):
        command = [sys.executable, "-m", "unet_lib", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    ended = program("--help")
    assert ended.returncode == 0 and not ended.stderr
    assert set(re.findall(r"^ {4}(\w+)\b", ended.stdout, re.MULTILINE)) == set(VERBS)
    ended = program("check", str(tmp_path / "absent"))
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert f"unet_lib check: {tmp_path / 'absent'}: no such folder" in ended.stderr
    tiny = ("--epochs", "1", "--size", "32", "--filters", "4", "--depth", "2")
    ended = program("train", str(phantoms), *tiny, "--out", str(tmp_path / "run"))
    bars = "reading: ", "training: ", "tuning threshold: "
    notes = "WARNING: All log messages before absl", "I0000"  # of TensorFlow, while it loads
    assert ended.returncode == 0 and ended.stderr
    assert all(line.startswith(bars + notes) for line in ended.stderr.splitlines() if line)


def test_help_of_each_command(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0 and f"unet_lib {verb}" in capsys.readouterr().out


def test_the_help_tells_the_true_defaults():
    default = Recipe().to_dict()
    for setting, _, value in _SHORT.values():
        part, name = setting.split(".")
        assert default[part][name] == value, setting


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "usage:"),
        ("draw", "invalid choice: 'draw'"),
        ("train data", "required: --out"),
        ("segment --out x", "required: IMAGE_OR_FOLDER, --model"),
        ("segment --model m --out o a.png --engine onnx", "--engine: is no more. Instead: Keras"),
        ("train --out o --processes 2", "--processes: is no more. Instead: start train --distr"),
        ("train --out o --coordinator a:1 --process-id 0", "Instead: start train --distributed"),
        ("crossvalidate --out o --ledger l.csv", "Instead: python -m lab.ledger"),
        ("crossvalidate --out o --notebook", "unrecognized arguments: --notebook"),  # not --note
    ],
)
def test_usage_errors_and_options_that_are_no_more(given, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(given.split())
    assert ended.value.code == 2 and words in capsys.readouterr().err


# phantoms and check


def test_check(data, tiny_busi, capsys):
    assert main(["check", str(data)]) == 0
    shown = capsys.readouterr().out
    assert "12 cases" in shown and "Every file can be used." in shown
    cut = tiny_busi / "benign" / "benign (1).png"
    cut.write_bytes(cut.read_bytes()[:200])
    (tiny_busi / "malignant" / "malignant (2)_mask.png").unlink()
    assert main(["check", str(tiny_busi)]) == 1
    shown = capsys.readouterr().out
    assert str(cut) in shown and "malignant (2).png: no mask" in shown
    assert "Mend the errors" in shown


# train


def test_a_run_is_written_and_resume_returns_it_as_it_is(run, data, capsys, monkeypatch):
    recipe = json.loads((run / "settings.json").read_text())["recipe"]
    assert (recipe["preprocessing"]["size"], recipe["training"]["epochs"]) == (32, 1)
    monkeypatch.setattr("unet_lib.training.run.fit", None)  # not trained again
    arguments = ["train", str(data), "--out", str(run), *SMALL, "--epochs", "1"]
    arguments += ["--batch-size", "4", "--seed", "5"]
    before = files(run)
    assert main([*arguments, "--resume"]) == 0
    shown = capsys.readouterr().out
    printed = json.loads(shown[shown.index("{") : shown.rindex("}") + 1])
    stored = json.loads((run / "result.json").read_text())
    stored.pop("candidates")
    assert printed == stored and printed["epochs"] == 1
    assert f"model: {run / 'model'}" in shown and "PHANTOMS" in shown
    assert files(run) == before
    refused(capsys, arguments, run, "not empty", "--resume")
    refused(capsys, [*arguments, "--resume", "--epochs", "2"], "training.epochs: 1 there, 2 now")


@pytest.fixture
def called(monkeypatch, data, tmp_path):
    """Call the command train with options; return what the library's `train` was called with."""
    seen = {}

    def train(split, folder, recipe, **more):
        seen.update(split=split, folder=folder, recipe=recipe, **more)
        raise KeyboardInterrupt

    def call(options):
        arguments = ["train", str(data), "--out", str(tmp_path / "r"), *options.split()]
        assert main(arguments) == 130
        return seen, seen["recipe"]

    monkeypatch.setattr("unet_lib.training.train", train)
    return call


def test_every_option_arrives(called, tmp_path):
    given = (
        "--size 64 --epochs 7 --batch-size 3 --filters 5 --depth 3 --learning-rate 0.01 --seed 9"
        " --precision float32 --deterministic --workers 4 --no-normals --resume --fold 2"
    )
    seen, recipe = called(given)
    training, network = recipe.training, recipe.network
    assert (training.epochs, training.batch_size, training.learning_rate) == (7, 3, 0.01)
    assert (training.seed, training.workers, training.precision) == (9, 4, "float32")
    assert training.deterministic and training.warmup_epochs == 7 / 5 and seen["resume"]
    assert (network.filters, network.depth, network.encoder) == (5, 3, "plain")
    assert network.encoder_weights is None and recipe.preprocessing.size == 64
    parts = seen["split"].train + seen["split"].validation + seen["split"].test
    assert {case.label for case in parts} == {"benign", "malignant"}
    assert seen["provenance"].fold == 2 and seen["folder"] == tmp_path / "r"
    seen, recipe = called("--encoder MobileNetV2 --imagenet --depth 3")
    assert (recipe.network.encoder, recipe.network.encoder_weights) == ("MobileNetV2", "imagenet")
    assert not seen["resume"] and not recipe.training.deterministic
    wanted = RECIPES["pretrained"].but("training.warmup_epochs=0.4", "training.epochs=2")
    assert called("--recipe pretrained --epochs 2")[1] == wanted


def test_a_training_that_starts_from_a_model_takes_its_network(called, data, tmp_path, capsys):
    for more, size in (("", 128), (" --size 96", 96)):
        recipe = called("--start-from bus-small" + more)[1]
        assert recipe.preprocessing.to_dict() == {"size": size, "keep_aspect": True}
        assert (recipe.network.filters, recipe.network.encoder) == (8, "EfficientNetLite0")
        assert recipe.network.encoder_weights is None
        assert recipe.training.start_from == "bus-small"
    given = ["train", data, "--out", tmp_path / "r", "--start-from"]
    path = tmp_path / "recipe.json"
    path.write_text('{"network": {"filters": 4}}')
    for more, words in (
        (["bus-small", "--filters", "32"], "--start-from bus-small: brings its network"),
        (["nothing"], "nothing: neither a model folder"),
        (["bus-small", "--recipe", path], "leave network.filters out"),
    ):
        refused(capsys, [*given, *more], words)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "--resume goes on"),
        (TrainingError("The loss became nan in epoch 3."), 1, "unet_lib train: The loss became"),
        (PermissionError(13, "no", "x.png"), 2, "unet_lib train: [Errno 13] no: 'x.png'"),
    ],
)
def test_how_a_command_ends(error, code, words, data, tmp_path, monkeypatch, capsys):
    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr("unet_lib.training.train", stop)
    assert main(["train", str(data), "--out", str(tmp_path / "r")]) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "fault",
    [
        lambda *args, **more: np.zeros(3).reshape(2, 2),  # ValueError of NumPy
        lambda *args, **more: int("x"),  # ValueError of Python, without a raise of ours
        lambda *args, **more: {}["absent"],
        lambda *args, **more: (_ for _ in ()).throw(RuntimeError("a fault of the backend")),
    ],
)
def test_a_fault_of_the_program_keeps_its_traceback(fault, data, tmp_path, monkeypatch):
    monkeypatch.setattr("unet_lib.training.train", fault)
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        main(["train", str(data), "--out", str(tmp_path / "r")])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--size 4", "size must be a whole number from 8 to 4096"),
        ("--epochs ²", "epochs must be a whole number from 1"),
        ("--fold 5", "there is no fold 5"),
        ("--split absent.csv", "absent.csv: cannot be read as a table"),
    ],
)
def test_wrong_settings_of_train(options, words, data, tmp_path, capsys):
    out = tmp_path / "r"
    refused(capsys, ["train", data, "--out", out, *options.split()], words)
    assert not out.exists()


def test_recipes_of_options_and_of_a_file(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"training": {"epochs": 2}, "network": {"encoder": "EfficientNetLite0"}}')

    def recipe_of(*settings, recipe=path):
        return read_recipe(argparse.Namespace(recipe=recipe, set=list(settings)))

    recipe = recipe_of()
    assert (recipe.training.warmup_epochs, recipe.network.encoder) == (0.4, "EfficientNetLite0")
    recipe = recipe_of("training.warmup_epochs=1", "training.epochs=30")
    assert (recipe.training.epochs, recipe.training.warmup_epochs) == (30, 1)
    assert recipe_of("training.epochs=3", recipe=None).training.warmup_epochs == 0.6
    with pytest.raises(ValueError, match=r"--set epochs: expected PART\.SETTING=VALUE"):
        recipe_of("epochs")
    for text in ("[]", '{"training": 3}', "{"):
        path.write_text(text)
        with pytest.raises(ValueError, match="recipe.json: (cannot be read|expected)"):
            recipe_of()


def test_an_unknown_format_is_refused_before_the_model_is_loaded(tmp_path, capsys):
    given = ["export", "--model", "nobody", "--format", "xyz", "--out", tmp_path / "o"]
    refused(capsys, given, "--format xyz: expected onnx, litert, openvino")


@pytest.mark.parametrize(
    "command",
    ["train DATA", "crossvalidate DATA", "evaluate DATA --model M", "export --model M --format x"],
)
def test_a_file_is_no_folder_for_results(command, data, constant, tmp_path, capsys):
    out = tmp_path / "file"
    out.write_text("mine")
    names = {"DATA": data, "M": constant[0]}
    given = [names.get(word, word) for word in command.split()]
    refused(capsys, [*given, "--out", out], f"--out {out}: is a file; expected a folder")
    assert out.read_text() == "mine"


# evaluate


def test_evaluate_prints_and_writes_the_report(run, data, tmp_path, capsys):
    capsys.readouterr()
    arguments = ["evaluate", str(data), "--model", str(run), "--part", "all"]
    assert main([*arguments, "--out", str(tmp_path / "report")]) == 0
    report = (tmp_path / "report" / "report.md").read_text()
    assert report in capsys.readouterr().out
    assert "PHANTOMS (synthetic images): not a clinical result" in report
    assert "TRAINING IMAGES: not a test" in report  # part "all" holds the training images
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4 and len(scored(tmp_path / "report")) == 12
    weights = run / "model" / "model.weights.h5"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in page


def part_of(run, part):
    with open(run / "split.csv", newline="") as file:
        return {row["image"] for row in csv.DictReader(file) if row["fold0"] == part}


def scored(out):
    with open(out / "cases.csv", newline="") as file:
        return {row["name"] for row in csv.DictReader(file)}


def test_evaluate_with_a_split_file_another_part_or_a_weights_file(
    constant, run, data, tmp_path, capsys
):
    """The run's own split is a split file; one image more in the folder does not match it."""
    arguments = ["evaluate", "--out", tmp_path, "--split", run / "split.csv", "--model"]
    for given, part, model, seen in (
        ([run], "test", "run", False),
        ([constant[1], *SMALL], "validation", "bare.weights.h5", None),  # which does not say
    ):
        more = [data, "--part", part]
        assert main([str(word) for word in (*arguments, *given, *more)]) == 0
        about = json.loads((tmp_path / "about.json").read_text())
        assert scored(tmp_path) == part_of(run, part) and about["model"] == model
        assert (about["part"], about["seen_in_training"]) == (part, seen)
    assert about["threshold"] == 0.5
    copy = shutil.copytree(data, tmp_path / "copy")
    for ending in ("", "_mask"):
        shutil.copy(copy / "normal" / f"normal (1){ending}.png", copy / f"normal/new{ending}.png")
    words = ("does not match the folder", "1 images of the folder are not in the split (new)")
    refused(capsys, [*arguments, run, copy], *words)


# segment


def segment(model, out, *inputs):
    """Run the command; returns its exit code."""
    return main([str(word) for word in ("segment", "--model", model, "--out", out, *inputs)])


def test_segment_writes_mask_overlay_and_table_at_the_images_size(constant, tmp_path, capsys):
    """The network says .75 everywhere: one lesion, the whole image, is the known answer."""
    folder, out = images(tmp_path / "in", "a.png", "b.png"), tmp_path / "new" / "out"
    rng = np.random.default_rng(0)
    write_png(folder / "c.d.jpg", rng.integers(0, 256, (97, 33, 3), dtype=np.uint8))
    deep = write_png(tmp_path / "scan.TIF", rng.integers(0, 65536, (23, 150), dtype=np.uint16))
    assert segment(constant[0], out, folder, deep) == 0
    shapes = {"a.png": (40, 61), "b.png": (41, 61), "c.d.jpg": (97, 33), "scan.TIF": (23, 150)}
    written = {"lesions.csv"}
    for (name, shape), row in zip(shapes.items(), lesions(out), strict=True):
        stem = name.rpartition(".")[0]
        written |= {f"{stem}_pred.png", f"{stem}_overlay.png"}
        mask = cv2.imread(str(out / f"{stem}_pred.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == shape and mask.dtype == np.uint8 and (mask == 255).all()
        overlay = cv2.imread(str(out / f"{stem}_overlay.png"), cv2.IMREAD_UNCHANGED)
        assert overlay.shape == (*shape, 3)
        assert (overlay[0] == (0, 159, 230)).all()  # the outline, blue first
        if name == "a.png":
            original = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(overlay[2:-2, 2:-2, 0], original[2:-2, 2:-2])
        height, width = shape
        expected = f"{name},1,1,{height * width},1.000000,0,0,{width},{height},0.7500,,,,,,"
        assert ",".join(row.values()) == expected
    assert (out / "lesions.csv").read_text().partition("\n")[0] == (
        "image,frame,lesion,area_px,area_fraction,left,top,width,height,mean_probability,area_mm2,"
        "width_mm,height_mm,shift_distance,shift_limit,unreadable"
    )
    assert set(files(out)) == written
    shown = capsys.readouterr().out
    assert "model: constant, threshold 0.6, input 32 x 32" in shown
    assert "images: 4; a lesion marked in 4, nothing in 0" in shown
    assert "Not a medical device" in shown


def test_segment_at_another_operating_point(constant, tmp_path, capsys):
    """The network says .75 everywhere, so either limit above it empties the mask."""
    folder = images(tmp_path / "in", "a.png")
    for number, (option, value, empty) in enumerate(
        [("--threshold", "0.7", False), ("--threshold", "0.8", True)]
        + [("--minimum-peak", "0.7", False), ("--minimum-peak", "0.8", True)]
    ):
        out = tmp_path / str(number)
        assert segment(constant[0], out, folder, option, value) == 0
        assert (lesions(out)[0]["lesion"] == "0") == empty
    for option, words in (("--threshold", "between 0 and 1"), ("--minimum-peak", "minimum_peak")):
        assert segment(constant[0], tmp_path / "no", folder, option, "1.5") == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_dicom_frames_millimetres_and_no_patient(constant, tmp_path, capsys):
    """A cine and a still without ending; what the header says of the patient goes nowhere."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    cine = np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)
    write_dicom(folder / "cine.dcm", cine, SequenceOfUltrasoundRegions=[region((0, 0, 49, 39))])
    write_dicom(folder / "IM000001", cine[:1, :30])
    write_dicom(folder / "DICOMDIR", cine)
    assert segment(constant[0], out, folder) == 0
    said = capsys.readouterr()
    assert "images: 2 with 4 frames; a lesion marked in 4, nothing in 0" in said.out
    names = ["IM000001", *(f"cine_frame{number:03}" for number in (1, 2, 3))]
    written = [f"{name}_{kind}.png" for name in names for kind in ("overlay", "pred")]
    assert files(out) == [*written, "lesions.csv"]
    # 0.01 cm from column to column and 0.02 cm from row to row
    keys = ("image", "frame", "area_mm2", "width_mm", "height_mm")
    assert [tuple(row[key] for key in keys) for row in lesions(out)] == [
        ("IM000001", "1", "", "", ""),
        *(("cine.dcm", number, "40.00", "5.00", "8.00") for number in "123"),
    ]
    for number, values in enumerate(cine, start=1):
        overlay = cv2.imread(str(out / f"cine_frame{number:03}_overlay.png"))
        np.testing.assert_array_equal(overlay[2:-2, 2:-2, 0], values[2:-2, 2:-2])
    texts = [said.out.encode(), said.err.encode(), *(p.read_bytes() for p in out.iterdir())]
    assert not any(SECRET.encode() in text or b"19480229" in text for text in texts)
    images(folder, "cine_frame002.png")  # would write the same name as a frame
    given = ["segment", "--model", constant[0], "--out", tmp_path / "o2", folder]
    refused(capsys, given, "both would write cine_frame002")


def test_a_name_that_is_no_utf8_is_segmented(constant, tmp_path):
    images(tmp_path, "in.png").joinpath("in.png").rename(tmp_path / os.fsdecode(b"b\xff.png"))
    assert segment(constant[0], tmp_path / "out", tmp_path) == 0
    assert b"\nb\xff.png,1,1," in (tmp_path / "out" / "lesions.csv").read_bytes()


def test_weights_file(constant, tmp_path, capsys):
    """The same network, but at the threshold .5 and the configuration of the options."""
    folder, bare = constant
    image, out = images(tmp_path / "in", "a.png"), tmp_path / "o"
    renamed = shutil.copy(bare, tmp_path / "bare")  # what a file holds counts, not its name
    for file in (bare, renamed):
        assert segment(file, out, image, *SMALL) == 0
        assert lesions(out)[0]["mean_probability"] == "0.7500"
    assert "model: bare.weights.h5, threshold 0.5, input 32 x 32" in capsys.readouterr().out
    assert segment(bare, out, image) == 0  # without the options: read as what it is
    shown = capsys.readouterr().out
    assert "found out from the file" in shown and "Training images unknown" in shown
    for given, words in (
        ([bare, "--filters", "0"], ["filters must be"]),
        ([tmp_path / "absent.weights.h5"], [tmp_path / "absent.weights.h5"]),
        ([folder, *SMALL[:4]], ["--size, --filters", "only for a weights file", folder]),
    ):
        refused(capsys, ["segment", "--out", out, image, "--model", *given], *words)


def test_nothing_found_is_said(constant, tmp_path, capsys):
    folder = shutil.copytree(constant[0], tmp_path / "strict")
    settings = json.loads((folder / "segmenter.json").read_text())
    settings["threshold"] = 0.9  # above the .75 that the network says everywhere
    del settings["settings_sha256"]  # else the change is noticed
    (folder / "segmenter.json").write_text(json.dumps(settings))
    assert segment(folder, tmp_path / "o", images(tmp_path / "in", "a.png")) == 0
    assert "images: 1; a lesion marked in 0, nothing in 1" in capsys.readouterr().out
    assert [row["lesion"] for row in lesions(tmp_path / "o")] == ["0"]
    assert not cv2.imread(str(tmp_path / "o" / "a_pred.png"), cv2.IMREAD_UNCHANGED).any()


def test_results_are_not_written_among_inputs(constant, data, tmp_path, capsys):
    """By folder, by file, by another spelling of the path, and through links."""
    folder = images(tmp_path / "in", "a.png", "b.png")
    linked, other = tmp_path / "links", tmp_path / "same"
    linked.mkdir()
    (linked / "a.png").symlink_to(folder / "a.png")
    other.symlink_to(folder, target_is_directory=True)
    before = [files(tmp_path), files(data)]
    for given, out in (
        (folder, folder),
        (folder / "a.png", folder),
        (folder, tmp_path / "x" / ".." / "in"),
        (other, folder),
        (folder, other),
        (linked / "a.png", folder),
        (linked / "a.png", linked),
    ):
        arguments = ["segment", "--model", constant[0], "--out", out, given]
        refused(capsys, arguments, "holds input images", "Choose another folder")
    arguments = ["evaluate", data, "--model", constant[0], "--part", "all"]
    refused(capsys, [*arguments, "--out", data / "benign"], "holds input images")
    assert [files(tmp_path), files(data)] == before
    assert segment(constant[0], folder / "o", folder) == 0


def test_two_inputs_of_one_name_are_refused_and_one_named_twice_is_done_once(
    constant, tmp_path, capsys, monkeypatch
):
    one, two = images(tmp_path / "one", "a.png"), images(tmp_path / "two", "a.jpg")
    words = (one / "a.png", two / "a.jpg", "both would write a_pred.png")
    for given in ((one, two), (one / "a.png", two / "a.jpg")):
        arguments = ["segment", "--model", constant[0], "--out", tmp_path / "o", *given]
        refused(capsys, arguments, *words)
        assert not (tmp_path / "o").exists()
    monkeypatch.chdir(tmp_path)
    assert segment(constant[0], "o", one, one / "a.png", "one/a.png") == 0
    assert [row["image"] for row in lesions(tmp_path / "o")] == ["a.png"]


def test_masks_results_and_hidden_files_of_a_folder_are_passed_over(constant, tmp_path, capsys):
    names = ("a.png", "a_mask.png", "a_mask_1.png", "a_pred.png", "a_overlay.PNG", "._a.png")
    kept = ("left_mask_view.png", "mask.png")  # names that only look like a mask's
    folder = images(tmp_path / "in", *names, *kept)
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.png").mkdir()
    assert segment(constant[0], tmp_path / "o", folder) == 0
    assert [row["image"] for row in lesions(tmp_path / "o")] == ["a.png", *kept]
    assert "Left out: 4 masks or earlier results" in capsys.readouterr().out
    # named outright, it is what the user wants
    assert segment(constant[0], tmp_path / "q", folder / "a_mask.png") == 0
    assert files(tmp_path / "q") == ["a_mask_overlay.png", "a_mask_pred.png", "lesions.csv"]


def test_what_is_not_there_is_named(constant, tmp_path, capsys):
    model, out = constant[0], tmp_path / "o"
    image = images(tmp_path / "in", "a.png") / "a.png"
    empty, other, absent = tmp_path / "empty", tmp_path / "other", tmp_path / "absent.png"
    empty.mkdir()
    other.mkdir()
    (other / "notes.docx").write_bytes(b"x")
    for given, words in (
        ([image, absent], (absent, "no such")),
        ([empty], (empty, "holds no image", "folders within are not searched.")),
        ([other], ("Left out: 1 ", "notes.docx")),
        ([image, "--model", "nothing-of-that-name"], ("nothing-of-that-name", "registered name")),
        ([image, "--out", image], (image, "is a file")),
    ):
        refused(capsys, ["segment", "--model", model, "--out", out, *given], *words)
    assert not out.exists()


def test_unreadable_images_are_listed_and_all_others_segmented(constant, tmp_path, capsys):
    bad, good = ("00.png", "09.png"), [f"{number:02}.png" for number in range(1, 9)]
    folder, out = images(tmp_path / "in", *bad, *good), tmp_path / "o"
    for name in bad:
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    assert segment(constant[0], out, folder) == 1
    said = capsys.readouterr()
    assert "images: 8; a lesion marked in 8, nothing in 0" in said.out
    assert "unet_lib segment: 2 of 10 files could not be read:" in said.err
    assert said.err.count("cannot be decoded") == 2 and len(files(out)) == 2 * 8 + 1
    rows = lesions(out)
    assert [row["image"] for row in rows] == [*good, *bad]
    assert all(("cannot be decoded" in row["unreadable"]) == (not row["lesion"]) for row in rows)

"""What the library does: `python tests/behaviour.py SECTION` prints a section as JSON.

Only what stays is used: the command line, the names that `unet_lib` exports, and files. Refusals,
committed folds, the ledger's digests and networks trained elsewhere have tests of their own. The
folders in `data/format1` were made by commit 4686e57: three epochs of a tiny network on 12 phantoms
of seed 3, whole, and stopped after the second epoch; and a model folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import platform
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "data" / "format1"
SECTIONS = {}
VERBS = (
    "phantoms check train evaluate segment score crossvalidate duplicates download export weights"
)
SHIPPED = ("bus-best", "busi-fold0", "bus-small")


def section(function):
    SECTIONS[function.__name__] = function
    return function


def machine() -> dict[str, str]:
    """What rounding depends on: the processor's instructions and the versions that compute."""
    flags = Path("/proc/cpuinfo")
    flags = re.findall(r"avx\w*|amx\w*", flags.read_text()) if flags.exists() else []
    packages = ("tensorflow", "keras", "numpy", "scipy", "opencv-python-headless", "scikit-learn")
    names = {name: version(name) for name in packages}
    return {"processor": " ".join([platform.machine(), *sorted(set(flags))]), **names}


def run(*arguments) -> tuple[int, str]:
    """Run ``python -m unet_lib`` in this process; return its exit code and last line."""
    main = importlib.import_module("unet_lib.__main__").main
    texts = io.StringIO()
    with contextlib.redirect_stdout(texts), contextlib.redirect_stderr(texts):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    return code, texts.getvalue()


def works(*arguments) -> str:
    code, text = run(*arguments)
    assert code == 0, f"{arguments}: {text[-2000:]}"
    return text


def digest(*parts) -> str:
    result = hashlib.sha256()
    for part in parts:
        result.update(part if isinstance(part, bytes) else str(part).encode())
        result.update(b"\0")
    return result.hexdigest()[:16]


def sample(array) -> list[float]:
    """Mean, spread and seven values of an array of probabilities."""
    flat = np.asarray(array, np.float64).ravel()
    picked = flat[np.linspace(0, flat.size - 1, 7).astype(int)]
    return [round(float(value), 7) for value in (flat.mean(), flat.std(), *picked)]


def texts_of(value):
    """JSON with every number as text, so that it is compared to the last digit."""
    if isinstance(value, dict):
        return {key: texts_of(item) for key, item in value.items()}
    return [texts_of(item) for item in value] if isinstance(value, list) else repr(value)


def keys_of(value, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {k for name, item in value.items() for k in keys_of(item, f"{prefix}.{name}")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key for item in value for key in keys_of(item, f"{prefix}[]")}
    return {prefix.lstrip(".")}


def twelve() -> Path:
    works("phantoms", "twelve", "--count", 12, "--seed", 3)
    return Path("twelve")


def report_of(folder: Path) -> dict:
    summary = json.loads((folder / "summary.json").read_text())
    parts = {k: digest(texts_of(v)) for k, v in sorted(summary.items()) if k != "about"}
    return {"cases": digest((folder / "cases.csv").read_text()), **parts}


@section
def phantoms():
    for seed in (0, 1, 2):
        works("phantoms", f"seed{seed}", "--count", 12, "--seed", seed)
    files = {folder.name: sorted(folder.rglob("*.png")) for folder in sorted(Path().iterdir())}
    return {k: digest(*(x for p in v for x in (p, p.read_bytes()))) for k, v in files.items()}


@section
def evaluate():
    works("phantoms", "data", "--count", 20, "--seed", 8)
    for name in SHIPPED:
        works("evaluate", "--model", name, "data", "--part", "all", "--out", name)
    return {name: report_of(Path(name)) for name in SHIPPED}


@section
def busi_evaluate():
    folder = os.environ["BUSI_DIR"]
    works("evaluate", "--model", "busi-fold0", folder, "--fold", 0, "--out", "out")
    return report_of(Path("out"))


@section
def score():
    data = twelve()
    for name, shift in (("ours", 4), ("theirs", 9)):
        Path(name).mkdir()
        for path in sorted(data.glob("*/*_mask.png")):
            truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            stem = path.stem.removesuffix("_mask")
            cv2.imwrite(
                f"{name}/{stem}_pred.png", 255 * (np.roll(truth, shift, 1) > 0).astype("u1")
            )
            soft = cv2.GaussianBlur(np.roll(truth, shift, 1).astype(np.float32), (0, 0), 4)
            np.save(f"{name}/{stem}_prob.npy", np.clip(soft / max(soft.max(), 1), 0, 1))
    works("score", "ours", data, "--out", "out", "--compare", "theirs")
    numbers = re.findall(r"-?\d*\.\d+", (Path("out") / "comparison.md").read_text())
    return {**report_of(Path("out")), "comparison": " ".join(numbers)}


@section
def segment():
    from PIL import Image
    from pydicom.data import get_testdata_file

    files = sorted(p for p in twelve().glob("*/*.png") if "_mask" not in p.name)
    pictures = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in files]
    Path("in").mkdir()
    for index in (0, 4, 11):
        cv2.imwrite(f"in/plain{index}.png", pictures[index])
    cv2.imwrite("in/deep.png", pictures[1].astype(np.uint16) * 200 + 300)
    pages = [Image.fromarray(cv2.resize(picture, (160, 120))) for picture in pictures[2:5]]
    pages[0].save("in/stack.tif", save_all=True, append_images=pages[1:])
    shutil.copy(get_testdata_file("examples_palette.dcm", download=False), "in")
    works("segment", "--model", "bus-small", "--out", "out", "in")
    masks = {p.name: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in Path("out").glob("*_pred*")}
    pixels = {name: digest(mask.shape, mask.tobytes()) for name, mask in sorted(masks.items())}
    return {"masks": pixels, "rows": (Path("out") / "lesions.csv").read_text().splitlines()}


def tiny_training(name: str, resume: bool) -> dict:
    from unet_lib import Recipe, open_dataset, train

    recipe = Recipe.from_dict(json.loads((FIXTURES / "half/settings.json").read_text())["recipe"])
    done = train(open_dataset("twelve", fold=0).split, name, recipe, resume=resume, progress=False)
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in done.history]
    weights = [array.tobytes() for array in done.segmenter.network.get_weights()]
    chosen = [done.result["best_epoch"], done.result["threshold"], done.result["cleaning"]]
    return {"weights": digest(*weights), "history": texts_of(history), "chosen": texts_of(chosen)}


@section
def training():
    """Whole, and gone on from the run that the recorded commit left half-finished."""
    twelve()
    shutil.copytree(FIXTURES / "half", "half")
    return {"whole": tiny_training("whole", False), "resumed": tiny_training("half", True)}


@section
def format1():
    """Folders that the recorded commit made are read."""
    from unet_lib import load_run, load_segmenter

    picture = np.random.default_rng(0).random((45, 60, 1)).astype(np.float32)
    result = {}
    done = load_run(FIXTURES / "finished")
    models = {"finished": done.segmenter, "model": load_segmenter(FIXTURES / "model")}
    for name, segmenter in models.items():
        settings = texts_of([segmenter.threshold, segmenter.cleaning.to_dict()])
        result[name] = [*settings, *sample(segmenter.probabilities(picture))]
    result["history"] = texts_of(done.history)
    return result


@section
def surface():
    """Names, flags, notebook parameters, make targets."""
    import unet_lib

    result = {"names": sorted(unet_lib.__all__)}
    for verb in VERBS.split():
        code, text = run(verb, "--help")
        result[verb] = " ".join([str(code), *sorted(set(re.findall(r"(?<=\s)--[a-z-]+", text)))])
    for name in ("Training_Unet", "Testing_Unet"):
        cells = json.loads((ROOT / f"{name}.ipynb").read_text())["cells"]
        cells = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
        result[name] = re.findall(r"^(\w+ = .+?) *(?:#.*)?$", "".join(cells[0]["source"]), re.M)
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M)
    return {**result, "make": sorted(targets)}


@section
def keys():
    """Keys of every JSON and header of every CSV that the commands write."""
    data, fold = twelve(), ("--set", "network.filters=4", "--set", "network.depth=1")
    fold = ("--folds", 0, "--final", *fold, "--set", "training.epochs=5")
    shutil.copytree(FIXTURES / "half", "half")
    tiny_training("half", True)
    works("evaluate", "--model", "half", data, "--out", "evaluate")
    works(
        "segment",
        "--model",
        "half",
        "--out",
        "segment",
        *(data / kind for kind in ("benign", "malignant", "normal")),
    )
    works("score", "segment", data, "--out", "score", "--compare", "segment")
    works("crossvalidate", data, "--out", "recipes/one", *fold)
    works("duplicates", data, "--out", "groups.csv")
    works("export", "--model", "half", "--format", "onnx", "--out", "export")
    result = {}
    for path in sorted(Path().rglob("*")):
        if path.suffix == ".json":
            names = sorted(keys_of(json.loads(path.read_text())))
            upper = sorted({".".join(name.split(".")[:2]) for name in names})
            lower = [name for name in names if ".versions." not in name]
            result[str(path)] = " ".join([*upper, digest(*lower)])
        elif path.suffix == ".csv":
            result[str(path)] = path.read_text().partition("\n")[0]
    return result


if __name__ == "__main__":
    print(json.dumps(SECTIONS[sys.argv[1]]()))

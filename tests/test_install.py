"""The wheel: what lies in it, and that it works in an empty folder elsewhere."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import pytest

from unet_lib.phantoms import make_phantoms

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of an earlier build gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    parts = ["unet_lib", "lab", "data/splits", "data/busi_audit.csv", "weights", "LICENSE"]
    parts += ["setup.py", "pyproject.toml", *(p.name for p in ROOT.glob("requirements*.txt"))]
    for part in parts:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (folder / "source" / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, folder / "source" / part)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", folder, folder / "source"], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that has the wheel and, for the rest, the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "-q", "--no-deps", wheel], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "these.pth").write_text("\n".join(site.getsitepackages()))
    return folder


def run(*command, cwd):
    home = {"HOME": str(cwd / "home"), "XDG_CACHE_HOME": str(cwd / "home" / "cache")}
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "BUSI_DIR")}
    done = subprocess.run(command, cwd=cwd, env=kept | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_library_and_what_it_reads(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {str(p.relative_to(ROOT)) for p in (ROOT / "unet_lib").rglob("*") if p.is_file()}
    assert {name for name in ours if "__pycache__" not in name} <= names
    data = ["data/busi_audit.csv", "data/splits/busi_5fold.csv", "weights/elsewhere.json"]
    model = [f"weights/bus-small/{name}" for name in ("model.weights.h5", "model.onnx")]
    assert {f"unet_lib/shipped/{path}" for path in data + model} <= names
    assert {name.partition("/")[0] for name in names} == {"unet_lib", "unet_lib-0.1.0.dist-info"}


def test_segment_in_an_empty_folder(installed, tmp_path):
    phantoms = make_phantoms(tmp_path / "phantoms", 3, progress=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    picture = next(p for p in sorted(phantoms.glob("*/*.png")) if "_mask" not in p.name)
    shutil.copy(picture, empty / "picture.png")
    command = [installed / "bin" / "unet", "segment", "picture.png", "--model", "bus-small"]
    shown = run(*command, "--out", "masks", cwd=empty)
    assert "images: 1;" in shown and "Not a medical device" in shown
    mask = cv2.imread(str(empty / "masks" / "picture_pred.png"), cv2.IMREAD_GRAYSCALE)
    assert mask.shape == cv2.imread(str(picture)).shape[:2]


def test_nothing_is_written_into_the_installation(installed, tmp_path):
    code = "from unet_lib import open_dataset as o, UNetConfig as U, build_unet as b; "
    code += "s = o('auto'); print(s.cases[0].image_path); "
    code += "b(U(encoder='EfficientNetLite0', encoder_weights='imagenet', filters=4), 64)"
    before = {p for p in installed.rglob("*") if "__pycache__" not in p.parts}
    shown = run(installed / "bin" / "python", "-c", code, cwd=tmp_path)
    assert str(tmp_path / "home" / "cache" / "unet_lib" / "data" / "phantoms") in shown
    assert {p for p in installed.rglob("*") if "__pycache__" not in p.parts} == before


def test_extras_and_dependencies_are_the_requirements_files(installed):
    (packages,) = installed.glob("lib/python*/site-packages")
    metadata = next(packages.glob("unet_lib-*.dist-info")) / "METADATA"
    stated = [
        line.removeprefix("Requires-Dist: ").replace(" ", "")
        for line in metadata.read_text().splitlines()
        if line.startswith("Requires-Dist")
    ]
    for name in ("", "-export", "-dev"):
        for line in (ROOT / f"requirements{name}.txt").read_text().splitlines():
            package = line.partition("#")[0].strip().partition(">")[0].partition("=")[0]
            assert any(text.startswith(package) for text in stated), line

"""What tests share: real data, phantoms, a tiny trained run, a tiny folder in BUSI's layout."""

from __future__ import annotations

import os
import signal
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

# JAX compiles its default generator of random numbers for half a minute; the older one, which is
# as good for a test, takes seconds.
os.environ.setdefault("JAX_THREEFRY_PARTITIONABLE", "0")

# In the background of a script Ctrl-C is ignored, and child processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Fixtures whose tests must not be skipped: REQUIRE=busi_dir,busbra_dir,browser.
REQUIRED = set(filter(None, os.environ.get("REQUIRE", "").split(",")))
AGREED = Path(__file__).parent / "data" / "agreed"


def pytest_addoption(parser):
    """Add ``--agree``."""
    parser.addoption(
        "--agree", action="store_true", help="write the texts of tests/data/agreed anew; read them"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that is skipped although what it needs is there has failed."""
    report = yield
    needed = REQUIRED.intersection(item.fixturenames)
    if report.skipped and needed and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped though REQUIRE names {', '.join(needed)}: {report.longrepr[2]}"
    return report


@pytest.fixture
def agreed(request) -> Callable[..., None]:
    """Return a function that compares a text, word for word, with a file of tests/data/agreed."""

    def compare(text: str, file: str) -> None:
        path = AGREED / file
        if request.config.getoption("agree"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads near-duplicates that another one found."""
    from unet_lib.dataset import groups

    monkeypatch.setattr(groups, "CACHE_FOLDER", tmp_path / "cache-of-pairs")


def real_data(variable: str) -> Path:
    """Return the folder that an environment variable names; skip the test where it is not there."""
    folder = os.environ.get(variable, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} names no folder ({folder!r}): set it to test on real data")
    return Path(folder)


@pytest.fixture(scope="session")
def busi_dir() -> Path:
    """Return the folder Dataset_BUSI_with_GT."""
    return real_data("BUSI_DIR")


@pytest.fixture(scope="session")
def busbra_dir() -> Path:
    """Return the folder BUSBRA."""
    return real_data("BUSBRA_DIR")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Return a folder with 24 phantoms; tests read it only."""
    from unet_lib.phantoms import make_phantoms

    return make_phantoms(tmp_path_factory.mktemp("data") / "phantoms", 24, 5, progress=False)


@pytest.fixture(scope="session")
def tiny_run(phantoms, tmp_path_factory):
    """Return a `Run` of two epochs on the phantoms: 4 filters, 32 pixels; tests read it only."""
    from unet_lib import Preprocessing, Recipe, TrainingConfig, UNetConfig, open_dataset, train

    recipe = Recipe(
        network=UNetConfig(filters=4, depth=2),
        preprocessing=Preprocessing(32),
        training=TrainingConfig(epochs=2, warmup_epochs=1, batch_size=4, precision="float32"),
    )
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return train(open_dataset(phantoms).split, folder, recipe, progress=False)


def write_png(path: Path, array: np.ndarray) -> Path:
    """Write a PNG with OpenCV, so that tests do not rest on the code they test."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def save_constant(folder: Path, threshold: float, **more: object) -> Path:
    """Save a model folder with a network that says .75 of every pixel."""
    from unet_lib.images import Preprocessing
    from unet_lib.inference import Segmenter
    from unet_lib.model import UNetConfig, build_unet
    from unet_lib.weights import save_segmenter

    config = UNetConfig(filters=4, depth=2)
    network = build_unet(config, 32)
    kernel, bias = network.get_layer("logits").weights
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(np.full(bias.shape, np.log(3.0)))
    segmenter = Segmenter(network, Preprocessing(32), threshold, **more)
    return save_segmenter(segmenter, config, folder / "constant")


_STATED = {"flags": (6, 8, "<H"), "method": (8, 10, "<H"), "size": (22, 24, "<I")}


def forge_zip(path: Path, name: str, **stated: int) -> Path:
    """Change what an archive states of a member: flags (1: encrypted), method or size."""
    with zipfile.ZipFile(path) as file:
        own, directory = file.getinfo(name).header_offset, file.start_dir
    content = bytearray(path.read_bytes())
    listed = content.rindex(b"PK\1\2", directory, content.index(name.encode(), directory))
    for what, value in stated.items():
        in_own, in_listed, kind = _STATED[what]
        struct.pack_into(kind, content, own + in_own, value)
        struct.pack_into(kind, content, listed + in_listed, value)
    path.write_bytes(content)
    return path


def write_tiny_busi(
    folder: Path, benign: int = 4, malignant: int = 3, normal: int = 2, seed: int = 0
) -> Path:
    """Write a folder in BUSI's layout, 40 x 56 to 60 x 80 pixels; benign (2) has two masks."""
    rng = np.random.default_rng(seed)
    for label, count in (("benign", benign), ("malignant", malignant), ("normal", normal)):
        for number in range(1, count + 1):
            height, width = int(rng.integers(40, 60)), int(rng.integers(56, 80))
            name = f"{label} ({number})"
            image = rng.integers(0, 256, (height, width), dtype=np.uint8)
            mask = np.zeros((height, width), np.uint8)
            if label != "normal":
                mask[10:20, 12 : 24 + number % 7] = 255
            write_png(folder / label / f"{name}.png", image)
            write_png(folder / label / f"{name}_mask.png", mask)
            if name == "benign (2)":
                second = np.zeros_like(mask)
                second[25:35, 30:40] = 255
                write_png(folder / label / f"{name}_mask_1.png", second)
    return folder


@pytest.fixture
def tiny_busi(tmp_path: Path) -> Path:
    """Return a fresh folder in BUSI's layout: 4 benign, 3 malignant, 2 normal images."""
    return write_tiny_busi(tmp_path / "Dataset_BUSI_with_GT")

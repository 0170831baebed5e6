"""Engines give the same masks; the choice among them is measured and said."""

import importlib.util
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from unet_lib.cli import main
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter, converting, engines, evaluate_cases, runtimes
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantom, make_phantoms
from unet_lib.weights import ExportError, load_segmenter

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras exports from TensorFlow"
)
PACKAGES = {"onnx": "tf2onnx", "openvino": "openvino"}
SHIPPED = "busi-fold0"


def need(engine):
    if engine in PACKAGES and importlib.util.find_spec(PACKAGES[engine]) is None:
        pytest.skip(f"{PACKAGES[engine]} is not installed (requirements-export.txt)")


def tiny(**options):
    keras.utils.set_random_seed(3)
    network = build_unet(UNetConfig(filters=4, depth=2), 32)
    return Segmenter(network, Preprocessing(32), 0.11, **options)


@pytest.fixture(scope="module")
def pictures():
    made = [make_phantom(kind, seed=9)[0] for kind in ("benign", "malignant", "malignant")]
    made[2] = made[2][:300]  # another shape
    return [(picture / np.float32(255)).astype(np.float32)[..., None] for picture in made]


@pytest.fixture(scope="module")
def expected(pictures):
    return list(load_segmenter(SHIPPED).iter_probabilities(pictures))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_engines_give_the_same_masks_in_float32(engine, pictures, expected):
    need(engine)
    segmenter = load_segmenter(SHIPPED, engine=engine)
    found = list(segmenter.iter_probabilities(pictures))
    for image, mine, keras_own in zip(pictures, found, expected, strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=1e-4)
        # Only pixels at the threshold itself may differ.
        differ = segmenter.mask(mine) != segmenter.mask(keras_own)
        assert (np.abs(keras_own[differ] - segmenter.threshold) < 1e-4).all()
        assert differ.mean() < 1e-4
        np.testing.assert_allclose(segmenter.probabilities(image), mine, atol=1e-5)
    assert segmenter.engine_used.startswith(engine) and "float32" in segmenter.engine_used


def test_auto_takes_another_engine_only_when_faster_and_says_so(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(engines, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def delayed(name, seconds):
        def run(batch):
            clock[0] += seconds

        return engines.Engine(run, f"{name} 1, float32")

    network = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Conv2D(1, 1)])
    choose = engines._fastest

    def chosen(**seconds):
        def make(network, preprocessing, name):
            if name not in seconds:
                raise ExportError(f"{name}: differs by 0.3")
            return delayed(name, seconds[name])

        monkeypatch.setattr(engines, "make_engine", make)
        return choose(network, Preprocessing(16), 8).description

    assert chosen(keras=0.03, openvino=0.01, onnx=0.03).startswith("openvino 1, float32 (auto: ")
    assert chosen(keras=0.0300, openvino=0.0295).startswith("keras 1")
    assert "onnx: differs by 0.3" in chosen(keras=0.01, openvino=0.03)


def test_an_engine_that_computes_something_else_is_refused(monkeypatch, pictures):
    wrong = converting.Format(
        ("model.onnx",), (), lambda path: (lambda batch: batch * 0 + 0.9, "wrong 1.0")
    )
    monkeypatch.setitem(converting.FORMATS, "onnx", wrong)
    monkeypatch.setattr(keras.Model, "export", lambda *_, **__: None)
    segmenter = tiny(engine="onnx")
    with pytest.raises(ExportError, match="differ from Keras' by up to 0"):
        segmenter.segment(pictures[0])


def test_wrong_names_and_missing_packages(monkeypatch, tmp_path, capsys):
    with pytest.raises(ValueError, match="engine 'tpu': expected one of keras, auto"):
        load_segmenter(SHIPPED, engine="tpu")
    absent = converting.Format(("model.xml",), ("no_such_package",), runtimes.openvino)
    monkeypatch.setitem(converting.FORMATS, "openvino", absent)
    folder = make_phantoms(tmp_path / "p", 2, progress=False)
    image = next(folder.glob("*/*(1).png"))
    out = tmp_path / "out"
    arguments = ["segment", str(image), "--model", SHIPPED, "--out", str(out)]
    assert main([*arguments, "--engine", "openvino"]) == 1
    assert "no-such-package" in capsys.readouterr().err and not out.exists()


def test_evaluation_says_the_engine(tmp_path):
    need("openvino")
    from unet_lib.dataset import find_cases

    cases = find_cases(make_phantoms(tmp_path / "p", 4, seed=2, progress=False))
    found = [
        evaluate_cases(tiny(engine=engine), cases, progress=False)
        for engine in ("keras", "openvino")
    ]
    assert found[0].about["engine"] == "keras, float32"
    assert found[1].about["engine"].startswith("openvino 20")
    for a, b in zip(found[0].table, found[1].table, strict=True):
        assert abs(a.tp - b.tp) <= 2 and abs(a.fp - b.fp) <= 2

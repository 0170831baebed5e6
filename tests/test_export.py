"""Export to other runtimes, each run by the real runtime."""

import importlib.util
import json

import keras
import numpy as np
import pytest

from unet_lib.cli import main
from unet_lib.files import sha256
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter, converting, runtimes
from unet_lib.model import UNetConfig, build_unet
from unet_lib.weights import ExportError, export_segmenter

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras exports from TensorFlow"
)
PACKAGES = {"onnx": "tf2onnx", "litert": "ai_edge_litert", "openvino": "openvino"}


@pytest.fixture
def segmenter():
    keras.utils.set_random_seed(3)
    network = build_unet(UNetConfig(filters=4, depth=2), 32)
    return Segmenter(network, Preprocessing(32), 0.4, about={"name": "tiny", "trained_on": ["a"]})


@pytest.mark.parametrize("format", PACKAGES)
def test_exported_model_gives_the_same_probabilities(segmenter, tmp_path, format):
    if importlib.util.find_spec(PACKAGES[format]) is None:
        pytest.skip(f"{PACKAGES[format]} is not installed (requirements-export.txt)")
    path = export_segmenter(segmenter, tmp_path, format)
    described = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    assert described["files"] == {name: sha256(tmp_path / name) for name in described["files"]}
    assert described["postprocessing"]["threshold"] == 0.4
    assert "trained_on" not in described["about"]
    assert not list(tmp_path.glob(".*"))
    images = np.random.default_rng(1).random((3, 32, 32, 1), dtype=np.float32)
    run, _ = getattr(runtimes, format)(path)
    expected = segmenter.network.predict_on_batch(images)
    np.testing.assert_allclose(run(images), expected, atol=1e-4)


def test_a_model_that_computes_something_else_is_not_kept(segmenter, tmp_path, monkeypatch):
    if importlib.util.find_spec("tf2onnx") is None:
        pytest.skip("tf2onnx is not installed (requirements-export.txt)")
    wrong = converting.Format(
        ("model.onnx",), ("onnx",), lambda path: (lambda batch: batch * 0 + 0.9, "wrong 1.0")
    )
    monkeypatch.setitem(converting.FORMATS, "onnx", wrong)
    with pytest.raises(ExportError, match="differ from Keras' by up to 0"):
        export_segmenter(segmenter, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_missing_package_is_named(segmenter, tmp_path, monkeypatch, capsys):
    absent = converting.Format(("model.onnx",), ("no_such_package",), runtimes.onnx)
    monkeypatch.setitem(converting.FORMATS, "onnx", absent)
    with pytest.raises(ExportError, match="no-such-package.*requirements-export.txt"):
        export_segmenter(segmenter, tmp_path / "out", "onnx")
    arguments = ["--model", "busi-fold0", "--format", "onnx", "--out", str(tmp_path / "out")]
    assert main(["export", *arguments]) == 1
    assert "no-such-package" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected one of onnx, litert, openvino"):
        export_segmenter(segmenter, tmp_path, "pdf")

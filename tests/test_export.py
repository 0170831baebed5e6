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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch * 0 + 0.9, "differ from Keras' by up to 0"),
        (lambda batch: batch[:, :1], r"returns \(4, 1, 32, 1\), Keras \(4, 32, 32, 1\). Nothing"),
    ],
)
def test_a_model_that_computes_something_else_is_not_kept(
    segmenter, tmp_path, monkeypatch, change, message
):
    if importlib.util.find_spec("tf2onnx") is None:
        pytest.skip("tf2onnx is not installed (requirements-export.txt)")
    wrong = converting.Format(("model.onnx",), ("onnx",), lambda path: (change, "wrong 1.0"))
    monkeypatch.setitem(converting.FORMATS, "onnx", wrong)
    with pytest.raises(ExportError, match=message):
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


def test_a_network_of_another_precision_or_backend_says_what_to_do(
    segmenter, tmp_path, monkeypatch
):
    for name in ("onnx", "tf2onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (requirements-export.txt)")
    network = build_unet(UNetConfig(filters=4, depth=1), 32, precision="mixed_bfloat16")
    mixed = Segmenter(network, Preprocessing(32))
    with pytest.raises(ExportError, match="onnx: the network computes in bfloat16, float32. Save"):
        export_segmenter(mixed, tmp_path / "out", "onnx")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ExportError, match="onnx: .* runs on jax now. Set .*KERAS_BACKEND=tensorf"):
        export_segmenter(segmenter, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("erf", "ValueError: it needs TensorFlow's own operations: FlexErf"),
        ("erfinv", "ConverterError: Could not translate"),
    ],
)
def test_a_network_that_litert_cannot_run_alone_is_refused(operation, message, tmp_path):
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("ai_edge_litert is not installed (requirements-export.txt)")
    inputs = keras.Input((32, 32, 1))
    outputs = keras.ops.sigmoid(getattr(keras.ops, operation)(inputs * 0.5))
    segmenter = Segmenter(keras.Model(inputs, outputs), Preprocessing(32))
    with pytest.raises(ExportError, match=rf"^litert: .*{message}.*\. Nothing was written\.$"):
        export_segmenter(segmenter, tmp_path / "out", "litert")
    assert not (tmp_path / "out").exists()

"""Export to other runtimes, each run by the real runtime."""

import importlib.util
import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from unet_lib.cli import main
from unet_lib.files import sha256
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.weights import (
    EXPORT_FORMATS,
    ExportError,
    ExportFormat,
    export_segmenter,
    registered_models,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports from TensorFlow"),
]


def need(format):
    for name in EXPORT_FORMATS[format].packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (requirements-export.txt)")


@pytest.fixture(scope="module")
def segmenter():
    keras.utils.set_random_seed(3)
    network = build_unet(UNetConfig(filters=4, depth=2), 32)
    about = {"name": "tiny", "trained_on": ["a"]}
    return Segmenter(network, Preprocessing(32), 0.4, provenance=about)


def refused(segmenter, folder, format, message):
    with pytest.raises(ExportError, match=rf"{message}.* Nothing was written\.$"):
        export_segmenter(segmenter, folder / "out", format)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("format", ["onnx", "litert", "openvino"])
def test_exported_model_gives_the_same_probabilities(segmenter, tmp_path, format):
    need(format)
    path = export_segmenter(segmenter, tmp_path, format)
    described = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    assert described["files"] == {name: sha256(tmp_path / name) for name in described["files"]}
    assert described["postprocessing"]["threshold"] == 0.4
    assert described["about"] == {"name": "tiny"}
    assert not list(tmp_path.glob(".*"))
    images = np.random.default_rng(1).random((3, 32, 32, 1), dtype=np.float32)
    run, _ = EXPORT_FORMATS[format].open(path)
    expected = segmenter.network.predict_on_batch(images)
    np.testing.assert_allclose(run(images), expected, atol=5e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch * 0 + 0.9, "differ from Keras' by up to 0"),
        (lambda batch: batch * np.nan, "differ from Keras' by up to nan"),
        (lambda batch: batch[:, :1], r"returns \(4, 1, 32, 1\), Keras \(4, 32, 32, 1\)"),
        (lambda batch: 1 / 0, "conversion failed with Keras .*ZeroDivisionError"),
    ],
)
def test_a_model_that_computes_something_else_is_not_kept(
    segmenter, tmp_path, monkeypatch, change, message
):
    write = lambda network, path: np.savez(path, *network.get_weights())  # noqa: E731
    row = ExportFormat(("m.npz",), (), lambda path: (change, "numpy 1"), write)
    monkeypatch.setitem(EXPORT_FORMATS, "npz", row)
    refused(segmenter, tmp_path, "npz", message)


def test_missing_package_is_named(segmenter, tmp_path, monkeypatch, capsys):
    absent = replace(EXPORT_FORMATS["onnx"], packages=("no_such_package",))
    monkeypatch.setitem(EXPORT_FORMATS, "onnx", absent)
    arguments = ["export", "--model", registered_models()[0], "--format"]
    assert main([*arguments, "onnx", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "no-such-package" in said and "requirements-export.txt" in said
    assert main([*arguments, "litert"]) == 2
    assert "--format litert: needs --out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected one of onnx, litert, openvino"):
        export_segmenter(segmenter, tmp_path, "pdf")


def test_a_network_of_another_precision_or_backend_says_what_to_do(
    segmenter, tmp_path, monkeypatch
):
    need("onnx")
    network = build_unet(UNetConfig(filters=4, depth=1), 32, precision="mixed_bfloat16")
    mixed = Segmenter(network, Preprocessing(32))
    refused(mixed, tmp_path, "onnx", "onnx: the network computes in bfloat16, float32. Save")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    refused(segmenter, tmp_path, "onnx", "onnx: .* runs on jax now. Set .*KERAS_BACKEND=tensorf")


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("erf", "ValueError: it needs TensorFlow's own operations: FlexErf"),
        ("erfinv", "ConverterError: Could not translate"),
    ],
)
def test_a_network_that_litert_cannot_run_alone_is_refused(operation, message, tmp_path):
    need("litert")
    inputs = keras.Input((32, 32, 1))
    outputs = keras.ops.sigmoid(getattr(keras.ops, operation)(inputs * 0.5))
    segmenter = Segmenter(keras.Model(inputs, outputs), Preprocessing(32))
    refused(segmenter, tmp_path, "litert", f"^litert: .*{message}")

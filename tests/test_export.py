"""Export to other runtimes, each run by the real runtime."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from unet_lib.cli import main
from unet_lib.files import sha256
from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.weights import EXPORT_FORMATS, ExportError, ExportFormat, export_segmenter

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
    np.testing.assert_allclose(run(images), expected, atol=1e-4)


def npz(run=lambda batch: batch, **options):
    """A format that is written by itself and run by `run`."""
    write = lambda network, path: np.savez(path, *network.get_weights())  # noqa: E731
    return ExportFormat(("m.npz",), (), lambda path: (run, "numpy 1"), write, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch * 0 + 0.9, "differ from Keras' by up to 0"),
        (lambda batch: batch * np.nan, "differ from Keras' by up to nan"),
        (lambda batch: batch[:, :1], r"returns \(4, 1, 32, 1\), Keras \(4, 32, 32, 1\). Nothing"),
        (lambda batch: 1 / 0, "conversion failed with Keras .*ZeroDivisionError"),
    ],
)
def test_a_model_that_computes_something_else_is_not_kept(
    segmenter, tmp_path, monkeypatch, change, message
):
    monkeypatch.setitem(EXPORT_FORMATS, "npz", npz(change))
    with pytest.raises(ExportError, match=message):
        export_segmenter(segmenter, tmp_path / "out", "npz")
    assert not (tmp_path / "out").exists()


def test_missing_package_is_named(segmenter, tmp_path, monkeypatch, capsys):
    absent = replace(EXPORT_FORMATS["onnx"], packages=("no_such_package",))
    monkeypatch.setitem(EXPORT_FORMATS, "onnx", absent)
    arguments = ["--model", "busi-fold0", "--format", "onnx", "--out", str(tmp_path / "out")]
    assert main(["export", *arguments]) == 1
    said = capsys.readouterr().err
    assert "no-such-package" in said and "requirements-export.txt" in said
    with pytest.raises(ValueError, match="expected one of onnx, litert, openvino"):
        export_segmenter(segmenter, tmp_path, "pdf")


def test_a_network_of_another_precision_or_backend_says_what_to_do(
    segmenter, tmp_path, monkeypatch
):
    need("onnx")
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
    need("litert")
    inputs = keras.Input((32, 32, 1))
    outputs = keras.ops.sigmoid(getattr(keras.ops, operation)(inputs * 0.5))
    segmenter = Segmenter(keras.Model(inputs, outputs), Preprocessing(32))
    with pytest.raises(ExportError, match=rf"^litert: .*{message}.*\. Nothing was written\.$"):
        export_segmenter(segmenter, tmp_path / "out", "litert")
    assert not (tmp_path / "out").exists()


def test_the_format_of_the_documentation(segmenter, tmp_path, monkeypatch):
    """The lines under "An export format" in docs/extending.md, run as they stand."""
    text = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    lines = re.search(r"## An export format\n.*?```python\n(.*?)```", text, re.DOTALL)[1]
    assert lines.count("\n") <= 20
    before = dict(EXPORT_FORMATS)
    try:
        exec(lines, {"segmenter": segmenter, "folder": tmp_path})
        (added,) = set(EXPORT_FORMATS) - set(before)
        files = [*EXPORT_FORMATS[added].files, f"{EXPORT_FORMATS[added].files[0]}.json"]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    finally:
        EXPORT_FORMATS.clear()
        EXPORT_FORMATS.update(before)

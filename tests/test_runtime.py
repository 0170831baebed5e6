"""A model folder's file for ONNX Runtime: the same masks as Keras, without Keras; else refused."""

import json
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from unet_lib import export_segmenter, find_cases, load_segmenter, read_image, save_segmenter
from unet_lib.files import sha256
from unet_lib.images import Preprocessing, as_image, write_image
from unet_lib.images import read_frames as frames
from unet_lib.inference import Segmenter, UnreadableImages
from unet_lib.model import UNetConfig, build_unet
from unet_lib.phantoms import make_phantom, make_phantoms
from unet_lib.weights import ExportError, WeightsError, export_into_model, registered_models
from unet_lib.weights.folder import REGISTRY

TOLERANCE = 5e-5
(SMALL,) = REGISTRY.glob("*-small")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(SMALL, tmp_path / "model")


def probabilities(folder, image, runtime="auto"):
    segmenter = load_segmenter(folder, runtime=runtime)
    assert segmenter.in_keras == (runtime == "keras")
    return segmenter.probabilities(image)


def phantom(seed=3):
    return as_image(make_phantom("malignant", seed)[0], "phantom")


def test_runtime_is_chosen_and_keras_where_there_is_no_onnxruntime(folder, monkeypatch):
    image = phantom()
    fast, slow = (probabilities(folder, image, runtime) for runtime in ("auto", "keras"))
    assert 0 < np.abs(fast - slow).max() < TOLERANCE
    with pytest.raises(ValueError, match="runtime 'onnx': expected auto or keras"):
        load_segmenter(folder, runtime="onnx")
    with pytest.raises(ValueError, match='save_segmenter: load the model with runtime="keras"'):
        save_segmenter(load_segmenter(folder), UNetConfig(), folder / "new")
    with pytest.raises(ExportError, match='onnx: load the model with runtime="keras"'):
        export_segmenter(load_segmenter(folder), folder / "new", "onnx")
    monkeypatch.setattr("unet_lib.weights.folder.importlib.util.find_spec", lambda name: None)
    assert load_segmenter(folder).in_keras


def damaged(folder):
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])


def missing(folder):
    (folder / "model.onnx").unlink()


def change(folder, **entries):
    path = folder / "segmenter.json"
    settings = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({key: value for key, value in settings.items() if value}))


def not_named(folder):
    change(folder, onnx=None)


def of_other_weights(folder):
    """As good a weights file as the own one, and named by the settings."""
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1
    change(folder, weights_sha256=sha256(folder / "model.weights.h5"))


def of_other_arrays(folder):
    entry = json.loads((folder / "segmenter.json").read_text())["onnx"]
    change(folder, onnx=entry | {"arrays": entry["arrays"][1:]})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damaged, "is not the file that segmenter.json names"),
        (missing, ".*No such file"),
        (not_named, "is not the file that segmenter.json names"),
        (of_other_weights, "made for other weights than model.weights.h5"),
        (of_other_arrays, ""),
    ],
)
def test_a_file_that_does_not_belong_to_the_weights_is_refused(folder, harm, message):
    harm(folder)
    with pytest.raises(
        WeightsError, match=rf"model\.onnx: missing.*\({message}.*Write it again.*--format"
    ):
        load_segmenter(folder)
    assert load_segmenter(folder, runtime="keras").in_keras


@pytest.mark.slow
def test_segment_imports_neither_keras_nor_tensorflow(tmp_path):
    pictures = make_phantoms(tmp_path / "p", 3, progress=False) / "benign"
    code = (
        "import sys; from unet_lib.cli import main; code = main(sys.argv[1:]); "
        "heavy = 'keras tensorflow jax torch sklearn scipy matplotlib pandas'.split(); "
        "print('imported:', [name for name in heavy if name in sys.modules]); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "segment", "--model", SMALL, "--out", tmp_path / "o"]
    root = str(REGISTRY.parent)
    child = subprocess.run([*command, pictures], cwd=root, capture_output=True, text=True)
    assert child.returncode == 0 and "imported: []\n" in child.stdout, child.stderr


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports from TensorFlow")
@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(filters=4, depth=2),
        UNetConfig(filters=4, depth=2, normalization="group", upsampling="resize"),
        UNetConfig(filters=4, depth=2, encoder="MobileNetV2"),
    ],
)
def test_own_models_get_a_file_without_their_weights(config, tmp_path):
    pytest.importorskip("tf2onnx")
    keras.utils.set_random_seed(2)
    segmenter = Segmenter(build_unet(config, 64), Preprocessing(64))
    folder = save_segmenter(segmenter, config, tmp_path / "model")
    path = export_into_model(folder)
    weights = segmenter.network.count_params() * 4
    assert path == folder / "model.onnx" and path.stat().st_size < max(weights / 10, 60_000)
    image = phantom()
    expected = segmenter.probabilities(image)
    np.testing.assert_allclose(probabilities(folder, image), expected, rtol=0, atol=TOLERANCE)
    save_segmenter(segmenter, config, folder)  # perhaps of other weights: the file goes
    assert load_segmenter(folder).in_keras and not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", registered_models())
def test_shipped_models_give_the_masks_of_keras(name, busi_dir, busbra_dir):
    fast, slow = load_segmenter(name), load_segmenter(name, runtime="keras")
    assert not fast.in_keras
    paths = [c.image_path for data in (busi_dir, busbra_dir) for c in find_cases(data)[::13][:50]]
    assert len(paths) == 100
    images = [read_image(path) for path in paths]
    pairs = zip(*(s.iter_probabilities(images) for s in (fast, slow)), strict=True)
    differing = pixels = 0
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
        differing += int((fast.mask(ours) != slow.mask(theirs)).sum())
        pixels += ours.size
    assert differing <= 1e-6 * pixels


def test_many_files_in_threads_keep_their_order_and_are_read_little_ahead(tmp_path, monkeypatch):
    paths = []
    for seed in range(40):
        paths.append(write_image(tmp_path / f"{seed:02}.png", make_phantom("benign", seed)[0]))
    paths[2].write_bytes(paths[2].read_bytes()[:300])
    monkeypatch.setattr("unet_lib.inference.segmenter.os.cpu_count", lambda: 3)
    read = []
    monkeypatch.setattr(
        "unet_lib.inference.segmenter.read_frames", lambda path: read.append(path) or frames(path)
    )
    segmenter = load_segmenter(SMALL)
    found, masks = segmenter.segment_files(paths, progress=False), []
    for path, result in found:
        masks.append((path, result.probabilities))
        if len(masks) == 6:
            break
    found.close()
    assert len(read) < 25  # not all that there are
    assert [path for path, _ in masks] == [path for path in paths[:7] if path != paths[2]]
    for path, probabilities in masks:
        np.testing.assert_allclose(
            probabilities, segmenter.probabilities(read_image(path)), rtol=0, atol=1e-6
        )
    with pytest.raises(UnreadableImages, match=r"1 of 8 .*02\.png"):
        list(segmenter.segment_files(paths[:8], progress=False))

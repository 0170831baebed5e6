import json
import os
import shutil

import h5py
import keras
import numpy as np
import pytest

from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.weights import (
    WeightsError,
    check_weights,
    choose_model,
    load_segmenter,
    load_weights_file,
    registered_models,
    save_segmenter,
)
from unet_lib.weights import folder as folder_module

pytestmark = pytest.mark.keras
CONFIG = UNetConfig(filters=4, depth=2)


@pytest.fixture
def folder(tmp_path):
    keras.utils.set_random_seed(1)
    network = build_unet(CONFIG, 32)
    segmenter = Segmenter(
        network, Preprocessing(32, False), 0.35, Cleaning(0.01, 0.5), {"name": "m", "fold": 3}
    )
    return save_segmenter(segmenter, CONFIG, tmp_path / "m", card="# A card\n"), segmenter


def test_round_trip(folder):
    path, segmenter = folder
    loaded = load_segmenter(path)
    assert (loaded.threshold, loaded.cleaning) == (0.35, Cleaning(0.01, 0.5))
    assert loaded.preprocessing == Preprocessing(32, False)
    assert loaded.about["fold"] == 3
    image = np.random.default_rng(0).random((50, 41, 1), dtype="float32")
    np.testing.assert_allclose(
        loaded.probabilities(image), segmenter.probabilities(image), atol=1e-6
    )
    assert (path / "CARD.md").read_text() == "# A card\n"
    assert sorted(p.name for p in path.iterdir()) == [
        "CARD.md", "model.weights.h5", "segmenter.json"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        UNetConfig(filters=4, depth=1, normalization="group", upsampling="resize", dropout=0.1),
        UNetConfig(filters=4, depth=1, normalization="none"),
        UNetConfig(filters=4, depth=2, encoder="MobileNetV2"),
        UNetConfig(filters=4, depth=2, encoder="EfficientNetB0"),
    ],
)
def test_expected_arrays_are_those_that_keras_stores(config, tmp_path):
    """Guards the naming rule against a change in Keras, with and without optimiser state."""
    network = build_unet(config, 32)
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    network.save_weights(tmp_path / "x.weights.h5")
    check_weights(network, tmp_path / "x.weights.h5")


def test_a_larger_or_smaller_file_is_refused(tmp_path):
    """Keras loads the larger file without a word."""
    small, large = build_unet(CONFIG, 32), build_unet(UNetConfig(filters=4, depth=3), 32)
    for name, network in (("small", small), ("large", large)):
        network.save_weights(tmp_path / f"{name}.weights.h5")
    with pytest.raises(WeightsError, match="another network.*not expected: layers/"):
        load_weights_file(small, tmp_path / "large.weights.h5")
    with pytest.raises(WeightsError, match="not in the file: layers/"):
        load_weights_file(large, tmp_path / "small.weights.h5")
    wider = build_unet(UNetConfig(filters=8, depth=2), 32)
    before = wider.get_weights()
    with pytest.raises(WeightsError, match=r"Expected but not in the file: layers/batch\S+ \(8,\)"):
        load_weights_file(wider, tmp_path / "small.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(before, wider.get_weights(), strict=True))


def test_what_is_not_hdf5_is_named(tmp_path):
    network = build_unet(CONFIG, 32)
    page = tmp_path / "a.weights.h5"
    page.write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(WeightsError, match="this is a web page"):
        load_weights_file(network, page)
    page.write_bytes(b"PK\x03\x04 zip")
    with pytest.raises(WeightsError, match="not an HDF5 file"):
        load_weights_file(network, page)
    with pytest.raises(WeightsError, match="No such file"):
        load_weights_file(network, tmp_path / "absent.weights.h5")


def test_truncated_file(folder, tmp_path):
    path, segmenter = folder
    data = (path / "model.weights.h5").read_bytes()
    cut = tmp_path / "cut.weights.h5"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="damaged HDF5 file"):
        load_weights_file(segmenter.network, cut)


def test_changed_weights_do_not_load(folder):
    path, _ = folder
    with h5py.File(path / "model.weights.h5", "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1
    with pytest.raises(WeightsError, match="SHA-256.*damaged or of another model"):
        load_segmenter(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("threshold"), "expected format 1 with .*threshold"),
        (lambda s: s.update(format=2), "expected format 1"),
        (lambda s: s["network"].update(filters="many"), "filters must be a whole number"),
        (lambda s: s["network"].update(colour=1), "unknown setting 'colour'"),
        (lambda s: s.update(threshold=2), "threshold must lie between"),
        (lambda s: s["preprocessing"].update(size=4), "size"),
    ],
)
def test_bad_settings_name_the_file(folder, change, message):
    path, _ = folder
    settings = json.loads((path / "segmenter.json").read_text())
    del settings["settings_sha256"]  # else this is what is noticed
    change(settings)
    (path / "segmenter.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=message) as error:
        load_segmenter(path)
    assert "segmenter.json" in str(error.value)


def test_missing_parts(folder, tmp_path):
    path, _ = folder
    with pytest.raises(WeightsError, match="neither a model folder.*Registered:"):
        load_segmenter(tmp_path / "nothing")
    (path / "model.weights.h5").unlink()
    with pytest.raises(WeightsError, match="model.weights.h5: missing"):
        load_segmenter(path)
    (path / "segmenter.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_segmenter(path)


def test_a_run_folder_is_found(folder, tmp_path):
    path, _ = folder
    shutil.copytree(path, tmp_path / "run" / "model")
    assert load_segmenter(tmp_path / "run").threshold == 0.35


@pytest.mark.parametrize("name", registered_models() or [None])
def test_every_registered_model_loads_and_segments(name):
    if name is None:
        pytest.skip("no registered model yet")
    segmenter = load_segmenter(name)
    found = segmenter.segment(np.full((60, 90, 1), 0.5, "float32"))
    assert found.mask.shape == (60, 90)
    assert np.isfinite(found.probabilities).all()


def finished_run(runs, name, data, fold, threshold):
    network = build_unet(CONFIG, 32)
    about = {"name": name, "data": data, "fold": fold}
    segmenter = Segmenter(network, Preprocessing(32), threshold, about=about)
    return save_segmenter(segmenter, CONFIG, runs / name / "model")


def test_choice_takes_the_last_run_on_the_same_data_and_fold(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "REGISTRY", tmp_path / "none")
    for age, (name, data, fold, threshold) in enumerate(
        [("a", "BUSI", 0, 0.1), ("b", "BUSI", 0, 0.2), ("c", "BUSI", 1, 0.3), ("d", "p", 0, 0.4)]
    ):
        path = finished_run(tmp_path / "runs", name, data, fold, threshold)
        os.utime(path / "segmenter.json", (1000 + age, 1000 + age))
    segmenter, why = choose_model(data="BUSI", fold=0, root=tmp_path)
    assert segmenter.threshold == 0.2 and "last finished run on BUSI, fold 0" in why
    with pytest.raises(WeightsError, match="no finished run on BUSI, fold 4.*Training_Unet"):
        choose_model(data="BUSI", fold=4, root=tmp_path)


def test_choice_takes_the_registered_model_of_the_fold(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "REGISTRY", tmp_path / "weights")
    for name, threshold in (("busi-fold0", 0.3), ("busi-fold3", 0.6)):
        network = build_unet(CONFIG, 32)
        segmenter = Segmenter(network, Preprocessing(32), threshold)
        save_segmenter(segmenter, CONFIG, tmp_path / "weights" / name)
    segmenter, why = choose_model(data="BUSI", fold=3, root=tmp_path)
    assert segmenter.threshold == 0.6 and "busi-fold3" in why
    assert choose_model(data="phantoms", fold=3, root=tmp_path)[0].threshold == 0.3
    assert choose_model("busi-fold3", data="BUSI", fold=0)[0].threshold == 0.6


def test_choice_takes_the_file_in_the_root_when_it_fits_and_else_refuses(tmp_path):
    finished_run(tmp_path / "runs", "a", "BUSI", 0, 0.1)
    network = build_unet(CONFIG, 32)
    network.save_weights(tmp_path / "model.weights.h5")
    options = {"data": "BUSI", "fold": 0, "preprocessing": Preprocessing(32), "root": tmp_path}
    segmenter, why = choose_model(config=CONFIG, **options)
    assert "into the root" in why and segmenter.threshold == 0.5
    for mine, theirs in zip(segmenter.network.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # Not of the configured network: read as what it is, never passed over for the run.
    segmenter, why = choose_model(config=UNetConfig(filters=8, depth=2), **options)
    assert "found out from the file" in why and "Training images unknown" in why
    assert segmenter.about["architecture"]["widths"] == [4, 8, 16]
    (tmp_path / "model.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    with pytest.raises(WeightsError, match="damaged HDF5 file"):
        choose_model(config=CONFIG, **options)
    network.save_weights(tmp_path / "model.weights.h5")
    inside = tmp_path / "runs" / "a" / "model" / "model.weights.h5"
    assert choose_model(inside, data="BUSI", fold=0)[0].threshold == 0.1  # its own settings
    named, why = choose_model(tmp_path / "model.weights.h5", config=CONFIG, **options)
    assert "You named the file" in why and named.about["name"] == "model.weights.h5"

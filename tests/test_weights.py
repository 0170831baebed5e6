"""Model folders and weights files: saved, checked, loaded, chosen; the command weights."""

import json
import os
import re
import shutil

import h5py
import keras
import numpy as np
import pytest

from unet_lib.cli import main
from unet_lib.downloads import registry
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.model import UNetConfig, build_unet
from unet_lib.weights import (
    WeightsError,
    choose_model,
    load_segmenter,
    load_weights_file,
    registered_models,
    save_segmenter,
    verify_model,
)
from unet_lib.weights import folder as folder_module

pytestmark = pytest.mark.keras
CONFIG = UNetConfig(filters=4, depth=2)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    return build_unet(CONFIG, 32)


def saved(network, folder, threshold=0.35, **about):
    preprocessing, cleaning = Preprocessing(32, False), Cleaning(0.01, 0.5)
    segmenter = Segmenter(network, preprocessing, threshold, cleaning, about)
    return save_segmenter(segmenter, CONFIG, folder)


@pytest.fixture
def folder(network, tmp_path):
    return saved(network, tmp_path / "m", name="m", fold=3)


def test_round_trip(folder, network):
    assert sorted(p.name for p in folder.iterdir()) == ["model.weights.h5", "segmenter.json"]
    shutil.copytree(folder, folder.parent / "run" / "model")
    image = np.random.default_rng(0).random((50, 41, 1), dtype="float32")
    expected = Segmenter(network, Preprocessing(32, False)).probabilities(image)
    for place in (folder, folder.parent / "run"):
        loaded = load_segmenter(place)
        assert (loaded.threshold, loaded.cleaning) == (0.35, Cleaning(0.01, 0.5))
        assert loaded.preprocessing == Preprocessing(32, False)
        assert loaded.provenance.fold == 3
        np.testing.assert_allclose(loaded.probabilities(image), expected, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        UNetConfig(filters=4, depth=1, normalization="group", upsampling="resize", dropout=0.1),
        UNetConfig(filters=4, depth=1, normalization="none"),
        UNetConfig(filters=4, depth=2, encoder="MobileNetV2"),
    ],
)
def test_expected_arrays_are_those_that_keras_stores(config, tmp_path):
    """Guards the naming rule against a change in Keras, with optimiser state."""
    network = build_unet(config, 32)
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    network.save_weights(tmp_path / "x.weights.h5")
    load_weights_file(network, tmp_path / "x.weights.h5")


def test_a_larger_or_smaller_file_is_refused(network, tmp_path):
    """Keras loads the larger file without a word."""
    large = build_unet(UNetConfig(filters=4, depth=3), 32)
    for name, one in (("small", network), ("large", large)):
        one.save_weights(tmp_path / f"{name}.weights.h5")
    with pytest.raises(WeightsError, match="another network.*not expected: layers/"):
        load_weights_file(network, tmp_path / "large.weights.h5")
    with pytest.raises(WeightsError, match="not in the file: layers/"):
        load_weights_file(large, tmp_path / "small.weights.h5")
    wider = build_unet(UNetConfig(filters=8, depth=2), 32)
    before = wider.get_weights()
    with pytest.raises(WeightsError, match=r"Expected but not in the file: layers/batch\S+ \(8,\)"):
        load_weights_file(wider, tmp_path / "small.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(before, wider.get_weights(), strict=True))


def test_changed_or_missing_parts(folder, network, tmp_path):
    with pytest.raises(WeightsError, match="neither a model folder.*Registered:"):
        load_segmenter(tmp_path / "nothing")
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1
    with pytest.raises(WeightsError, match="SHA-256.*damaged or of another model"):
        load_segmenter(folder)
    (folder / "model.weights.h5").unlink()
    with pytest.raises(WeightsError, match="model.weights.h5: missing"):
        load_segmenter(folder)
    (folder / "segmenter.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_segmenter(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("threshold"), "expected format 1 with .*threshold"),
        (lambda s: s.update(format=2), "expected format 1"),
        (lambda s: s["network"].update(filters="many"), "filters must be a whole number"),
        (lambda s: s["network"].update(colour=1), "unknown setting 'colour'"),
        (lambda s: s.update(threshold=2), "threshold must lie between"),
        (lambda s: s["preprocessing"].update(size=4), "size"),
        (lambda s: s.update(about=[1]), "segmenter.json"),
    ],
)
def test_bad_settings_name_the_file(folder, change, message):
    settings = json.loads((folder / "segmenter.json").read_text())
    settings["threshold"] = 0.4
    (folder / "segmenter.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="threshold or cleaning was changed after it was saved"):
        load_segmenter(folder)
    del settings["settings_sha256"]  # else this is what is noticed
    change(settings)
    (folder / "segmenter.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=message) as error:
        load_segmenter(folder)
    assert "segmenter.json" in str(error.value)


@pytest.mark.parametrize("name", registered_models())
def test_every_registered_model_segments_and_is_as_its_card_says(name):
    assert verify_model(name) == []


def write_runs(network, runs, *rows):
    for age, (name, data, fold, threshold) in enumerate(rows):
        path = saved(network, runs / name / "model", threshold, name=name, data=data, fold=fold)
        os.utime(path / "segmenter.json", (1000 + age, 1000 + age))


@pytest.mark.parametrize("damage", ["{", '{"format": 1}', '{"about": 3}'])
def test_choice_takes_the_last_run_on_the_same_data_and_fold(
    network, tmp_path, monkeypatch, damage
):
    """A damaged older run says nothing; a newer one is named, since it may be meant."""
    monkeypatch.setattr(folder_module, "REGISTRY", tmp_path / "none")
    rows = [("old", "BUSI", 0, 0.1), ("taken", "BUSI", 0, 0.2), ("new", "BUSI", 0, 0.3)]
    rows += [("c", "BUSI", 1, 0.4), ("d", "p", 0, 0.5)]
    write_runs(network, tmp_path / "runs", *rows)
    for name, age in (("old", 1000), ("new", 1002)):
        path = tmp_path / "runs" / name / "model" / "segmenter.json"
        path.write_text(damage)
        os.utime(path, (age, age))
    segmenter, why = choose_model(data="BUSI", fold=0, root=tmp_path)
    assert segmenter.threshold == 0.2
    assert why.startswith(f"The last finished run on BUSI, fold 0: {tmp_path / 'runs' / 'taken'}.")
    assert f"Passed over: {tmp_path / 'runs' / 'new'}" in why and "runs/old" not in why
    no_run = "no finished run on BUSI, fold 4.*Training_Unet.*Passed over: .*old"
    with pytest.raises(WeightsError, match=no_run):
        choose_model(data="BUSI", fold=4, root=tmp_path)


def test_choice_takes_the_registered_model_of_the_fold(network, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "REGISTRY", tmp_path / "weights")
    for name, fold, threshold in (("busi-fold0", 0, 0.3), ("busi-fold3", 3, 0.6)):
        about = {"data": "BUSI + BUSBRA", "fold": fold}
        saved(network, tmp_path / "weights" / name, threshold, **about)
    for data in ("BUSI", "BUSBRA"):
        segmenter, why = choose_model(data=data, fold=3, root=tmp_path)
        assert segmenter.threshold == 0.6 and "busi-fold3" in why
    assert choose_model(data="phantoms", fold=3, root=tmp_path)[0].threshold == 0.3
    assert choose_model("busi-fold3", data="BUSI", fold=0)[0].threshold == 0.6


def test_choice_takes_the_file_in_the_root_when_it_fits_and_else_refuses(network, tmp_path):
    write_runs(network, tmp_path / "runs", ("a", "BUSI", 0, 0.1))
    network.save_weights(tmp_path / "model.weights.h5")
    options = {"data": "BUSI", "fold": 0, "preprocessing": Preprocessing(32), "root": tmp_path}
    segmenter, why = choose_model(config=CONFIG, **options)
    assert "into the root" in why and segmenter.threshold == 0.5
    for mine, theirs in zip(segmenter.network.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    named, why = choose_model(tmp_path / "model.weights.h5", config=CONFIG, **options)
    assert "You named the file" in why and named.provenance.name == "model.weights.h5"
    # Not of the configured network: read as what it is, never passed over for the run.
    segmenter, why = choose_model(config=UNetConfig(filters=8, depth=2), **options)
    assert "found out from the file" in why and "Training images unknown" in why
    assert segmenter.provenance.more["architecture"]["widths"] == [4, 8, 16]
    (tmp_path / "model.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    with pytest.raises(WeightsError, match="damaged HDF5 file"):
        choose_model(config=CONFIG, **options)
    inside = tmp_path / "runs" / "a" / "model" / "model.weights.h5"
    assert choose_model(inside, data="BUSI", fold=0)[0].threshold == 0.1  # its own settings


# python -m unet_lib weights list | download | verify


def test_list_says_what_is_here_and_what_is_not(capsys):
    assert main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    for entry in registry.weights_registry().values():
        state = "present" if entry.path.is_file() else "not downloaded"
        assert f"{entry.name}: {state}\n" in text
    assert "busi-fold0: present" in text and "Dice 0." in text and "MIT" in text
    assert registry.weights_registry()["busi-fold0"].sha256 in text


def test_weights_that_are_here_are_only_compared(capsys):
    assert main(["weights", "download", "busi-fold0"]) == 0
    assert "SHA-256 as registered" in capsys.readouterr().out
    assert main(["weights", "download", "busi"]) == 2
    listed = "busi: no such weights. Registered: bus-best, bus-small, busi-fold0"
    assert listed in capsys.readouterr().err


def test_verify_finds_what_is_wrong(tmp_path, capsys):
    model = shutil.copytree(folder_module.REGISTRY / "bus-small", tmp_path / "bus-small")
    assert main(["weights", "verify", str(model)]) == 0
    assert "bus-small: as it should be" in capsys.readouterr().out
    card = (model / "CARD.md").read_text()
    count = re.search(r"([\d,]+) parameters", card)[1]
    (model / "CARD.md").write_text(card.replace(count, "1,234"))
    assert f"the number of parameters ('{count}') is not in it" in verify_model(model)[0]
    (model / "CARD.md").unlink()
    assert "CARD.md: missing" in verify_model(model)[0]
    with h5py.File(model / "model.weights.h5", "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1
    assert main(["weights", "verify", str(model)]) == 1
    assert "SHA-256" in capsys.readouterr().out
    assert "neither a model folder" in verify_model(model.parent / "absent")[0]

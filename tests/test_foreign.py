"""Weights of U-Nets built by others' code: loaded to the same outputs, or refused by name."""

import json
import re
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_png
from foreign_zoo import LOADED, REFUSED

from unet_lib.dataset import Case
from unet_lib.weights import WeightsError, load_foreign_weights

OLD = Path(__file__).parent / "data" / "foreign"


def shake(model, seed):
    """Random weights of a size at which every path through the network counts."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for weight in layer.weights:
            shape, name = tuple(weight.shape), weight.name.split("/")[-1].split(":")[0]
            if name in ("gamma", "moving_variance"):
                value = rng.uniform(0.6, 1.5, shape)
            elif name in ("bias", "beta", "moving_mean"):
                value = rng.normal(0, 0.2, shape)
            elif name == "seed_generator_state":
                value = weight.numpy()
            else:
                outputs = shape[-2] if "Transpose" in type(layer).__name__ else shape[-1]
                fan_in = np.prod(shape) / outputs
                value = rng.normal(0, np.sqrt(2.0 / max(fan_in, 1)), shape)
            values.append(np.asarray(value, "float32"))
        if values and not layer.name.startswith(("dropout", "spatial")):
            layer.set_weights(values)


def pictures(count, side, seed):
    """Smooth noise, uint8 (side, side)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        x = rng.normal(size=(side, side))
        for axis in (0, 1):
            x = sum(np.roll(x, shift, axis) for shift in (-1, 0, 1))
        found.append(np.uint8(255 * (x - x.min()) / np.ptp(x)))
    return np.stack(found)


def teach(model, side, folder, lesion=0, factor=255.0, count=3, seed=1):
    """Cases whose masks are what the model itself says: only the true reading gets them right."""
    images = pictures(count, side, seed)
    channels = model.input_shape[-1]
    batch = np.repeat(images[..., None].astype("float32") / np.float32(255), channels, -1)
    batch = batch * np.float32(factor)
    head = model.layers[-1]
    final, head.activation = head.activation, keras.activations.linear
    logits = np.asarray(model(batch, training=False))
    # Half of the pixels on either side of one half, most of them not far from it.
    difference = logits[..., lesion] - (0 if final.__name__ == "sigmoid" else logits[..., 0])
    factor = 2.0 / difference.std()
    kernel, bias = head.get_weights()
    bias = bias * factor
    bias[lesion] -= factor * np.median(difference)
    head.set_weights([kernel * factor, bias])
    head.activation = final
    probabilities = model.predict_on_batch(batch)[..., lesion]
    cases = []
    for index, (image, values) in enumerate(zip(images, probabilities, strict=True)):
        name = f"case{index}"
        picture = write_png(folder / f"{name}.png", image)
        mask = write_png(folder / f"{name}_mask.png", np.uint8(255 * (values >= 0.5)))
        cases.append(Case(name, "benign", picture, (mask,), name))
    return cases, batch


def teacher(name, tmp_path):
    build = LOADED[name]
    side = 64 if "depth 6" in name else 32
    model = build(side)
    shake(model, zlib.crc32(name.encode()))
    lesion = model.output_shape[-1] - 1
    factor = 255.0 if "Lambda" in name else 1.0
    cases, batch = teach(model, side, tmp_path, lesion, factor)
    path = tmp_path / "theirs.weights.h5"
    model.save_weights(path)
    return model, path, cases, batch, side


def check(name, tmp_path):
    model, path, cases, batch, side = teacher(name, tmp_path)
    found = load_foreign_weights(path, cases, size=side, keep_aspect=False, progress=False)
    expected = model.predict_on_batch(batch)
    np.testing.assert_allclose(found.network.predict_on_batch(batch), expected, atol=1e-5)
    # and through the segmenter, from the image on
    image = batch[0, ..., :1] / (255.0 if "Lambda" in name else 1.0)
    np.testing.assert_allclose(
        found.segmenter().probabilities(image), expected[0, ..., model.output_shape[-1] - 1],
        atol=1e-5,
    )  # fmt: skip
    return found


@pytest.mark.parametrize("name", LOADED)
def test_the_network_of_a_tutorial_gives_the_same_outputs(name, tmp_path):
    found = check(name, tmp_path)
    points = {point.point: point for point in found.assumed}
    # A Lambda layer's code is not in the file; what it does to bytes is settled in its place.
    scaling = "what the file's scaling layer makes of bytes"
    point = scaling if "Lambda" in name else "values of the input"
    assert points[point].settled_by == "validation"
    json.dumps(found.architecture)
    assert sum(row["group"] != "" for row in found.architecture["layers"]) > 8


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_known_network_is_refused_by_name(name, tmp_path):
    build, word = REFUSED[name]
    build(32).save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(WeightsError, match="Nothing was loaded") as error:
        load_foreign_weights(tmp_path / "x.weights.h5", progress=False)
    assert re.search(word, str(error.value))


def old_files():
    return sorted(p for p in OLD.iterdir() if p.suffix != ".npz")


@pytest.mark.parametrize("path", old_files(), ids=lambda p: p.name)
def test_files_of_old_versions(path):
    """TF-Keras 2.12 to 2.15 and Keras 3.0, made by tools/make_foreign_fixtures.py."""
    stem = re.match(r"keras-[\d.]+-(norm|dropout)", path.name)[0]
    known = np.load(OLD / f"{stem}.npz")
    found = load_foreign_weights(path, size=16, progress=False)
    given = found.network.predict_on_batch(known["batch"])
    np.testing.assert_allclose(given, known["expected"], atol=1e-5)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_whole_model_of_today(ending, tmp_path):
    model = LOADED["bnsreenu U-Net with norm"](32)
    shake(model, 4)
    model.compile("adam", "binary_crossentropy")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / f"m.{ending}")
    found = load_foreign_weights(tmp_path / f"m.{ending}", progress=False)
    batch = np.random.default_rng(0).random((2, 32, 32, 1), dtype="float32")
    np.testing.assert_allclose(
        found.network.predict_on_batch(batch), model.predict_on_batch(batch), atol=1e-5
    )
    assert found.preprocessing.size == 32


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_code_in_a_file_is_never_run(ending, tmp_path):
    LOADED["Kaggle starter, ELU, Lambda scaling, 16-256"](32).save(tmp_path / f"m.{ending}")
    with pytest.raises(WeightsError, match="'Lambda'; code in a file is never run"):
        load_foreign_weights(tmp_path / f"m.{ending}")


def test_without_cases_defaults_are_listed(tmp_path):
    model = LOADED["bnsreenu U-Net with norm"](32)
    model.save_weights(tmp_path / "x.weights.h5")
    found = load_foreign_weights(tmp_path / "x.weights.h5")
    assert found.architecture["widths"] == [8, 16, 32, 64]
    assert found.preprocessing.size == 256
    points = {point.point: point for point in found.assumed}
    assert points["order of concatenation"].alternatives == ("skip_up",)
    assert {p.settled_by for p in found.assumed} == {"default"}
    assert (
        "| encoder level 1, convolution 1 | conv2d | conv2d | (3, 3, 1, 8), (8,) |" in found.table()
    )


def test_the_size_is_found_on_validation_cases(tmp_path):
    model = LOADED["added skips"](96)
    shake(model, 3)
    cases, _ = teach(model, 96, tmp_path, factor=1.0)
    model.save_weights(tmp_path / "x.weights.h5")
    found = load_foreign_weights(tmp_path / "x.weights.h5", cases, progress=False)
    assert found.preprocessing.size == 96
    size = next(p for p in found.assumed if p.point == "image size")
    assert size.settled_by == "validation" and size.margin > 0

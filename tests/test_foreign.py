"""Weights of U-Nets built by others' code: loaded to the same outputs, or refused by name."""

import zlib

import foreign_zoo
import numpy as np
import pytest
from conftest import write_png
from foreign_zoo import LOADED, REFUSED

from unet_lib.dataset import Case
from unet_lib.weights import WeightsError, load_foreign_weights


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
                fan_in = np.prod(shape) / (shape[-2] if "Transpose" in type(layer).__name__ else shape[-1])
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


def teach(model, side, folder, lesion=0, factor=255.0, count=4, seed=1):
    """Cases whose masks are what the model itself says: only the true reading gets them right."""
    images = pictures(count, side, seed)
    channels = model.input_shape[-1]
    batch = np.repeat(images[..., None].astype("float32") / np.float32(255), channels, -1)
    batch = batch * np.float32(factor)
    head = model.layers[-1]
    probabilities = model.predict_on_batch(batch)[..., lesion]
    middle = np.median(probabilities)
    kernel, bias = head.get_weights()
    bias[lesion] -= np.log(middle / (1 - middle))
    head.set_weights([kernel, bias])
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


@pytest.mark.parametrize("name", LOADED)
def test_the_network_of_a_tutorial_gives_the_same_outputs(name, tmp_path):
    model, path, cases, batch, side = teacher(name, tmp_path)
    found = load_foreign_weights(
        path, cases, size=side, keep_aspect=False, progress=False
    )
    expected = model.predict_on_batch(batch)
    np.testing.assert_allclose(found.network.predict_on_batch(batch), expected, atol=1e-5)
    # and through the segmenter, from the image on
    lesion = model.output_shape[-1] - 1
    image = batch[0, ..., :1] / (255.0 if "Lambda" in name else 1.0)
    np.testing.assert_allclose(
        found.segmenter().probabilities(image), expected[0, ..., lesion], atol=1e-5
    )

"""Weights of U-Nets built by others' code: loaded to the same outputs, or refused by name."""

import json
import random
import re
import warnings
import zipfile
import zlib
from functools import partial
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import write_png
from foreign_zoo import LOADED, REFUSED, classic, general

from unet_lib.dataset import Case
from unet_lib.foreign import load_foreign_weights
from unet_lib.images import MaskSet
from unet_lib.inference import evaluate_cases
from unet_lib.weights import WeightsError

OLD = Path(__file__).parent / "data" / "foreign"


def shake(model, seed):
    """Random weights of a size at which every path through the network counts."""
    rng = np.random.default_rng(seed)
    for weight in (weight for layer in model.layers for weight in layer.weights):
        shape, name = tuple(weight.shape), weight.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.6, 1.5, shape))
        elif name in ("bias", "beta", "moving_mean"):
            weight.assign(rng.normal(0, 0.2, shape))
        elif name != "seed_generator_state":
            outputs = shape[-2] if "transpose" in weight.path else shape[-1]
            weight.assign(rng.normal(0, np.sqrt(2.0 * outputs / max(np.prod(shape), 1)), shape))
    return model


def agree(found, model, most=1.0):
    """The loaded network gives the model's own outputs."""
    shape = (2, *(model.input_shape[1:3] if model.input_shape[1] else (32, 32)))
    batch = np.random.default_rng(0).uniform(0, most, (*shape, model.input_shape[-1]))
    given, own = (one.predict_on_batch(batch.astype("float32")) for one in (found.network, model))
    np.testing.assert_allclose(given, own, atol=1e-5)


def pictures(count, side, seed):
    """Smooth noise, uint8 (side, side)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        x = rng.normal(size=(side, side))
        for axis in (0, 1):
            x = sum(np.roll(x, shift, axis) for shift in (-1, 0, 1))
        made.append(np.uint8(255 * (x - x.min()) / np.ptp(x)))
    return np.stack(made)


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
        marked = np.pad((values >= 0.5)[1:-1, 1:-1], 1)  # a marked border is in doubt
        mask = write_png(folder / f"{name}_mask.png", np.uint8(255 * marked))
        # What a shaken network marks has holes, which no lesion has: the rule reads it as it is.
        rule = MaskSet([mask], "0:255")
        cases.append(Case(name, "benign", picture, (mask,), name, mask_set=rule))
    return cases, batch


QUICK = (
    "Kaggle starter, ELU, Lambda scaling, 16-256", "keras-unet custom_unet, simple", "added skips",
    "keras.io, U-Net-like", "attention from the lower level", "average pooling, LeakyReLU layers",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LOADED]
)
def test_the_network_of_a_tutorial_gives_the_same_outputs(name, tmp_path):
    side = 64 if "depth 6" in name else 32
    model = shake(LOADED[name](side), zlib.crc32(name.encode()))
    lesion = model.output_shape[-1] - 1
    factor = 255.0 if "Lambda" in name else 1.0
    cases, batch = teach(model, side, tmp_path, lesion, factor)
    path = tmp_path / "theirs.weights.h5"
    model.save_weights(path)
    found = load_foreign_weights(path, cases, size=side, keep_aspect=False, progress=False)
    expected = model.predict_on_batch(batch)
    np.testing.assert_allclose(found.network.predict_on_batch(batch), expected, atol=1e-5)
    probabilities = found.segmenter().probabilities(batch[0, ..., :1] / np.float32(factor))
    np.testing.assert_allclose(probabilities, expected[0, ..., lesion], atol=1e-5)
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
    """U-Nets of 16 pixels made with tf.keras 2.12 to 2.15 and Keras 3.0, and what they gave."""
    stem = re.match(r"keras-[\d.]+-(norm|dropout)", path.name)[0]
    known = np.load(OLD / f"{stem}.npz")
    found = load_foreign_weights(path, size=16, progress=False)
    given = found.network.predict_on_batch(known["batch"])
    np.testing.assert_allclose(given, known["expected"], atol=1e-5)


def augmented(side):
    """Layers that do nothing when applied, and an operator on a tensor."""
    image = keras.Input((side, side, 1))
    x = keras.layers.RandomFlip()(image)
    x = keras.layers.RandomRotation(0.1)(x) / 255.0
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    return keras.Model(image, keras.layers.Conv2D(1, 1, activation="sigmoid")(x))


STARTER = LOADED["Kaggle starter, ELU, Lambda scaling, 16-256"]


@pytest.mark.parametrize(
    ("build", "ending"),
    [(LOADED["bnsreenu U-Net with norm"], "h5"), (augmented, "keras")]
    + [(STARTER, "keras"), (STARTER, "h5")],
)
def test_a_whole_model_of_today(build, ending, tmp_path):
    """A Lambda layer that takes the image is read as a scaling."""
    model = shake(build(32), 4)
    model.compile("adam", "binary_crossentropy")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / f"m.{ending}")
    found = load_foreign_weights(tmp_path / f"m.{ending}", progress=False)
    agree(found, model, 255.0)
    assert found.preprocessing.size == 32


@pytest.mark.parametrize("name", ["keras-unet custom_unet, deconv", "added skips"])
def test_an_activation_that_is_no_layer_is_a_convolutions_argument(name, tmp_path):
    """It cannot come after the normalisation then; h5py writes conv2d_10 before conv2d_2."""
    model = shake(LOADED[name](32), 11)
    model.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5") as old, h5py.File(tmp_path / "b.h5", "w") as new:
        for group in old:
            old.copy(group, new)
    found = load_foreign_weights(tmp_path / "b.h5", progress=False)
    agree(found, model)
    assert "where skips start" in {point.point for point in found.assumed}


@pytest.mark.parametrize("ending", ["keras", "weights.h5"])
def test_logits_of_several_classes_go_through_softmax(ending, tmp_path):
    model = shake(classic(32, (8, 16), head=3, final="softmax"), 9)
    cases, batch = teach(model, 32, tmp_path, lesion=2, factor=1.0)
    expected = model.predict_on_batch(batch)
    model.layers[-1].activation = keras.activations.linear
    path = tmp_path / f"m.{ending}"
    model.save(path) if ending == "keras" else model.save_weights(path)
    found = load_foreign_weights(path, cases, size=32, keep_aspect=False, progress=False)
    np.testing.assert_allclose(
        found.segmenter().probabilities(batch[0]), expected[0, ..., 2], atol=1e-5
    )
    head = next(p for p in found.assumed if p.point == "activation of the output")
    assert head.value == "softmax" and head.settled_by == "validation"


def framed(x):
    return keras.layers.ZeroPadding2D(1)(keras.layers.Cropping2D(1)(x))


HEADS = {
    "sigmoid": ("sigmoid", lambda x: x),
    "softmax": ("softmax", lambda x: x),
    "linear": ("linear", lambda x: x),
    "sigmoid layer": ("sigmoid", keras.layers.Activation("sigmoid")),
    "softmax layer": ("softmax", keras.layers.Softmax()),
    "linear layer": ("linear", keras.layers.Activation("linear")),
    "linear, padded": ("linear", framed),
    "sigmoid, padded": ("sigmoid", framed),
    "tanh": ("tanh", lambda x: x),
    "relu": ("relu", lambda x: x),
    "tanh layer": ("tanh", keras.layers.Activation("tanh")),
    "relu layer": ("relu", keras.layers.ReLU()),
}  # fmt: skip


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", HEADS)
def test_heads_and_channels(name, channels, tmp_path):
    kind, after = HEADS[name]
    outputs = 2 if "softmax" in name else 1 + len(name) % 3
    image = keras.Input((32, 32, channels))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = keras.layers.Conv2D(outputs, 1, activation=None if "layer" in name else kind)(x)
    model = shake(keras.Model(image, after(x)), 12)
    model.save(tmp_path / "m.keras")
    if kind in ("tanh", "relu"):
        with pytest.raises(WeightsError, match=f"outputs go through {kind}; expected sigmoid"):
            load_foreign_weights(tmp_path / "m.keras", progress=False)
        return
    if channels not in (1, 3):
        with pytest.raises(WeightsError, match=f"takes {channels} channels.*Give channels="):
            load_foreign_weights(tmp_path / "m.keras", progress=False)
    found = load_foreign_weights(tmp_path / "m.keras", channels=channels, progress=False)
    grey = np.random.default_rng(0).random((32, 32, 1), dtype="float32")
    values = model.predict_on_batch(np.repeat(grey, channels, -1)[None])[0]
    points = {point.point: point for point in found.assumed}
    assert ("activation of the output" in points) == (kind == "linear")
    if kind == "linear" and outputs > 1:
        values = np.exp(values) / np.exp(values).sum(-1, keepdims=True)
    elif kind == "linear":
        values = 1 / (1 + np.exp(-values))
    if outputs > 1:
        lesion = points["output that is the lesion (-1: all but the first)"]
        assert (-1 in (lesion.value, *lesion.alternatives)) == (kind != "sigmoid")
        values = 1 - values[..., :1] if lesion.value < 0 else values
    expected = values[..., 0]
    np.testing.assert_allclose(found.segmenter().probabilities(grey), expected, atol=1e-5)


def speckle(side, seed):
    """Pictures with a dark ellipse (N, S, S, 1) in [0, 255], and their masks."""
    rng = np.random.default_rng(seed)
    pictures = rng.rayleigh(60, (12, side, side)).clip(0, 255)
    y, x = np.mgrid[:side, :side]
    masks = np.stack([
        ((y - rng.integers(20, 44)) / rng.integers(7, 15)) ** 2
        + ((x - rng.integers(20, 44)) / rng.integers(7, 15)) ** 2 < 1
        for _ in pictures
    ])  # fmt: skip
    return np.where(masks, 0.3 * pictures, pictures).astype("u1")[..., None], masks


MEANS, DEVIATIONS = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALINGS = {  # of pictures (N, S, S, 1) in [0, 255]
    "unit": lambda x: x / 255,
    "bytes": lambda x: x * 1.0,
    "symmetric": lambda x: x / 127.5 - 1,
    "imagenet": lambda x: (x / 255 - MEANS) / DEVIATIONS,
    "caffe": lambda x: x - np.array([103.939, 116.779, 123.68]),
    "set": lambda x: (x - x.mean()) / x.std(),
    "image": lambda x: (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True),
}
NETWORKS = {
    "plain": lambda channels: classic(64, (8, 16), channels=channels),
    "added skips": lambda channels: general(64, merge="add", channels=channels),
    "residual": lambda channels: general(64, shortcut=True, channels=channels),
    "resized": lambda channels: general(64, up="resize", channels=channels),
}


def fitted(network):
    """A network that finds the ellipses of standardised pictures."""
    keras.utils.set_random_seed(1)
    pictures, masks = speckle(64, 3)
    model = NETWORKS[network](1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy", jit_compile=False)
    batch = SCALINGS["set"](pictures)
    model.fit(batch, masks[..., None].astype("float32"), batch_size=4, epochs=40, verbose=0)
    return model


def wanting(model, network, scaling):
    """The same network for other input values: what the values were goes into its first layers.

    Only where "image" takes each picture's own mean and deviation it gives other outputs.
    """
    pictures, _ = speckle(64, 3)
    ends = np.array([pictures.min(), pictures.max()], "float64")
    standard = (ends - pictures.mean()) / pictures.std()
    values = standard[:, None]
    if scaling not in ("set", "image"):
        values = SCALINGS[scaling](ends[:, None])
    factor = np.ptp(standard) / (values[1] - values[0])  # (channels,)
    offset = standard[0] - (factor * values[0]).mean()
    other = NETWORKS[network](len(factor))
    for old, new in zip(model.layers, other.layers, strict=True):
        arrays = old.get_weights()
        if isinstance(old, keras.layers.Conv2D) and old.input is model.input:
            kernel, bias = arrays
            arrays = [kernel * factor[:, None] / len(factor), bias + offset * kernel.sum((0, 1, 2))]
        new.set_weights(arrays)
    return other


def settled(model, scaling, folder, ending=".keras", **known):
    """Load a network on pictures that it was not fitted to: its own Dice, Dice here, and doubt."""
    pictures, masks = speckle(64, 4)
    cases = []
    for index, (picture, mask) in enumerate(zip(pictures[..., 0], masks, strict=True)):
        image = write_png(folder / f"{index}.png", picture)
        truth = write_png(folder / f"{index}_mask.png", np.uint8(255 * mask))
        cases.append(Case(str(index), "benign", image, (truth,), str(index)))
    path = folder / f"m{ending}"
    (model.save if ending == ".keras" else model.save_weights)(path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = load_foreign_weights(path, cases, keep_aspect=False, progress=False, **known)
    own = dice(model.predict_on_batch(SCALINGS[scaling](pictures))[..., 0] >= 0.5, masks)
    segmenter = found.segmenter()
    here = dice(np.stack([segmenter.segment(c.image_path).mask for c in cases]), masks)
    assert bool(found.not_settled) == any("not settled" in str(w.message) for w in seen)
    banner = evaluate_cases(segmenter, cases, progress=False).provenance.banner
    assert ("NETWORK FROM ELSEWHERE" in banner) == bool(found.not_settled)
    return own, here, found.not_settled


def test_input_values_are_settled_or_said_not_to_be(tmp_path):
    model = fitted("added skips")
    for scaling in ("bytes", "caffe"):
        own, here, _ = settled(wanting(model, "added skips", scaling), scaling, tmp_path)
        assert here > own - 0.02 > 0.8


@pytest.mark.slow
def test_input_values_of_most_networks_are_settled(tmp_path):
    reached, pairs = 0, []
    for network in NETWORKS:
        model = fitted(network)
        for scaling in SCALINGS:
            one = wanting(model, network, scaling)
            own, here, doubt = settled(one, scaling, tmp_path)
            reached += here > own - 0.02
            pairs.append((network, scaling, own, here, doubt))
            assert own > 0.9, pairs[-1]  # else anything would do
            assert here > own - 0.02 or doubt, pairs[-1]
    assert reached >= len(pairs) * 20 / 24, pairs


@pytest.mark.slow
def test_weights_compared_at_another_size_are_not_settled(tmp_path):
    model = wanting(fitted("residual"), "residual", "bytes")
    own, _, doubt = settled(model, "bytes", tmp_path, ".weights.h5")
    assert own > 0.9 and "but 64 is best; give size=64" in doubt
    own, here, _ = settled(model, "bytes", tmp_path, ".weights.h5", size=64)
    assert here > own - 0.02


def dice(ours, truths):
    both = (ours & truths).sum((1, 2))
    return np.mean(2 * both / (ours.sum((1, 2)) + truths.sum((1, 2))))


def test_what_is_stated_is_not_tried(tmp_path):
    model = classic(32, (8, 16), channels=3)
    model.save_weights(tmp_path / "m.weights.h5")
    load = partial(load_foreign_weights, tmp_path / "m.weights.h5", progress=False)
    found = load(scale="caffe")
    assert found.scale == "caffe"
    assert [p.settled_by for p in found.assumed if p.point == "values of the input"] == ["user"]
    assert load(scale="set 0.3 0.2").scale == "set 0.3 0.2"
    for given in ({"scale": "set"}, {"scale": "percent"}, {"head": "softmax"}):
        with pytest.raises(ValueError, match=r"m.weights.h5: (scale|head) can be .*; received"):
            load(**given)


@keras.saving.register_keras_serializable("theirs")
class Squeeze(keras.layers.Layer):
    """A layer of somebody's own."""

    def call(self, x):
        return x / 2


DOUBLED, AVERAGED = keras.layers.Lambda(lambda x: x * 2), keras.layers.GlobalAveragePooling2D()


def after(layer):
    def build(side):
        model = classic(side, (8, 16))
        return keras.Model(model.input, layer(model.output))

    return build


def oblong(_):
    inputs = keras.Input((32, 48, 1))
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs))


def five_classes(side):
    model = classic(side, (8, 16))
    return keras.Model(model.input, keras.layers.Conv2D(5, 3)(model.layers[-2].output))


@pytest.mark.parametrize(
    ("build", "ending", "message"),
    [
        (after(Squeeze()), "keras", "layer '.*' is of class 'Squeeze', which is none of Keras 3"),
        (REFUSED["a model within the model"][0], "keras", "'.*' is a model within the model; only"),
        (after(DOUBLED), "keras", "layer '.*' is of class 'Lambda'; code in a file is never run"),
        (after(DOUBLED), "h5", "'Lambda'; code in a file is never"),
        (after(AVERAGED), "keras", r"of 32 x 32 pixels it makes \(1, 1\), expected a map of them"),
        (oblong, "keras", "it takes 32 x 48 pixels; only squares are used here"),
        (five_classes, "weights.h5", r".*head: .* \(3, 3, 8, 5\), \(5,\) and is no head"),
    ],
)
def test_reasons_name_what_is_not_loaded(build, ending, message, tmp_path):
    path, model = tmp_path / f"m.{ending}", build(32)
    model.save_weights(path) if "weights" in ending else model.save(path)
    with pytest.raises(WeightsError, match=rf"m\.{ending}: .*{message}.*Nothing was loaded"):
        load_foreign_weights(path, progress=False)


def test_files_of_others_are_named(tmp_path):
    pointer = tmp_path / "m.h5"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(WeightsError, match="m.h5: .* is a Git LFS pointer.*git lfs pull"):
        load_foreign_weights(pointer)
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", "x")
    with pytest.raises(WeightsError, match="m.pt: it is an archive of PyTorch"):
        load_foreign_weights(tmp_path / "m.pt")
    model = classic(32, (8, 16))
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs["keras_version"] = "1.2.2"
    with pytest.raises(WeightsError, match="old.h5: it was saved by Keras 1.2.2"):
        load_foreign_weights(tmp_path / "old.h5")


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
    model = shake(LOADED["added skips"](96), 3)
    cases, _ = teach(model, 96, tmp_path, factor=1.0)
    model.save_weights(tmp_path / "x.weights.h5")
    found = load_foreign_weights(tmp_path / "x.weights.h5", cases, progress=False)
    assert found.preprocessing.size == 96
    size = next(p for p in found.assumed if p.point == "image size")
    assert size.settled_by == "validation" and size.margin > 0


def whole(model, path, change=lambda config: config):
    """A .keras file with another config.json."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = change(json.loads(members["config.json"]))
    members["config.json"] = changed if isinstance(changed, str) else json.dumps(changed)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def first(name, **settings):
    def change(config):
        layers = config["config"]["layers"]
        next(x for x in layers if x["class_name"] == name)["config"].update(settings)
        return config

    return change


def called_with(name):
    def change(config):
        layer = next(x for x in config["config"]["layers"] if x["class_name"] == "Conv2D")
        given = {"module": "keras.layers", "class_name": name, "config": {}}
        layer["inbound_nodes"][0]["kwargs"]["mask"] = given
        return config

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: [config], "its config.json is no object. Nothing was loaded"),
        (lambda config: "{", "damaged .keras archive .*Fetch it again"),
        (lambda config: "0" * (1 << 20), "damaged .keras archive .*Fetch it again"),
        (first("Conv2D", filters=9), "layer 'conv2d.*takes arrays .*9.*the file has .*8.*Nothing"),
        (
            first("Conv2DTranspose", strides=[1, 1]),
            "Keras cannot build .*oncat.*matching shapes.*Nothing was loaded",
        ),
        (called_with("TFSMLayer"), "layer .* takes something else than outputs"),
        (called_with("__lambda__"), "layer .* takes something else than outputs"),
        (first("Conv2D", strides=[2, 2]), r"of 32 x 32 pixels it makes \(1, 16, 16, 1\), expected"),
    ],
)
def test_an_archive_with_another_topology_is_refused(change, message, tmp_path):
    path = whole(classic(32, (8, 16)), tmp_path / "m.keras", change)
    with pytest.raises(WeightsError, match=rf"m\.keras: {message}"):
        load_foreign_weights(path)


@pytest.mark.parametrize("seed", range(40))
def test_a_topology_with_anything_else_in_it_is_refused_or_loaded(seed, tmp_path):
    rng = random.Random(seed)

    def change(config):
        place, key = config, "config"
        while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.9:
            place = place[key]
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        place[key] = rng.choice([None, "x", 0, -1, 1e9, [], {}, ["input", 0, 0]])
        return config

    path = whole(classic(32, (4, 6)), tmp_path / "m.keras", change)
    try:
        load_foreign_weights(path, progress=False)
    except WeightsError as error:
        assert str(error).startswith(str(path)), error


def test_an_archive_without_its_parts_is_refused(tmp_path):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
    with pytest.raises(WeightsError, match=r"m\.keras: expected one config.json.*found 0. Nothing"):
        load_foreign_weights(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"m\.keras: damaged .keras archive .*Fetch it again"):
        load_foreign_weights(path)


def test_sizes_and_cases_that_do_not_fit(tmp_path):
    model = classic(32, (8, 16))
    model.save(tmp_path / "m.keras")
    classic(None, (8, 16)).save(tmp_path / "open.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    picture, mask = (write_png(tmp_path / f"{n}.png", np.zeros((32, 32), "u1")) for n in "am")
    normals = [Case("a", "normal", picture, (mask,), "a")]
    for name, given, message in (
        ("m.keras", {"size": 64}, "m.keras: takes 32 x 32 pixels; .*size=64. Leave size out"),
        ("open.keras", {"size": 33}, "open.keras: takes other sizes; .*size=33. Leave size out"),
        ("m.weights.h5", {"size": 33}, "m.weights.h5: takes multiples of 2 pixels; .*size=33"),
        ("m.weights.h5", {"calibrate_on": normals}, "none of the 1 cases has a lesion; give"),
    ):
        with pytest.raises(ValueError, match=message):
            load_foreign_weights(tmp_path / name, **given, progress=False)


def test_only_sizes_that_an_open_network_takes_are_compared(tmp_path):
    model = shake(classic(None, (1,) * 8, 1), 6)
    cases, _ = teach(model, 128, tmp_path, factor=1.0, count=1)
    model.save(tmp_path / "m.keras")
    found = load_foreign_weights(tmp_path / "m.keras", cases, keep_aspect=False, progress=False)
    size = next(p for p in found.assumed if p.point == "image size")
    assert sorted([size.value, *size.alternatives]) == [128, 256, 384, 512]

"""Batch normalisation folded for prediction: the same function, the same stored weights."""

import keras
import numpy as np
import pytest
from keras import layers

from unet_lib.images import Preprocessing
from unet_lib.inference import Segmenter
from unet_lib.model import UNetConfig, build_unet, fold_batch_norm

pytestmark = pytest.mark.keras


def uneven(network, seed=0):
    """Give every weight a random value: normalisations as built would hide a mistake."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights([rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.3, shape),
                               rng.normal(0, 0.3, shape), rng.uniform(0.3, 2, shape)])  # fmt: skip
    return network


def norms(network):
    return sum(isinstance(layer, layers.BatchNormalization) for layer in network.layers)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(filters=4, depth=2),
        UNetConfig(filters=4, depth=2, presence=True, upsampling="resize", dropout=0.2),
        UNetConfig(filters=4, depth=3, encoder="EfficientNetLite0"),
        UNetConfig(filters=4, depth=2, encoder="MobileNetV2"),
    ],
    ids=["plain", "presence", "lite", "application"],
)
def test_every_normalisation_of_our_networks_is_folded(config):
    if config.encoder != "plain" and keras.backend.backend() != "tensorflow":
        pytest.skip("JAX compiles it for half a minute; the plain network is compared there")
    keras.utils.set_random_seed(1)
    network = uneven(build_unet(config, 40))
    before = network.get_weights()
    folded = fold_batch_norm(network)
    assert norms(network) > 0 and (norms(folded) == 0 or config.encoder == "MobileNetV2")
    images = np.random.default_rng(1).random((3, 40, 40, 1), dtype=np.float32)
    expected = network.predict_on_batch(images)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(folded.predict_on_batch(images), expected, atol=1e-5)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def chain(*steps, channels=2):
    inputs = x = keras.Input((12, 12, channels))
    for step in steps:
        x = step(x)
    return uneven(keras.Model(inputs, x))


@pytest.mark.parametrize(
    "steps",
    [
        lambda: [layers.Conv2DTranspose(3, 2, 2, use_bias=True), layers.BatchNormalization()],
        lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2), layers.BatchNormalization()],
        lambda: [
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.BatchNormalization(scale=True, epsilon=0.1),
        ],
    ],
    ids=["transposed", "depthwise", "strided"],
)
def test_each_kind_of_convolution(steps):
    network = chain(*steps())
    folded = fold_batch_norm(network)
    assert norms(folded) == 0
    images = np.random.default_rng(2).normal(size=(2, 12, 12, 2)).astype("float32")
    expected = network.predict_on_batch(images)
    np.testing.assert_allclose(folded.predict_on_batch(images), expected, atol=1e-5)


def test_what_cannot_be_folded_stays():
    shared = layers.Conv2D(2, 3, padding="same")
    inputs = keras.Input((12, 12, 2))
    convolved = layers.Conv2D(2, 3, padding="same")(inputs)
    both = layers.Add()([layers.BatchNormalization()(convolved), convolved])
    kept = [
        chain(layers.BatchNormalization(), layers.Conv2D(2, 3, padding="same")),
        chain(layers.Conv2D(2, 3, activation="relu"), layers.BatchNormalization()),
        chain(layers.Conv2D(2, 3), layers.GroupNormalization(1)),
        chain(shared, layers.BatchNormalization(), shared, layers.BatchNormalization()),
        chain(keras.Sequential([layers.Conv2D(2, 3), layers.BatchNormalization()])),
        keras.Model(inputs, both),
        build_unet(UNetConfig(filters=4, depth=2, normalization="none"), 32),
    ]

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    for network in [*kept, Subclassed()]:
        assert fold_batch_norm(network) is network


def test_segmenter_sees_weights_that_change_later():
    keras.utils.set_random_seed(1)
    network = build_unet(UNetConfig(filters=4, depth=2), 32)
    segmenter = Segmenter(network, Preprocessing(32), batch_size=4)
    images = list(np.random.default_rng(2).random((5, 32, 32, 1), dtype=np.float32))
    before = list(segmenter.iter_probabilities(images))
    uneven(network)
    after = list(segmenter.iter_probabilities(images))
    assert np.abs(np.array(before) - np.array(after)).max() > 1e-3
    for image, found in zip(images, after, strict=True):
        np.testing.assert_allclose(segmenter.probabilities(image), found, atol=1e-5)


def test_a_network_compiled_with_a_loss_of_anybodys_is_folded():
    network = uneven(build_unet(UNetConfig(filters=4, depth=1), 16))
    network.compile(loss=lambda truth, predicted: keras.ops.mean(predicted))
    batch = np.random.default_rng(0).random((2, 16, 16, 1), "float32")
    folded = fold_batch_norm(network).predict_on_batch(batch)
    np.testing.assert_allclose(folded, network.predict_on_batch(batch), atol=1e-5)

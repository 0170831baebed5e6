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
    """Give every normalisation random values: as built they would hide a mistake."""
    rng = np.random.default_rng(seed)
    for layer in norms(network):
        shape = layer.gamma.shape
        shifts = (rng.normal(0, 0.3, shape) for _ in range(2))
        layer.set_weights([rng.uniform(0.5, 1.5, shape), *shifts, rng.uniform(0.3, 2, shape)])
    return network


def norms(network):
    return [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]


def chain(*steps):
    inputs = x = keras.Input((12, 12, 2))
    for step in steps:
        x = step(x)
    return uneven(keras.Model(inputs, x))


def assert_same_function(network, folded, seed=1):
    images = np.random.default_rng(seed).random((3, *network.input_shape[1:]), dtype=np.float32)
    expected = network.predict_on_batch(images)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(folded.predict_on_batch(images), expected, atol=1e-5)


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
    network.compile(loss=lambda truth, predicted: keras.ops.mean(predicted))  # anybody's
    before = network.get_weights()
    folded = fold_batch_norm(network)
    assert norms(network) and (not norms(folded) or config.encoder == "MobileNetV2")
    assert_same_function(network, folded)
    assert all(map(np.array_equal, before, network.get_weights()))


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: layers.Conv2DTranspose(3, 2, 2, use_bias=True),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.Conv2D(4, 3, strides=2, padding="same"),
    ],
    ids=["transposed", "depthwise", "strided"],
)
def test_each_kind_of_convolution(convolution):
    network = chain(convolution(), layers.BatchNormalization(epsilon=0.1))
    folded = fold_batch_norm(network)
    assert not norms(folded)
    assert_same_function(network, folded)


def test_what_cannot_be_folded_stays():
    shared = layers.Conv2D(2, 3, padding="same")
    inputs = keras.Input((12, 12, 2))
    convolved = layers.Conv2D(2, 3, padding="same")(inputs)
    both = layers.Add()([layers.BatchNormalization()(convolved), convolved])

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    for network in (
        chain(layers.BatchNormalization(), layers.Conv2D(2, 3, padding="same")),
        chain(layers.Conv2D(2, 3, activation="relu"), layers.BatchNormalization()),
        chain(layers.Conv2D(2, 3), layers.GroupNormalization(1)),
        chain(shared, layers.BatchNormalization(), shared, layers.BatchNormalization()),
        chain(keras.Sequential([layers.Conv2D(2, 3), layers.BatchNormalization()])),
        keras.Sequential([keras.Input((12, 12, 2)), layers.Conv2D(2, 3)]),
        keras.Model(inputs, both),
        Subclassed(),
    ):
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
    for image, probabilities in zip(images, after, strict=True):
        np.testing.assert_allclose(segmenter.probabilities(image), probabilities, atol=1e-5)

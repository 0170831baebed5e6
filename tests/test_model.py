import dataclasses
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

from unet_lib.model import UNetConfig, build_unet, summarise_network
from unet_lib.model.encoders import ENCODERS, PretrainedError

pytestmark = [pytest.mark.keras, pytest.mark.jax]
SVG = "{http://www.w3.org/2000/svg}"
RNG = np.random.default_rng(0)


def run(network, images):
    """One compiled program on JAX, which else compiles each operation by itself."""
    if keras.backend.backend() == "jax":
        return network.predict_on_batch(images)
    return np.asarray(network(images))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 0}, "depth must be a whole number from 1 to 10; received 0"),
        ({"filters": True}, "filters must be a whole number"),
        ({"kernel_size": 4}, "one of 1, 3, 5, 7; received 4"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to 0.99"),
        ({"normalization": "layer"}, "'batch', 'group', 'none'; received 'layer'"),
        ({"upsampling": "nearest"}, "'transposed', 'resize'"),
        ({"encoder": "ResNet18"}, "'plain'.*received 'ResNet18'"),
        ({"encoder_weights": "imagenet"}, "one of None with encoder 'plain'"),
        ({"encoder": "MobileNetV2", "depth": 6}, "from 2 to 5 with encoder 'MobileNetV2'"),
        ({"encoder": "EfficientNetLite0", "input_channels": 3}, "one of 1 with encoder"),
    ],
)
def test_wrong_configuration_says_what_is_allowed(wrong, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**wrong)


@pytest.mark.parametrize(
    ("normalization", "upsampling"),
    [("batch", "transposed"), ("group", "resize"), ("none", "transposed")],
)
def test_output_has_the_size_of_any_input(normalization, upsampling):
    config = UNetConfig(
        filters=4, depth=3, normalization=normalization, upsampling=upsampling, dropout=0.2
    )
    for height, width in ((8, 8), (17, 30)):
        output = run(build_unet(config, (height, width)), np.zeros((2, height, width, 1), "f4"))
        assert output.shape == (2, height, width, 1)
        assert (output > 0).all() and (output < 1).all()


def test_open_size_and_several_channels():
    network = build_unet(UNetConfig(filters=4, depth=2, input_channels=3, output_channels=2))
    for side in (8, 20):
        assert run(network, np.zeros((1, side, side, 3), "float32")).shape == (1, side, side, 2)


def test_presence_scales_all_pixels_of_an_image_alike():
    config = UNetConfig(filters=4, depth=2, presence=True)
    network = build_unet(config, 32)
    images = RNG.random((3, 32, 32, 1), dtype="float32")
    outputs = [network.get_layer(name).output for name in ("lesion", "presence")]
    lesion, presence = map(np.asarray, keras.Model(network.input, outputs)(images))
    assert presence.shape == (3, 1, 1, 1) and len(np.unique(presence)) == 3
    np.testing.assert_allclose(run(network, images), lesion * presence, rtol=1e-6)
    without = build_unet(dataclasses.replace(config, presence=False), 32)
    assert network.count_params() == without.count_params() + 16 + 1


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        ({"depth": 4}, (15, 64), "at least 16 x 16 pixels; received 15 x 64"),
        ({"encoder": "MobileNetV2"}, None, "needs a size"),
        (
            {"filters": 4, "encoder": "VGG16", "depth": 3},
            (65, 72),
            "'VGG16' has no features .* 65 x 72; .* a multiple of 8",
        ),
    ],
)
def test_a_size_that_does_not_fit_is_refused(config, size, message):
    with pytest.raises(ValueError, match=message):
        build_unet(UNetConfig(**config), size)


def test_lite_encoder_computes_what_pytorch_computes_with_the_imagenet_weights():
    inputs = keras.Input((96, 96, 1))
    levels = ENCODERS["EfficientNetLite0"].build(inputs, 5, "imagenet")
    assert [level.shape[1:] for level in levels] == [
        *((48, 48, 16), (24, 24, 24), (12, 12, 40), (6, 6, 112), (3, 3, 320))
    ]
    ramp = np.linspace(0, 1, 96, dtype=np.float32)
    features = run(keras.Model(inputs, levels[-1]), np.outer(ramp, ramp)[None, ..., None])
    # Of the same picture in three equal colours, by PyTorch's operations on the published weights
    # (`reference` in lab/convert_efficientnet_lite.py).
    expected = [-0.3738634, 0.9570380, -4.3361325, -1.2983921, 0.6403639, 0.8230134]
    np.testing.assert_allclose(features[0, 1, 1, :6], expected, atol=2e-4)
    assert features.mean() == pytest.approx(-0.0808299, abs=2e-4)
    assert features.std() == pytest.approx(1.7116491, abs=2e-4)


def test_imagenet_weights_are_loaded_only_when_asked_and_their_absence_is_named(monkeypatch):
    def stem(encoder="EfficientNetLite0", **options):
        config = UNetConfig(filters=4, encoder=encoder, encoder_weights="imagenet", depth=3)
        return build_unet(config, (64, 48), **options).get_layer("stem_conv").get_weights()[0]

    def offline(**options):
        raise Exception("URL fetch failure on https://somewhere: None -- [Errno 111] refused")

    assert np.array_equal(stem(), stem())
    assert not np.array_equal(stem(), stem(pretrained=False))
    with pytest.raises(FileNotFoundError, match="efficientnetlite1.weights.h5.*convert_efficient"):
        stem("EfficientNetLite1")
    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(PretrainedError, match=r"MobileNetV2.*URL fetch.*EfficientNetLite0"):
        stem("MobileNetV2")


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["MobileNetV2", "EfficientNetB0", "ResNet50V2", "VGG16"])
def test_application_encoder(encoder):
    network = build_unet(UNetConfig(filters=4, encoder=encoder, depth=3), (64, 72))
    assert network.output_shape == (None, 64, 72, 1)
    assert np.isfinite(run(network, np.zeros((1, 64, 72, 1), "float32"))).all()


def test_parameters_and_multiply_adds_by_hand():
    """One level, one convolution, no normalisation: small enough to count on paper."""
    config = UNetConfig(filters=2, depth=1, convolutions=1, normalization="none")
    summary = summarise_network(build_unet(config, 8))
    parameters = (
        (9 * 1 * 2 + 2)  # down0
        + (9 * 2 * 4 + 4)  # down1
        + (4 * 4 * 2 + 2)  # transposed
        + (9 * 4 * 2 + 2)  # up0 on the concatenation
        + (2 * 1 + 1)  # head
    )
    multiply_adds = 64 * 9 * 2 + 16 * 9 * 2 * 4 + 16 * 4 * 4 * 2 + 64 * 9 * 4 * 2 + 64 * 2
    assert (summary.parameters, summary.multiply_adds) == (parameters, multiply_adds)


def test_the_drawing_shows_every_level_and_skip():
    config = UNetConfig(filters=4, encoder="EfficientNetLite0", depth=3)  # no skip at full size
    for network, skips, sizes in (
        (build_unet(UNetConfig(filters=4, depth=2), (30, 21)), 2, ("30 × 21 × 4", "8 × 6 × 16")),
        (build_unet(config, 32), 2, ("32 × 32 × 1", "4 × 4 × 40")),
    ):
        summary = summarise_network(network)
        drawing = ElementTree.fromstring(summary._repr_svg_())
        words = ["".join(text.itertext()) for text in drawing.iter(f"{SVG}text")]
        boxes = len(list(drawing.iter(f"{SVG}rect"))) - 1  # the white ground
        assert boxes == 2 * len(summary.levels) - 1
        assert len(drawing.findall(f".//{SVG}path[@stroke-dasharray]")) == skips
        assert set(sizes) <= set(words) and f"parameters: {summary.parameters:,}" in words
    image = keras.Input((8, 8, 1))
    elsewhere = keras.Model(image, keras.layers.Conv2D(1, 3)(image))
    assert summarise_network(elsewhere)._repr_svg_() is None


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize("depth", [1, 3])
def test_receptive_field_is_the_reach_of_one_pixel(depth, upsampling):
    """Perturb pixels further and further away until no output changes."""
    config = UNetConfig(
        filters=2, depth=depth, normalization="none", upsampling=upsampling, convolutions=1
    )
    side = 96
    network = build_unet(config, side)
    for weight in network.trainable_variables:  # positive weights: nothing cancels, nothing dies
        weight.assign(np.full(weight.shape, 0.1, "float32"))
    logits = keras.Model(network.input, network.get_layer("logits").output)
    images = np.zeros((side, side, side, 1), "float32")
    images[np.arange(side), side // 2, np.arange(side)] = 1.0  # one image a column
    base = run(logits, np.zeros((1, side, side, 1), "float32"))[0, side // 2, :, 0]
    rows = np.asarray(logits.predict(images, batch_size=16, verbose=0))[:, side // 2, :, 0]
    reach = [np.flatnonzero(np.abs(rows[:, x] - base[x]) > 0) for x in range(24, side - 24)]
    widest = max(reached.max() - reached.min() + 1 for reached in reach)
    assert widest == summarise_network(network).receptive_field


def test_mixed_precision_gives_float32_close_to_full_precision():
    config = UNetConfig(filters=4, depth=2)
    full, mixed = build_unet(config, 32), build_unet(config, 32, precision="mixed_bfloat16")
    mixed.set_weights(full.get_weights())
    images = RNG.random((2, 32, 32, 1), dtype="float32")
    output = run(mixed, images)
    assert output.dtype == np.float32
    assert 0 < np.abs(output - run(full, images)).max() < 0.03
    assert keras.config.dtype_policy().name == "float32"

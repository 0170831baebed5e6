"""Encoders by name. Another one is a function and a row here, or from outside the package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import layers

from unet_lib.backend import BatchNormalization
from unet_lib.files import WEIGHTS_FOLDER


class PretrainedError(RuntimeError):
    """Weights from ImageNet cannot be had; the message says how to go on without."""


@dataclass(frozen=True)
class Encoder:
    """What shrinks the picture in a U-Net.

    Parameters
    ----------
    build : callable
        ``build(inputs, depth, weights)`` returns the features at 1/2, 1/4, ... 1/2**depth of
        `inputs`, (N, H, W, channels) in [0, 1]. `weights` is None (random) or ``"imagenet"``.
    channels : tuple of int
        Channels that it takes.
    depthwise : bool
        Built of depthwise convolutions, which CPUs compute faster in float32.
    """

    build: Callable[[Any, int, str | None], Sequence[Any]]
    channels: tuple[int, ...] = (1, 3)
    depthwise: bool = False


def _application(
    name: str, scaling: Callable[..., Any], inputs: Any, depth: int, weights: str | None
) -> list[Any]:
    """Take the last features of each resolution of a `keras.applications` network."""
    x = inputs
    if inputs.shape[-1] == 1:
        x = layers.Concatenate(name="grey_to_rgb")([x, x, x])
    x = scaling(name="scale_input")(x)
    build = getattr(keras.applications, name)
    try:
        backbone = build(include_top=False, input_tensor=x, weights=weights)
    except Exception as error:  # Keras raises a bare one where it cannot download
        if not weights or type(error) is not Exception and "corrupted" not in str(error):
            raise
        raise PretrainedError(
            f"encoder {name}: its ImageNet weights cannot be had ({str(error).splitlines()[0]}). "
            "Without internet: copy ~/.keras/models from a machine that has it (behind a proxy: "
            "set HTTPS_PROXY), take the encoder EfficientNetLite0, whose weights come with the "
            "project, or leave --imagenet out."
        ) from error
    outputs = [layer.output for layer in backbone.layers if len(layer.output.shape) == 4]
    levels = {tuple(output.shape[1:3]): output for output in outputs}
    height, width = inputs.shape[1:3]
    sizes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(1, depth + 1)]
    if any(size not in levels for size in sizes):
        raise ValueError(
            f"build_unet: encoder {name!r} has no features at every halving of {height} x {width}; "
            f"use a size that is a multiple of {2**depth}."
        )
    return [levels[size] for size in sizes]


# How each family of `keras.applications` wants an input in [0, 1] scaled.
_APPLICATIONS = {
    partial(layers.Rescaling, 255.0): (  # 0 to 255
        *(f"EfficientNetB{i}" for i in range(8)),
        *(f"EfficientNetV2{kind}" for kind in ("B0", "B1", "B2", "B3", "S", "M", "L")),
        *("MobileNetV3Small", "MobileNetV3Large"),
    ),
    partial(layers.Rescaling, 2.0, offset=-1.0): (  # -1 to 1
        *("MobileNet", "MobileNetV2", "ResNet50V2", "ResNet101V2", "ResNet152V2"),
    ),
    partial(  # ImageNet's mean and deviation
        layers.Normalization,
        mean=(0.485, 0.456, 0.406),
        variance=[d**2 for d in (0.229, 0.224, 0.225)],
    ): ("DenseNet121", "DenseNet169", "DenseNet201"),
    partial(  # 0 to 255 less ImageNet's mean; the order of colours is the same for grey
        layers.Normalization,
        mean=[v / 255.0 for v in (103.939, 116.779, 123.68)],
        variance=[1 / 255.0**2] * 3,
    ): ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
}

# EfficientNet-Lite, whose ImageNet weights, for one grey channel, come with the repository.
# Multipliers of width and of depth.
_LITE = {
    "EfficientNetLite0": (1.0, 1.0),
    "EfficientNetLite1": (1.0, 1.1),
    "EfficientNetLite2": (1.1, 1.2),
}
# Repeats, kernel, stride, expansion, filters of each stage (Tan & Le 2019, arXiv:1905.11946,
# table 1; the Lite variants leave out squeeze-and-excitation and use ReLU6).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _lite(name: str, inputs: Any, depth: int, weights: str | None) -> list[Any]:
    network, levels = build_efficientnet_lite(name, inputs)
    if weights:
        path = WEIGHTS_FOLDER / "encoders" / f"{name.lower()}.weights.h5"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: the ImageNet weights of {name} do not come with the repository. Make "
                f"them with lab/convert_efficientnet_lite.py {name}, or use "
                "encoder='EfficientNetLite0'."
            )
        network.load_weights(path)
    return levels[:depth]


def build_efficientnet_lite(name: str, inputs: Any) -> tuple[keras.Model, list[Any]]:
    """Return the convolutional part on a grey input, and its features at 1/2 to 1/32."""
    width, depth = _LITE[name]
    # The scaling that the ImageNet weights were trained with: (0..255 - 127) / 128.
    x = layers.Rescaling(255.0 / 128.0, offset=-127.0 / 128.0, name="scale_input")(inputs)
    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="stem_conv")(x)
    x = _normalize_relu(x, "stem")
    levels: list[Any] = []
    last = len(_STAGES) - 1
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES):
        if stride == 2:
            levels.append(x)
        # A multiple of 8 that is smaller by a tenth at most.
        wide = int(filters * width + 4) // 8 * 8
        wide += 8 * (wide < 0.9 * filters * width)
        # First and last stage are not deepened.
        for block in range(repeats if stage in (0, last) else math.ceil(repeats * depth)):
            step = f"stage{stage}_block{block}"
            x = _inverted_bottleneck(x, wide, kernel, 1 if block else stride, expansion, step)
    levels.append(x)
    return keras.Model(inputs, x, name=name.lower()), levels


def _normalize_relu(x: Any, name: str, relu: bool = True) -> Any:
    # As in the U-Net's own layers: a fold of BUSI has only some 70 steps an epoch.
    x = BatchNormalization(momentum=0.95, epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if relu else x


def _inverted_bottleneck(
    x: Any, filters: int, kernel: int, stride: int, expansion: int, name: str
) -> Any:
    inputs, channels = x, x.shape[-1]
    if expansion > 1:
        x = layers.Conv2D(channels * expansion, 1, use_bias=False, name=f"{name}_expand")(x)
        x = _normalize_relu(x, f"{name}_expand")
    depthwise = {"padding": "same", "use_bias": False, "name": f"{name}_depthwise"}
    x = layers.DepthwiseConv2D(kernel, stride, **depthwise)(x)
    x = _normalize_relu(x, f"{name}_depthwise")
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalize_relu(x, f"{name}_project", relu=False)
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{name}_add")([inputs, x])
    return x


ENCODERS: dict[str, Encoder] = {
    name: Encoder(partial(_lite, name), channels=(1,), depthwise=True) for name in _LITE
} | {
    name: Encoder(
        partial(_application, name, scaling),
        depthwise=name.startswith(("EfficientNet", "MobileNet")),
    )
    for scaling, names in _APPLICATIONS.items()
    for name in names
}
"""Encoders that `UNetConfig.encoder` may name, besides ``"plain"``."""

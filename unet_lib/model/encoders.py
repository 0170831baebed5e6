"""Encoders by name. Another one is a function and a row here, or from outside the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import layers

from unet_lib.model.efficientnet_lite import LITE, lite_encoder

__all__ = ["ENCODERS", "Encoder", "PretrainedError"]


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


def _application(name: str, scaling: str, inputs: Any, depth: int, weights: str | None) -> list:
    """Take the last features of each resolution of a `keras.applications` network."""
    x = inputs
    if inputs.shape[-1] == 1:
        x = layers.Concatenate(name="grey_to_rgb")([x, x, x])
    x = _SCALINGS[scaling](name="scale_input")(x)
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
_SCALINGS = {
    "bytes": partial(layers.Rescaling, 255.0),  # 0 to 255
    "symmetric": partial(layers.Rescaling, 2.0, offset=-1.0),  # -1 to 1
    "torch": partial(  # ImageNet's mean and deviation
        layers.Normalization,
        mean=(0.485, 0.456, 0.406),
        variance=[d**2 for d in (0.229, 0.224, 0.225)],
    ),
    "caffe": partial(  # 0 to 255 less ImageNet's mean; the order of colours is the same for grey
        layers.Normalization,
        mean=[v / 255.0 for v in (103.939, 116.779, 123.68)],
        variance=[1 / 255.0**2] * 3,
    ),
}
_FAMILIES = {
    "bytes": (
        *(f"EfficientNetB{i}" for i in range(8)),
        *(f"EfficientNetV2{kind}" for kind in ("B0", "B1", "B2", "B3", "S", "M", "L")),
        *("MobileNetV3Small", "MobileNetV3Large"),
    ),
    "symmetric": ("MobileNet", "MobileNetV2", "ResNet50V2", "ResNet101V2", "ResNet152V2"),
    "torch": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "caffe": ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
}

ENCODERS: dict[str, Encoder] = {
    name: Encoder(partial(lite_encoder, name), channels=(1,), depthwise=True) for name in LITE
} | {
    name: Encoder(
        partial(_application, name, scaling),
        depthwise=name.startswith(("EfficientNet", "MobileNet")),
    )
    for scaling, names in _FAMILIES.items()
    for name in names
}
"""Encoders that `UNetConfig.encoder` may name, besides ``"plain"``."""

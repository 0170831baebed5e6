"""EfficientNet-Lite: an ImageNet encoder whose weights come with the repository."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
from keras import layers

from unet_lib.backend import BatchNormalization
from unet_lib.folders import WEIGHTS_FOLDER

__all__ = ["LITE", "build_efficientnet_lite", "imagenet_file", "lite_encoder"]

_FOLDER = WEIGHTS_FOLDER / "encoders"

# Multipliers of width and of depth.
LITE = {
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
_EPSILON = 1e-3
# As in the U-Net's own layers: a fold of BUSI has only some 70 steps an epoch.
_MOMENTUM = 0.95


def imagenet_file(name: str) -> Path:
    """Return where the ImageNet weights of an encoder lie, converted for one grey channel."""
    path = _FOLDER / f"{name.lower()}.weights.h5"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: the ImageNet weights of {name} do not come with the repository. Make them "
            f"with lab/convert_efficientnet_lite.py {name}, or use encoder='EfficientNetLite0'."
        )
    return path


def lite_encoder(name: str, inputs: Any, depth: int, weights: str | None) -> list[Any]:
    """Build an encoder, see `unet_lib.model.Encoder`."""
    network, levels = build_efficientnet_lite(name, inputs)
    if weights == "imagenet":
        network.load_weights(imagenet_file(name))
    return levels[:depth]


def build_efficientnet_lite(name: str, inputs: Any) -> tuple[keras.Model, list[Any]]:
    """Return the convolutional part on a grey input, and its features at 1/2 to 1/32."""
    width, depth = LITE[name]
    # The scaling that the ImageNet weights were trained with: (0..255 - 127) / 128.
    x = layers.Rescaling(255.0 / 128.0, offset=-127.0 / 128.0, name="scale_input")(inputs)
    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="stem_conv")(x)
    x = _normalize_relu(x, "stem")
    levels: list[Any] = []
    last = len(_STAGES) - 1
    for stage, (repeats, kernel, stride, expansion, filters) in enumerate(_STAGES):
        if stride == 2:
            levels.append(x)
        # First and last stage are not deepened.
        count = repeats if stage in (0, last) else math.ceil(repeats * depth)
        for block in range(count):
            x = _inverted_bottleneck(
                x,
                _rounded(filters * width),
                kernel,
                stride if block == 0 else 1,
                expansion,
                f"stage{stage}_block{block}",
            )
    levels.append(x)
    return keras.Model(inputs, x, name=name.lower()), levels


def _rounded(filters: float) -> int:
    """Round to a multiple of 8, by at most a tenth downwards."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def _normalize_relu(x: Any, name: str, relu: bool = True) -> Any:
    x = BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_norm")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if relu else x


def _inverted_bottleneck(
    x: Any, filters: int, kernel: int, stride: int, expansion: int, name: str
) -> Any:
    inputs, channels = x, x.shape[-1]
    if expansion > 1:
        x = layers.Conv2D(channels * expansion, 1, use_bias=False, name=f"{name}_expand")(x)
        x = _normalize_relu(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = _normalize_relu(x, f"{name}_depthwise")
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalize_relu(x, f"{name}_project", relu=False)
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{name}_add")([inputs, x])
    return x

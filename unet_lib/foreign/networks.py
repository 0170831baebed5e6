"""Networks that a file may hold, and one reading of what it leaves open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from scipy.special import expit, softmax

from unet_lib.foreign.layouts import StoredLayer

DEFAULT_SIZE = 256
SIZES = (64, 96, 128, 160, 192, 224, 256, 320, 384, 512)
_MEANS, _DEVIATIONS = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALES: dict[str, tuple[Any, Any]] = {  # factor and offset of [0, 1]
    "unit": (1.0, 0.0),
    "bytes": (255.0, 0.0),
    "symmetric": (2.0, -1.0),
    # Modes torch and caffe (BGR) of Keras' imagenet_utils.preprocess_input.
    "imagenet": (1 / _DEVIATIONS, -_MEANS / _DEVIATIONS),
    "caffe": (255.0, -np.array([103.939, 116.779, 123.68])),
}
_PIXELS = 12 * 192 * 192  # of a batch


@dataclass(frozen=True)
class Reading:
    """One answer to what the file leaves open."""

    activation: str = "relu"  # of the blocks; a slope after "leaky_relu"
    interpolation: str = "nearest"  # of resizing layers
    groups: int = 32  # of group normalisation
    scale: str = "unit"  # see `input_values`
    rescaling: str = "none"  # of `SCALES`: what a scaling layer of the file makes of bytes
    head: str = "none"  # what makes probabilities of the network's values
    lesion: int = 0  # output; -1: all but the first together


@dataclass
class Network:
    """A network, the stored layer of each of its parts, and what is open in it."""

    model: keras.Model
    parts: list[tuple[str, StoredLayer]]
    settings: list[tuple[Any, str]]  # a layer, and the field of `Reading` that it depends on
    head: str = "linear"  # the last activation

    def read(self, reading: Reading) -> None:
        """Give every open setting its value, in place."""
        for layer, name in self.settings:
            value = getattr(reading, name)
            if name == "rescaling":
                factor, layer.offset = SCALES[value]
                layer.scale = factor / 255
            elif isinstance(layer, keras.layers.LeakyReLU):
                layer.negative_slope = float(value.split()[1])
            elif name == "activation":
                layer.activation = keras.activations.get(value.split()[0])
            else:
                setattr(layer, name, value)

    def values(self, images: np.ndarray, *scales: str) -> dict[str, np.ndarray]:
        """Return what it makes of grey images (N, S, S, 1) in [0, 1]: (N, S, S, outputs)."""
        images = np.repeat(images, self.model.input_shape[-1], axis=-1)
        batch = np.concatenate([np.asarray(input_values(images, scale)) for scale in scales])
        step = max(1, _PIXELS // batch[0, ..., 0].size)
        parts = [
            self.model(batch[i : i + step], training=False) for i in range(0, len(batch), step)
        ]
        values = np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])
        return dict(zip(scales, np.split(values, len(scales)), strict=True))


@dataclass(frozen=True, eq=False)
class Variant:
    """One network that a file may hold, with what the file leaves open."""

    build: Callable[[], Network]
    channels: int
    options: dict[str, tuple[Any, ...]]  # what fields of `Reading` may be, the default first
    style: dict[str, Any] = field(default_factory=dict)  # how it is laid out, if found out
    widths: list[int] = field(default_factory=list)


def input_values(images: Any, scale: str) -> Any:
    """Turn images (N, S, S, C) in [0, 1] into the values that a network wants.

    Of `SCALES`, or "image": less its own mean, by its standard deviation; "set M D": by the data
    set's.
    """
    name, *numbers = scale.split()
    if name == "unit":
        return images
    if name == "image":
        mean = keras.ops.mean(images, axis=(1, 2, 3), keepdims=True)
        return (images - mean) / (keras.ops.std(images, axis=(1, 2, 3), keepdims=True) + 1e-7)
    mean, deviation = map(float, numbers or (0, 1))
    factor, offset = SCALES.get(name, (1 / deviation, -mean / deviation))
    return images * np.float32(factor) + np.float32(offset)


def scale_options(channels: int) -> tuple[str, ...]:
    """Return the input values that are tried, the default first."""
    colour = ("imagenet", "caffe") if channels == 3 else ()
    return ("unit", "bytes", "symmetric", *colour, "image")


def lesion_map(values: np.ndarray, reading: Reading) -> np.ndarray:
    """Turn a network's values (N, S, S, outputs) into lesion probabilities (N, S, S)."""
    values = values.astype(np.float64)
    if reading.head == "sigmoid":
        values = expit(values)
    elif reading.head == "softmax":
        values = softmax(values, axis=-1)
    return 1.0 - values[..., 0] if reading.lesion < 0 else values[..., reading.lesion]

"""Building the U-Net."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import layers

from unet_lib.backend import BatchNormalization
from unet_lib.model.config import UNetConfig
from unet_lib.model.encoders import ENCODERS

__all__ = ["build_unet"]

# Fewer steps between the moving statistics and the weights than Keras' .99: a fold of BUSI has
# only some 70 steps an epoch.
_BATCH_MOMENTUM = 0.95


def build_unet(
    config: UNetConfig | None = None,
    size: int | tuple[int, int] | None = None,
    *,
    precision: str = "float32",
    pretrained: bool = True,
) -> keras.Model:
    """Build a U-Net whose output has the height and width of its input.

    Parameters
    ----------
    config : UNetConfig, optional
        The architecture; the default when left out.
    size : int or (int, int), optional
        Height and width of the input. Any size works: levels that do not halve exactly are
        cropped. None leaves it open, for inputs that are multiples of ``2**config.depth`` (plain
        encoder only).
    precision : str
        Keras dtype policy of all layers but the last, which gives float32.
    pretrained : bool
        False ignores ``config.encoder_weights``: for a network whose weights are loaded next.

    Returns
    -------
    keras.Model
        (N, H, W, input_channels) float32 in [0, 1] -> (N, H, W, output_channels) in [0, 1].

    Raises
    ------
    ValueError
        The size is too small for the depth, or must be given.
    """
    config = config or UNetConfig()
    height, width = (size, size) if size is None or isinstance(size, int) else size
    _check_size(config, height, width)
    with _dtype_policy(precision):
        inputs = keras.Input((height, width, config.input_channels), name="image")
        if config.encoder == "plain":
            *skips, deepest = _plain_encoder(config, inputs)
        else:
            weights = config.encoder_weights if pretrained else None
            *skips, deepest = ENCODERS[config.encoder].build(inputs, config.depth, weights)
        x = deepest
        for level, skip in reversed(list(enumerate(skips))):
            x = _up(config, x, skip, level)
        if config.encoder != "plain":  # its first skip is at half resolution
            x = _up(config, x, None, -1)
            x = _crop(x, inputs, "up_input")
        # A few percent of the pixels are lesion: start from that, not from one half.
        x = layers.Conv2D(
            config.output_channels,
            1,
            dtype="float32",
            bias_initializer=keras.initializers.Constant(-math.log(0.9 / 0.1)),
            name="logits",
        )(x)
        outputs = layers.Activation("sigmoid", dtype="float32", name="lesion")(x)
        if config.presence:
            outputs = _gate(outputs, deepest)
        name = "unet" if config.encoder == "plain" else f"unet_{config.encoder.lower()}"
        # Within the policy: Keras scales the loss of a model whose own policy is mixed_float16.
        return keras.Model(inputs, outputs, name=name)


def _gate(outputs: Any, deepest: Any) -> Any:
    """Multiply each pixel's probability by that of any lesion in the image."""
    features = layers.GlobalAveragePooling2D(
        keepdims=True, dtype="float32", name="presence_features"
    )(deepest)
    # Most images hold a lesion: start nearly open, so that the pixels learn from the beginning.
    presence = layers.Dense(
        1,
        activation="sigmoid",
        dtype="float32",
        bias_initializer=keras.initializers.Constant(2.0),
        name="presence",
    )(features)
    return layers.Multiply(dtype="float32", name="lesion_present")([outputs, presence])


def _check_size(config: UNetConfig, height: int | None, width: int | None) -> None:
    least = 2**config.depth
    if height is None or width is None:
        if config.encoder != "plain":
            raise ValueError(
                f"build_unet: encoder {config.encoder!r} needs a size; give size=(height, width)."
            )
    elif min(height, width) < least:
        raise ValueError(
            f"build_unet: a U-Net of depth {config.depth} needs an input of at least {least} x "
            f"{least} pixels; received {height} x {width}. Choose a larger size or less depth."
        )


@contextmanager
def _dtype_policy(precision: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _normalize(config: UNetConfig, x: Any, name: str) -> Any:
    if config.normalization == "batch":
        return BatchNormalization(momentum=_BATCH_MOMENTUM, name=f"{name}_norm")(x)
    if config.normalization == "group":
        groups = math.gcd(8, x.shape[-1])
        return layers.GroupNormalization(groups=groups, name=f"{name}_norm")(x)
    return x


def _block(config: UNetConfig, x: Any, filters: int, name: str) -> Any:
    for index in range(config.convolutions):
        step = f"{name}_{index}"
        x = layers.Conv2D(
            filters,
            config.kernel_size,
            padding="same",
            use_bias=config.normalization == "none",
            kernel_initializer="he_normal",
            name=f"{step}_conv",
        )(x)
        x = _normalize(config, x, step)
        x = layers.Activation("relu", name=f"{step}_relu")(x)
    return x


def _plain_encoder(config: UNetConfig, x: Any) -> list[Any]:
    """Return the features at 1/1, 1/2, ... 1/2**depth."""
    levels = []
    for level in range(config.depth + 1):
        if level:
            x = layers.MaxPooling2D(2, padding="same", name=f"down{level}_pool")(x)
        x = _block(config, x, config.filters * 2**level, f"down{level}")
        if config.dropout and level >= config.depth - 1:
            x = layers.SpatialDropout2D(config.dropout, name=f"down{level}_dropout")(x)
        levels.append(x)
    return levels


def _up(config: UNetConfig, x: Any, skip: Any | None, level: int) -> Any:
    """One decoder level: enlarge twofold, join the skip, convolve."""
    name = f"up{level}" if level >= 0 else "up_full"
    # An application encoder's skips start at half resolution, so its last level is one up.
    filters = config.filters * 2 ** (level if config.encoder == "plain" else level + 1)
    if config.upsampling == "transposed":
        x = layers.Conv2DTranspose(filters, 2, strides=2, name=f"{name}_conv_transpose")(x)
    else:
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_resize")(x)
        x = layers.Conv2D(filters, 1, name=f"{name}_reduce")(x)
    if skip is not None:
        x = _crop(x, skip, name)
        x = layers.Concatenate(name=f"{name}_concat")([skip, x])
    return _block(config, x, filters, name)


def _crop(x: Any, like: Any, name: str) -> Any:
    """Cut the row or column that doubling an odd size has added."""
    if None in like.shape[1:3] or tuple(x.shape[1:3]) == tuple(like.shape[1:3]):
        return x
    rows, columns = (x.shape[axis] - like.shape[axis] for axis in (1, 2))
    return layers.Cropping2D(((0, rows), (0, columns)), name=f"{name}_crop")(x)

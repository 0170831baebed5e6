"""The U-Net: its settings, and how it is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from unet_lib.backend import BatchNormalization
from unet_lib.model.encoders import ENCODERS
from unet_lib.settings import Settings


@dataclass(frozen=True)
class UNetConfig(Settings):
    """Architecture of a U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28).

    The default, 1.9 million parameters, trains 100 epochs of one BUSI fold (about 560 images of
    128 x 128 pixels) in about 70 minutes on two 2.4 GHz cores without matrix units.

    Parameters
    ----------
    input_channels : int
        Channels of the input; ultrasound has 1.
    output_channels : int
        Channels of the output, each with its own sigmoid; 1 = lesion, which alone can be trained.
    filters : int
        Convolution filters of the first level; doubled at each level below.
    depth : int
        Number of down-samplings (2 to 5 with an encoder that is not plain).
    convolutions : int
        Convolutions in a block.
    kernel_size : int
        Side of the convolution kernels, odd.
    normalization : {"batch", "group", "none"}
        After each convolution. Group normalisation does not depend on the batch size.
    dropout : float
        Share of feature channels dropped in the deepest block and the one before.
    upsampling : {"transposed", "resize"}
        Transposed convolution, or bilinear resizing followed by a convolution.
    encoder : str
        ``"plain"`` or a name of `unet_lib.model.ENCODERS`.
    encoder_weights : {None, "imagenet"}
        Start of the encoder: random, or ImageNet (of EfficientNetLite0 in the repository, of
        `keras.applications` downloaded by Keras).
    presence : bool
        Multiply every pixel's probability by that of the image holding a lesion at all, which a
        dense layer tells from the mean of the deepest features. It learns from the same loss.

    Raises
    ------
    ValueError
        A value is not allowed; the message says which are.
    """

    input_channels: int = 1
    output_channels: int = 1
    filters: int = 16
    depth: int = 4
    convolutions: int = 2
    kernel_size: int = 3
    normalization: str = "batch"
    dropout: float = 0.0
    upsampling: str = "transposed"
    encoder: str = "plain"
    encoder_weights: str | None = None
    presence: bool = False

    def __post_init__(self) -> None:
        self.check(
            input_channels=(1, 1024),
            output_channels=(1, 1024),
            filters=(1, 4096),
            depth=(1, 10),
            convolutions=(1, 100),
            kernel_size=[1, 3, 5, 7],
            normalization=["batch", "group", "none"],
            dropout=(0, 0.99),
            upsampling=["transposed", "resize"],
            encoder=["plain", *ENCODERS],
            encoder_weights=[None, "imagenet"],
        )
        where = f" with encoder {self.encoder!r}"
        if self.encoder == "plain":
            self.check(where, encoder_weights=[None])
        else:
            channels = list(ENCODERS[self.encoder].channels)
            self.check(where, input_channels=channels, depth=(2, 5))

    @property
    def depthwise(self) -> bool:
        """Whether the encoder is built of depthwise convolutions."""
        return self.encoder != "plain" and ENCODERS[self.encoder].depthwise


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
    plain, least = config.encoder == "plain", 2**config.depth
    sides = [side for side in (height, width) if side is not None]
    if len(sides) < 2 and not plain:
        raise ValueError(
            f"build_unet: encoder {config.encoder!r} needs a size; give size=(height, width)."
        )
    if min(sides, default=least) < least:
        raise ValueError(
            f"build_unet: a U-Net of depth {config.depth} needs an input of at least {least} x "
            f"{least} pixels; received {height} x {width}. Choose a larger size or less depth."
        )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        inputs = keras.Input((height, width, config.input_channels), name="image")
        if plain:
            *skips, deepest = _plain_encoder(config, inputs)
        else:
            weights = config.encoder_weights if pretrained else None
            *skips, deepest = ENCODERS[config.encoder].build(inputs, config.depth, weights)
        x = deepest
        for level, skip in reversed(list(enumerate(skips))):
            x = _up(config, x, skip, level)
        if not plain:  # its first skip is at half resolution
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
        name = "unet" if plain else f"unet_{config.encoder.lower()}"
        # Within the policy: Keras scales the loss of a model whose own policy is mixed_float16.
        return keras.Model(inputs, outputs, name=name)
    finally:
        keras.config.set_dtype_policy(before)


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
        if config.normalization == "batch":
            # Fewer steps between the moving statistics and the weights than Keras' .99: a fold of
            # BUSI has only some 70 steps an epoch.
            x = BatchNormalization(momentum=0.95, name=f"{step}_norm")(x)
        elif config.normalization == "group":
            groups = math.gcd(8, filters)
            x = layers.GroupNormalization(groups=groups, name=f"{step}_norm")(x)
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

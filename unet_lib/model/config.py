"""The settings of a U-Net."""

from __future__ import annotations

from dataclasses import dataclass

from unet_lib.settings import Settings

__all__ = ["ENCODERS", "LITE_ENCODERS", "UNetConfig"]

#: `keras.applications` encoders and how each wants its input scaled.
#: ``bytes``: 0 to 255; ``symmetric``: -1 to 1; ``torch``: ImageNet mean and deviation per channel;
#: ``caffe``: 0 to 255 minus ImageNet's mean, blue first.
ENCODERS: dict[str, str] = {
    **{f"EfficientNetB{i}": "bytes" for i in range(8)},
    **{f"EfficientNetV2B{i}": "bytes" for i in range(4)},
    **dict.fromkeys(("EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L"), "bytes"),
    **dict.fromkeys(("MobileNetV3Small", "MobileNetV3Large"), "bytes"),
    **dict.fromkeys(("MobileNet", "MobileNetV2"), "symmetric"),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), "symmetric"),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), "torch"),
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"), "caffe"),
}
#: EfficientNet-Lite and its multipliers of width and of depth.
LITE_ENCODERS: dict[str, tuple[float, float]] = {
    "EfficientNetLite0": (1.0, 1.0),
    "EfficientNetLite1": (1.0, 1.1),
    "EfficientNetLite2": (1.1, 1.2),
}
_NORMALIZATIONS = ("batch", "group", "none")
_UPSAMPLINGS = ("transposed", "resize")


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
        Channels of the output, each with its own sigmoid; 1 = lesion.
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
        Share of feature channels dropped in the deepest block and the one before, 0 to below 1.
    upsampling : {"transposed", "resize"}
        Transposed convolution, or bilinear resizing followed by a convolution.
    encoder : str
        ``"plain"``; ``"EfficientNetLite0"`` to ``2`` (grey input only); or a name of `ENCODERS` (a
        network of `keras.applications`).
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
        for name in ("input_channels", "output_channels", "filters", "depth", "convolutions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                self._refuse(name, "a whole number of at least 1", value)
        if not isinstance(self.presence, bool):
            self._refuse("presence", "true or false", self.presence)
        if self.kernel_size not in (1, 3, 5, 7):
            self._refuse("kernel_size", "1, 3, 5 or 7", self.kernel_size)
        if not 0 <= self.dropout < 1:
            self._refuse("dropout", "at least 0 and below 1", self.dropout)
        for name, allowed in (
            ("normalization", _NORMALIZATIONS),
            ("upsampling", _UPSAMPLINGS),
            ("encoder", ("plain", *LITE_ENCODERS, *ENCODERS)),
            ("encoder_weights", (None, "imagenet")),
        ):
            if getattr(self, name) not in allowed:
                self._refuse(name, "one of " + ", ".join(map(repr, allowed)), getattr(self, name))
        if self.encoder == "plain" and self.encoder_weights is not None:
            self._refuse("encoder_weights", "None for the plain encoder", self.encoder_weights)
        if self.encoder != "plain":
            if not 2 <= self.depth <= 5:
                self._refuse("depth", f"2 to 5 with encoder {self.encoder!r}", self.depth)
            allowed = (1,) if self.encoder in LITE_ENCODERS else (1, 3)
            if self.input_channels not in allowed:
                shown = " or ".join(map(str, allowed))
                self._refuse(
                    "input_channels", f"{shown} with encoder {self.encoder!r}", self.input_channels
                )

    @staticmethod
    def _refuse(name: str, allowed: str, value: object) -> None:
        raise ValueError(f"UNetConfig: {name} must be {allowed}; received {value!r}.")

    @property
    def depthwise(self) -> bool:
        """Whether the encoder is built of depthwise convolutions."""
        return self.encoder.startswith(("EfficientNet", "MobileNet"))

    @property
    def stride(self) -> int:
        """Pixels of the input under one pixel of the deepest level."""
        return 2**self.depth

    @property
    def widths(self) -> tuple[int, ...]:
        """Filters of each level, from the input's resolution to the deepest."""
        return tuple(self.filters * 2**level for level in range(self.depth + 1))

"""The settings of a U-Net."""

from __future__ import annotations

from dataclasses import dataclass

from unet_lib.model.encoders import ENCODERS
from unet_lib.settings import Settings

__all__ = ["UNetConfig"]


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

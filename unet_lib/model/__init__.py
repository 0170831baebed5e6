"""The U-Net and its settings."""

from unet_lib.model.encoders import ENCODERS, Encoder
from unet_lib.model.summary import NetworkSummary, summarise_network
from unet_lib.model.unet import UNetConfig, build_unet

__all__ = [
    "ENCODERS",
    "Encoder",
    "NetworkSummary",
    "UNetConfig",
    "build_unet",
    "summarise_network",
]

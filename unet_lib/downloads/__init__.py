"""Get a named file (weights, BUSI) whole and verified, or say how to get it by hand."""

from unet_lib.downloads.busi import CITATION, download_busi
from unet_lib.downloads.registry import DownloadError, download_model, weights_registry

__all__ = [
    "CITATION",
    "DownloadError",
    "download_busi",
    "download_model",
    "weights_registry",
]

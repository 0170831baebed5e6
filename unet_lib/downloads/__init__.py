"""Get a named file (weights, BUSI) whole and verified, or say how to get it by hand."""

from unet_lib.downloads.archive import extract_zip
from unet_lib.downloads.busi import CITATION, SOURCES, check_busi, download_busi
from unet_lib.downloads.fetch import DownloadError, fetch
from unet_lib.downloads.models import download_model
from unet_lib.downloads.registry import WeightsEntry, weights_registry

__all__ = [
    "CITATION",
    "SOURCES",
    "DownloadError",
    "WeightsEntry",
    "check_busi",
    "download_busi",
    "download_model",
    "extract_zip",
    "fetch",
    "weights_registry",
]

"""Weights files and model folders: saved, checked, loaded, chosen, exported."""

from unet_lib.weights.choice import choose_model
from unet_lib.weights.export import (
    EXPORT_FORMATS,
    ExportError,
    ExportFormat,
    export_into_model,
    export_segmenter,
)
from unet_lib.weights.folder import (
    load_segmenter,
    registered_models,
    save_segmenter,
    save_weights_file,
    verify_model,
)
from unet_lib.weights.hdf5 import WeightsError, load_weights_file

__all__ = [
    "EXPORT_FORMATS",
    "ExportError",
    "ExportFormat",
    "WeightsError",
    "choose_model",
    "export_into_model",
    "export_segmenter",
    "load_segmenter",
    "load_weights_file",
    "registered_models",
    "save_segmenter",
    "save_weights_file",
    "verify_model",
]

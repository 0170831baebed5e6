"""Segmentation of lesions in breast-ultrasound images with a U-Net.

The public names are loaded when first used, so that ``import unet_lib.metrics`` needs no
deep-learning backend.
"""

import os
from importlib import import_module
from typing import Any

# TensorFlow's C++ side reports on standard error that it found no GPU; errors reach Python anyway.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"

_HOMES = {
    "images": ("Preprocessing", "read_image", "read_masks", "ImageError"),
    "augment": ("Augmentation",),
    "metrics": (
        "CaseTable",
        "Evaluation",
        "PixelCounts",
        "ProbabilityHistogram",
        "merge_evaluations",
    ),
    "dataset": (
        "Case",
        "DatasetError",
        "Folds",
        "Split",
        "SplitError",
        "check_cases",
        "find_cases",
        "load_case",
        "locate_dataset",
        "make_folds",
        "make_split",
    ),
    "phantoms": ("make_phantoms",),
    "downloads": ("DownloadError", "download_busi", "download_model"),
    "source": ("open_dataset",),
    "predictions": ("PredictionError", "find_predictions"),
    "report": ("compare", "summarise", "write_report"),
    "model": ("UNetConfig", "build_unet", "summarise_network"),
    "inference": ("Cleaning", "Segmenter", "evaluate_cases"),
    "weights": (
        "ExportError",
        "WeightsError",
        "choose_model",
        "export_segmenter",
        "load_segmenter",
        "save_segmenter",
    ),
    "foreign": ("ForeignWeights", "load_foreign_weights"),
    "training": (
        "RECIPES",
        "Recipe",
        "TrainingConfig",
        "TrainingError",
        "load_run",
        "train",
        "tune_threshold",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unet_lib' has no attribute {name!r}")
    return getattr(import_module(f"unet_lib.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

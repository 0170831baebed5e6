"""Segmentation of lesions in breast-ultrasound images with a U-Net.

The public names are loaded when first used, so that ``import unet_lib.metrics`` needs no
deep-learning backend.
"""

import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any

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


class _QuietTensorFlow:
    """Finder of TensorFlow, whose C++ side heeds TF_CPP_MIN_LOG_LEVEL only once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        """Find TensorFlow as ever; while it loads, notes are kept off standard error."""
        spec = PathFinder.find_spec(name, path, target) if name == "tensorflow" else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_quietly(module: Any) -> None:
            import subprocess

            notes = "^(I[0-9]{4} |WARNING: All log messages before absl::InitializeLog)"
            try:  # another process, so that the last words of an abort come through
                rest = subprocess.Popen(("grep", "-aEv", notes), stdin=subprocess.PIPE, stdout=2)
            except OSError:
                return load(module)
            error = os.dup(2)
            os.dup2(rest.stdin.fileno(), 2)
            try:
                load(module)
            finally:
                os.dup2(error, 2)
                os.close(error)
                with suppress(subprocess.TimeoutExpired):  # a child begun meanwhile may live on
                    rest.communicate(timeout=5)

        spec.loader.exec_module = load_quietly
        return spec


# Notes: no GPU found, rounding may differ. Errors reach Python, or come through.
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
    sys.meta_path.insert(0, _QuietTensorFlow)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

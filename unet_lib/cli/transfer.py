"""The commands download and export."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

__all__ = ["add_download", "add_export", "download_weights"]

_DOWNLOAD = """\
Download BUSI or registered weights, check them, or say how to do it by hand. An interrupted
download of BUSI goes on where it stopped when the same command is given again. TLS certificates
are always checked. Sources of BUSI: authors (their archive, compared with its SHA-256);
medsegbench, medsegbench-256, medsegbench-128 (pictures resized to 512, 256, 128 pixels in one .npz
file, not the original resolution); or the path of a zip file or folder that you have, such as
Kaggle's.
"""

_EXPORT = """\
Write a model for another runtime: model.onnx, model.tflite (LiteRT) or model.xml and model.bin
(OpenVINO), with a .json beside it, which tells all that a program needs to use it without this
library. Before anything is written the file is run in its own runtime and compared with Keras.
Needs pip install -r requirements-export.txt, and Keras on TensorFlow.
"""


def add_download(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command download."""
    sub = command("download", _download, "Download BUSI or weights, checked.", _DOWNLOAD)
    sub.add_argument("what", help="'busi', or the name of registered weights such as first-readme")
    sub.add_argument("--to", type=Path, help="folder for busi (the project's data/)")
    sub.add_argument("--source", help="source of busi: a name above or a path (authors)")


def _download(options: argparse.Namespace) -> int:
    if options.what != "busi":
        if options.to or options.source:
            raise ValueError("--to and --source: only for busi; weights have one place each.")
        return download_weights(options.what)
    from unet_lib.dataset import DATA_FOLDER
    from unet_lib.downloads import CITATION, download_busi

    path, facts = download_busi(options.to or DATA_FOLDER, options.source or "authors")
    print(f"{path}\n{facts}\n{CITATION}")
    return 0


def download_weights(name: str) -> int:
    """Get registered weights and print where they are and what is known of them."""
    from unet_lib.downloads import download_model, weights_registry

    path, facts = download_model(name)
    entry = weights_registry()[name]
    print(f"{path}\n{facts}")
    print(f"from: {entry.where}\nlicence: {entry.licence}\ntrained on: {entry.trained_on}")
    print(f"results: {entry.results}")
    return 0


def add_export(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command export."""
    sub = command("export", _export, "Write a model for ONNX, LiteRT or OpenVINO.", _EXPORT)
    sub.add_argument("--model", required=True, help="registered name, model folder or run folder")
    sub.add_argument("--format", required=True, choices=("onnx", "litert", "openvino"))
    sub.add_argument("--out", type=Path, required=True, help="folder for the files")


def _export(options: argparse.Namespace) -> int:
    from unet_lib.weights import export_segmenter, load_segmenter

    path = export_segmenter(load_segmenter(options.model), options.out, options.format)
    print(f"{path}, described by {path.name}.json")
    return 0

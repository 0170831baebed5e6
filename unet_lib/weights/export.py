"""A segmenter's network for other runtimes, compared with Keras in the runtime itself."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.dataset.training_images import TUNED_ON
from unet_lib.files import draft_folder, sha256, write_atomic
from unet_lib.inference import Segmenter, runtimes
from unet_lib.inference.converting import (
    FORMATS,
    TOLERANCE,
    ExportError,
    check_images,
    check_possible,
    convert,
)

__all__ = ["ExportError", "TOLERANCE", "export_segmenter"]


def export_segmenter(segmenter: Segmenter, folder: str | Path, format: str) -> Path:
    """Write the network for another runtime, with all that is needed to use it.

    The files are made in a temporary folder, run in their runtime on phantoms and on noise, alone
    and as a batch, and take their place only when every probability equals Keras' own to
    `TOLERANCE`. Beside the model, ``<model file>.json`` has the keys

    ``format``, ``model``, ``files``
        Number of this layout (1), the model's file name, the SHA-256 of every file.
    ``input``
        ``shape`` (N, S, S, C; N is free) and ``dtype`` of the only input, ``range`` of its values.
    ``output``
        ``shape`` (N, S, S, 1) and ``dtype``: the probability of lesion for each pixel.
    ``preprocessing``
        ``size`` S and ``keep_aspect``, with the steps in words under ``steps``.
    ``postprocessing``
        ``threshold`` and ``cleaning``, with the steps in words under ``steps``.
    ``runtime_settings``
        What the runtime must be told for these probabilities, such as OpenVINO's precision.
    ``about``
        Where the network comes from: as in ``segmenter.json``, without the lists of images.
    ``checked``
        Runtime and version, number of images, largest difference.

    Parameters
    ----------
    segmenter : Segmenter
        In float32, as `load_segmenter` returns.
    folder : str or Path
        Made when absent; files of an earlier export of the same format are replaced.
    format : {"onnx", "litert", "openvino"}

    Returns
    -------
    Path
        The model file.

    Raises
    ------
    ValueError
        Unknown format.
    ExportError
        A package is missing, Keras does not run on TensorFlow, the conversion fails, the file
        needs TensorFlow's own operations, or its probabilities differ.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: expected one of {', '.join(FORMATS)}.")
    kind, folder = FORMATS[format], Path(folder)
    check_possible(segmenter.network, format)
    channels = segmenter.network.input_shape[-1]
    batch = check_images(segmenter.preprocessing, channels)
    # Before the export, not only for comparison: Keras refuses a network that was never called.
    expected = np.asarray(segmenter.network.predict_on_batch(batch))
    try:
        with draft_folder(folder, kind.files[0]) as draft:
            drafts = [draft / name for name in kind.files]
            _, checked = convert(segmenter.network, format, draft, batch, expected)
            settings = {"runtime_settings": runtimes.SETTINGS.get(format, {})}
            description = {**_describe(segmenter, drafts), **settings, "checked": checked}
            for file in drafts:
                os.replace(file, folder / file.name)
        model = folder / kind.files[0]
        write_atomic(f"{model}.json", json.dumps(description, indent=2) + "\n")
    finally:
        with suppress(OSError):
            folder.rmdir()  # where nothing could be written: only an empty folder goes
    return model


def _describe(segmenter: Segmenter, files: list[Path]) -> dict[str, Any]:
    network, preprocessing = segmenter.network, segmenter.preprocessing
    hidden = ("trained_on", "validated_on", "training_images", TUNED_ON)  # hundreds of entries
    return {
        "format": 1,
        "model": files[0].name,
        "files": {file.name: sha256(file) for file in files},
        "input": {"shape": list(network.input_shape), "dtype": "float32", "range": [0, 1]},
        "output": {
            "shape": list(network.output_shape),
            "dtype": "float32",
            "meaning": "probability of lesion for each pixel",
        },
        "preprocessing": {**preprocessing.to_dict(), "steps": _before(segmenter)},
        "postprocessing": {
            "threshold": segmenter.threshold,
            "cleaning": segmenter.cleaning.to_dict(),
            "steps": _AFTER,
        },
        "about": {k: v for k, v in segmenter.about.items() if k not in hidden},
        "notice": "Not a medical device.",
    }


def _before(segmenter: Segmenter) -> list[str]:
    side, channels = segmenter.preprocessing.size, segmenter.network.input_shape[-1]
    fit = [
        f"Resize to {side} x {side}.",
    ]
    if segmenter.preprocessing.keep_aspect:
        fit = [
            f"New height = max(1, round(height * {side} / max(height, width))), width likewise "
            "(halves round to the even number). Resize to it.",
            f"Place it in a {side} x {side} square of zeros, first row ({side} - new height) // 2, "
            f"first column ({side} - new width) // 2.",
        ]
    return [
        "Colour to grey by 0.299 R + 0.587 G + 0.114 B, in the integers of the file.",
        "Divide by the largest value of the type: 255 or 65535.",
        *fit,
        "Resizing: first all axes that shrink, by the mean over the area of each new pixel; then "
        "those that grow, bilinear with pixel centres at half (OpenCV INTER_AREA, INTER_LINEAR).",
        *([f"Repeat the grey values in {channels} channels."] if channels > 1 else []),
    ]


_AFTER = [
    "Cut out the window in which the image was placed.",
    "Resize the probabilities to the image's own height and width, as above.",
    "Lesion where the probability is at least the threshold.",
    "Cleaning: of the connected components (8 neighbours) remove those that cover less than "
    "minimum_area of the image (a fraction) or reach minimum_peak nowhere.",
]

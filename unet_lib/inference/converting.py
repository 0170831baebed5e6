"""A network written for another runtime, run there and compared with Keras."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unet_lib.images import Preprocessing
from unet_lib.inference import runtimes
from unet_lib.phantoms import make_phantom

__all__ = ["FORMATS", "TOLERANCE", "ExportError", "check_images", "check_possible", "convert"]

TOLERANCE = 1e-4
"""Largest accepted difference of a probability between Keras and the runtime, in float32."""


_MOST_WORDS = 300  # characters of another program's error


class ExportError(RuntimeError):
    """A model could not be exported; nothing was written."""


@dataclass(frozen=True)
class Format:
    """The files of a format, the packages that make and run it, and what opens it."""

    files: tuple[str, ...]  # the first is the one that Keras is given
    packages: tuple[str, ...]
    run: Callable[[Path], tuple[runtimes.Run, str]]


FORMATS = {
    "onnx": Format(("model.onnx",), ("onnx", "tf2onnx", "onnxruntime"), runtimes.onnx),
    "litert": Format(("model.tflite",), ("ai_edge_litert",), runtimes.litert),
    "openvino": Format(("model.xml", "model.bin"), ("openvino",), runtimes.openvino),
}


def convert(
    network: keras.Model, format: str, folder: Path, batch: np.ndarray, expected: np.ndarray
) -> tuple[runtimes.Run, dict[str, Any]]:
    """Write the network into a folder, run it in its runtime and compare it with Keras.

    Parameters
    ----------
    network : keras.Model
        In float32, on TensorFlow, called before.
    format : str
        A key of `FORMATS`.
    folder : Path
        Gets the format's files; the caller removes them after an error.
    batch, expected : ndarray
        Images (N, S, S, C) and Keras' probabilities of them.

    Returns
    -------
    run : callable
        From a batch to probabilities.
    checked : dict
        ``runtime`` with version, number of ``images``, ``largest_difference``, ``tolerance``.

    Raises
    ------
    ExportError
        The conversion fails, or probabilities differ by more than `TOLERANCE`.
    """
    path = folder / FORMATS[format].files[0]
    try:
        network.export(str(path), format=format, verbose=False)
        run, runtime = FORMATS[format].run(path)
        return run, {"runtime": runtime, **_compare(run, batch, expected)}
    except ExportError:
        raise
    except Exception as error:  # converters and runtimes raise whatever they like
        first = next(iter(str(error).splitlines()), "")  # pages of a compiler may follow
        raise ExportError(
            f"{format}: the conversion failed with Keras {keras.__version__} "
            f"({type(error).__name__}: {first[:_MOST_WORDS]}). Nothing was written."
        ) from error


def check_possible(network: keras.Model, format: str) -> None:
    """Raise ExportError where a package is missing or Keras cannot export this network."""
    absent = [name for name in FORMATS[format].packages if importlib.util.find_spec(name) is None]
    if absent:
        raise ExportError(
            f"{format}: needs the package {', '.join(absent).replace('_', '-')}. Run: pip install "
            "-r requirements-export.txt"
        )
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ExportError(
            f"{format}: Keras exports this format from TensorFlow; it runs on {backend} now. Set "
            "the environment variable KERAS_BACKEND=tensorflow for this command."
        )
    kinds = {layer.compute_dtype for layer in network.layers}
    if kinds != {"float32"}:
        raise ExportError(
            f"{format}: the network computes in {', '.join(sorted(kinds))}. Save it and load it "
            "with load_segmenter, which gives float32."
        )


def check_images(preprocessing: Preprocessing, channels: int) -> np.ndarray:
    """Return a batch (4, S, S, C) of two phantoms, noise and black."""
    side = preprocessing.size
    pictures = [make_phantom(kind, seed=5)[0] for kind in ("benign", "malignant")]
    images = [(picture.astype(np.float32) / 255.0)[..., None] for picture in pictures]
    prepared = [preprocessing.apply(image).image for image in images]
    noise = np.random.default_rng(5).random((side, side, 1), dtype=np.float32)
    return np.repeat(np.stack([*prepared, noise, np.zeros_like(noise)]), channels, axis=-1)


def _compare(run: runtimes.Run, batch: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Compare the runtime with Keras on a batch; raise ExportError where they differ."""
    low, high = float(expected.min()), float(expected.max())
    if not (low >= 0 and high <= 1):  # also NaN
        raise ExportError(
            f"the network gives values from {low:g} to {high:g}; probabilities lie in [0, 1]. End "
            "it with a sigmoid. Nothing was written."
        )
    largest = 0.0
    for part in (slice(None), slice(0, 1)):  # a batch, and one image alone
        found = run(batch[part])
        if found.shape != expected[part].shape:
            raise ExportError(
                f"the exported model returns {found.shape}, Keras {expected[part].shape}. Nothing "
                "was written."
            )
        largest = max(largest, float(np.abs(found - expected[part]).max()))
    if not largest <= TOLERANCE:  # also NaN
        raise ExportError(
            f"the exported model's probabilities differ from Keras' by up to {largest:.3g}; at "
            f"most {TOLERANCE:g} is accepted. Nothing was written."
        )
    return {
        "images": len(batch),
        "largest_difference": largest,
        "tolerance": TOLERANCE,
        "range_of_probabilities": [low, high],
    }

"""What computes the probabilities of a batch: Keras, OpenVINO, ONNX Runtime, or the fastest."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from unet_lib.images import Preprocessing
from unet_lib.inference import runtimes
from unet_lib.inference.converting import ExportError, check_images, check_possible, convert
from unet_lib.model import fold_batch_norm

__all__ = ["ENGINES", "Engine", "check_engine", "make_engine"]

ENGINES = ("keras", "auto", "openvino", "onnx")

_WORTH = 1.1  # times as fast as Keras: below that a measurement of a second decides by chance
_REPEATS = 5


@dataclass(frozen=True)
class Engine:
    """A network ready to compute.

    Attributes
    ----------
    run : callable
        A batch (N, S, S, C) in [0, 1] -> probabilities (N, S, S, 1).
    description : str
        Runtime, precision, and how it was chosen; for reports.
    """

    run: runtimes.Run
    description: str


def check_engine(engine: str) -> None:
    """Raise ValueError for an unknown engine."""
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}.")


def make_engine(
    network: keras.Model,
    preprocessing: Preprocessing,
    engine: str = "keras",
    batch_size: int = 8,
) -> Engine:
    """Make a network ready for prediction; its files, if any, live in a temporary folder.

    All compute in float32: in bfloat16 the masks of BUSI are too different (mean Dice .982 with
    those of float32, in Keras and in OpenVINO). Before another engine than Keras is used, it
    computes phantoms, noise and black to within `TOLERANCE` of Keras. "auto" times a batch with
    every engine that is installed and passes this, and takes Keras unless another is at least 1.1
    times as fast.

    Raises
    ------
    ExportError
        The engine named cannot be used: a package is missing, Keras does not run on TensorFlow,
        or the probabilities differ.
    """
    check_engine(engine)
    if engine == "auto":
        return _fastest(network, preprocessing, batch_size)
    if engine == "keras":  # the same function: nothing to compare
        return Engine(fold_batch_norm(network).predict_on_batch, "keras, float32")
    batch = check_images(preprocessing, network.input_shape[-1])
    expected = np.asarray(network.predict_on_batch(batch))
    check_possible(network, engine)
    with tempfile.TemporaryDirectory(prefix="unet_lib-") as folder:
        run, checked = convert(network, engine, Path(folder), batch, expected)
    return Engine(run, f"{checked['runtime']}, float32")


def _fastest(network: keras.Model, preprocessing: Preprocessing, batch_size: int) -> Engine:
    images = check_images(preprocessing, network.input_shape[-1])
    batch = np.resize(images, (max(1, batch_size), *images.shape[1:]))
    ready: dict[str, Engine] = {}
    notes: list[str] = []
    for name in ("keras", "openvino", "onnx"):
        try:
            ready[name] = make_engine(network, preprocessing, name)
        except ExportError as error:
            notes.append(str(error))
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for engine in ready.values():
        engine.run(batch)  # traces and warms up
    for _ in range(_REPEATS):  # in turn, so that what else runs hits all alike
        for name, engine in ready.items():
            start = time.perf_counter()
            engine.run(batch)
            seconds[name].append(time.perf_counter() - start)
    rates = {name: len(batch) / statistics.median(values) for name, values in seconds.items()}
    chosen = max(rates, key=rates.__getitem__)
    if rates[chosen] < _WORTH * rates["keras"]:
        chosen = "keras"
    shown = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    facts = [f"{ready[chosen].description} (auto: {shown} images/s)", *notes]
    return Engine(ready[chosen].run, "; ".join(facts))

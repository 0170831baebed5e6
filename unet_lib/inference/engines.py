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

__all__ = ["ENGINES", "PRECISIONS", "Engine", "check_engine", "make_engine"]

ENGINES = ("keras", "auto", "openvino", "onnx")
PRECISIONS = ("float32", "bfloat16")

BFLOAT16_TOLERANCE = 0.01
"""Largest accepted mean difference of the probabilities of an image from float32."""

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


def check_engine(engine: str, precision: str) -> None:
    """Raise ValueError for an unknown engine or precision, or two that do not go together."""
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}.")
    if (engine, precision) == ("onnx", "bfloat16"):
        raise ValueError(
            "engine 'onnx' computes in float32 only; give precision='float32', or engine='openvino'"
        )


def make_engine(
    network: keras.Model,
    preprocessing: Preprocessing,
    engine: str = "keras",
    precision: str = "float32",
    batch_size: int = 8,
) -> Engine:
    """Make a network ready for prediction; its files, if any, live in a temporary folder.

    Before an engine is used it computes phantoms, noise and black, in float32 to within
    `TOLERANCE` of Keras, in bfloat16 within `BFLOAT16_TOLERANCE` of float32 on the mean of each
    image. "auto" times a batch with every engine that is installed and passes this, and takes
    Keras unless another is at least 1.1 times as fast.

    Raises
    ------
    ExportError
        The engine named cannot be used: a package is missing, Keras does not run on TensorFlow,
        or the probabilities differ.
    """
    check_engine(engine, precision)
    if engine == "auto":
        return _fastest(network, preprocessing, precision, batch_size)
    if engine == "keras" and precision == "float32":  # the same function: nothing to compare
        return Engine(fold_batch_norm(network).predict_on_batch, "keras, float32")
    batch = check_images(preprocessing, network.input_shape[-1])
    expected = np.asarray(network.predict_on_batch(batch))
    if engine == "keras":
        run, name = _lower(network).predict_on_batch, "keras"
    else:
        check_possible(network, engine)
        with tempfile.TemporaryDirectory(prefix="unet_lib-") as folder:
            run, checked = convert(network, engine, Path(folder), batch, expected)
            name = checked["runtime"]
            if precision == "bfloat16":
                run, _ = runtimes.openvino(Path(folder) / "model.xml", precision)
    if precision == "bfloat16":
        _check_bfloat16(np.asarray(run(batch)), expected, name)
    return Engine(run, f"{name}, {precision}")


def _lower(network: keras.Model) -> keras.Model:
    lower = fold_batch_norm(network, "mixed_bfloat16")
    if lower is network:
        raise ExportError(
            f"keras: the network {network.name} cannot be rebuilt in bfloat16, since Keras does "
            "not tell its topology. Use precision='float32', or engine='openvino'."
        )
    return lower


def _check_bfloat16(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    largest = float(np.abs(found.astype(np.float32) - expected).mean((1, 2, 3)).max())
    if not largest <= BFLOAT16_TOLERANCE:  # also NaN
        raise ExportError(
            f"{name}: in bfloat16 the probabilities of an image differ from float32 by "
            f"{largest:.3g} on the mean; at most {BFLOAT16_TOLERANCE:g} is accepted. Use "
            "precision='float32'."
        )


def _fastest(
    network: keras.Model, preprocessing: Preprocessing, precision: str, batch_size: int
) -> Engine:
    images = check_images(preprocessing, network.input_shape[-1])
    batch = np.resize(images, (max(1, batch_size), *images.shape[1:]))
    ready: dict[str, Engine] = {}
    notes: list[str] = []
    for name in ("keras", "openvino", "onnx"):
        if (name, precision) == ("onnx", "bfloat16"):
            continue
        try:
            ready[name] = make_engine(network, preprocessing, name, precision)
        except ExportError as error:
            notes.append(str(error))
    if not ready:
        raise ExportError(f"engine 'auto': none can be used in {precision}. {' '.join(notes)}")
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
    if "keras" in rates and rates[chosen] < _WORTH * rates["keras"]:
        chosen = "keras"
    shown = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    facts = [f"{ready[chosen].description} (auto: {shown} images/s)", *notes]
    return Engine(ready[chosen].run, "; ".join(facts))

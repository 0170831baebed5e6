"""A segmenter's network for other runtimes, compared with Keras in the runtime itself."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_lib.files import draft_folder, folder_lock, sha256, write_json
from unet_lib.images import Preprocessing, as_image
from unet_lib.inference import Segmenter
from unet_lib.phantoms import make_phantom
from unet_lib.weights.folder import (
    IN_ONNX,
    SETTINGS,
    WEIGHTS,
    find_folder,
    load_segmenter,
    read_settings,
)
from unet_lib.weights.hdf5 import read_hdf5
from unet_lib.weights.runtime import ONNX, TOLERANCE, OnnxNetwork, leave_out_weights

if TYPE_CHECKING:
    import keras

_HIDDEN = ("trained_on", "validated_on", "training_images", "tuned_on")  # hundreds of entries

Run = Callable[[np.ndarray], np.ndarray]
"""A batch (N, S, S, C) of float32 in [0, 1] -> probabilities (N, S, S, 1)."""


class ExportError(RuntimeError):
    """A model could not be exported; nothing was written."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} Nothing was written.")


@dataclass(frozen=True)
class ExportFormat:
    """How a network is written for a runtime and run there."""

    files: tuple[str, ...]  # the first is the one that is opened
    packages: tuple[str, ...]  # that write and run it
    open: Callable[[Path], tuple[Run, str]]  # to the function, and runtime with version
    write: Callable[[keras.Model, Path], None] | None = None  # None: Keras' own export
    settings: Mapping[str, Any] = field(default_factory=dict)  # that the runtime must be given


def export_segmenter(segmenter: Segmenter, folder: str | Path, format: str) -> Path:
    """Write the network for another runtime, with all that is needed to use it.

    The files are made in a temporary folder, run in their runtime on phantoms and on noise, alone
    and as a batch, and take their place only when every probability equals Keras' own to 5e-5.
    Beside the model, ``<model file>.json`` (``format`` 1) has the SHA-256 of every file, shape,
    type and range of input and output, the steps before and after the network in words, settings
    that the runtime must be given for these probabilities, where the model comes from, and how it
    was checked.

    Parameters
    ----------
    segmenter : Segmenter
        In float32, as ``load_segmenter(model, runtime="keras")`` returns.
    folder : str or Path
        Made when absent; files of an earlier export of the same format are replaced.
    format : str
        A key of `EXPORT_FORMATS`: "onnx", "litert", "openvino".

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
    if format not in EXPORT_FORMATS:
        raise ValueError(f"format {format!r}: expected one of {', '.join(EXPORT_FORMATS)}.")
    kind, folder = EXPORT_FORMATS[format], Path(folder)
    try:
        with draft_folder(folder, kind.files[0]) as draft:
            drafts = [draft / name for name in kind.files]
            checked = _convert(segmenter, format, kind, drafts[0])
            description = _describe(segmenter, drafts) | {
                "runtime_settings": dict(kind.settings),
                "checked": checked,
            }
            for file in drafts:
                os.replace(file, folder / file.name)
        model = folder / kind.files[0]
        write_json(f"{model}.json", description)
    finally:
        with suppress(OSError):
            folder.rmdir()  # where nothing could be written: only an empty folder goes
    return model


def export_into_model(model: str | Path) -> Path:
    """Put the file for ONNX Runtime into a model folder, where `load_segmenter` takes it.

    It is compared as by `export_segmenter`. The kernels stay in the folder's weights file, so that
    the two can neither differ nor take the space twice; its SHA-256 goes into ``segmenter.json``.
    """
    folder = find_folder(model)
    segmenter = load_segmenter(folder, runtime="keras")
    arrays, names = read_hdf5(folder / WEIGHTS).arrays, []

    def write(network: keras.Model, path: Path) -> None:
        network.export(str(path), format="onnx", verbose=False)
        names.extend(leave_out_weights(path, arrays, segmenter.provenance.weights_sha256))

    def open_file(path: Path) -> tuple[Run, str]:
        return _run_onnx(OnnxNetwork(path, {name: arrays[name] for name in names}))

    kind = replace(EXPORT_FORMATS["onnx"], open=open_file, write=write)
    with folder_lock(folder), draft_folder(folder, ONNX) as draft:
        _convert(segmenter, "onnx", kind, draft / ONNX)
        settings = read_settings(folder)
        settings[IN_ONNX] = {"sha256": sha256(draft / ONNX), "arrays": names}
        os.replace(draft / ONNX, folder / ONNX)
        write_json(folder / SETTINGS, settings)
    return folder / ONNX


def _convert(segmenter: Segmenter, format: str, kind: ExportFormat, path: Path) -> dict[str, Any]:
    """Write the network, run it in its runtime and compare; any failure is an ExportError."""
    network = segmenter.network
    _check_possible(segmenter, format, kind)
    batch = _check_images(segmenter.preprocessing, network.input_shape[-1])
    # Before the export, not only for comparison: Keras refuses a network that was never called.
    expected = np.asarray(network.predict_on_batch(batch))
    try:
        if kind.write:
            kind.write(network, path)
        else:
            network.export(str(path), format=format, verbose=False)
        run, runtime = kind.open(path)
        return {"runtime": runtime} | _compare(run, batch, expected)
    except ExportError:
        raise
    except Exception as error:  # converters and runtimes raise whatever they like
        first = next(iter(str(error).splitlines()), "")  # pages of a compiler may follow
        raise ExportError(
            f"{format}: the conversion failed with Keras {version('keras')} "
            f"({type(error).__name__}: {first[:300]})."
        ) from error


def _check_possible(segmenter: Segmenter, format: str, kind: ExportFormat) -> None:
    """Raise ExportError where a package is missing or Keras cannot export this network."""
    absent = [name for name in kind.packages if importlib.util.find_spec(name) is None]
    if absent:
        raise ExportError(
            f"{format}: needs the package {', '.join(absent).replace('_', '-')}. Run: pip install "
            "-r requirements-export.txt."
        )
    if not segmenter.in_keras:
        raise ExportError(f'{format}: load the model with runtime="keras"; received ONNX.')
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow" and format in ("onnx", "litert", "openvino"):
        raise ExportError(
            f"{format}: Keras exports this format from TensorFlow; it runs on {backend} now. Set "
            "the environment variable KERAS_BACKEND=tensorflow for this command."
        )
    types = {layer.compute_dtype for layer in segmenter.network.layers}
    if types != {"float32"}:
        raise ExportError(
            f"{format}: the network computes in {', '.join(sorted(types))}. Save it and load it "
            "with load_segmenter, which gives float32."
        )


def _check_images(preprocessing: Preprocessing, channels: int) -> np.ndarray:
    """Return a batch (4, S, S, C) of two phantoms, noise and black."""
    shape = preprocessing.size, preprocessing.size, 1
    noise = np.random.default_rng(5).random(shape, dtype=np.float32)
    images = [as_image(make_phantom(kind, seed=5)[0], kind) for kind in ("benign", "malignant")]
    prepared = [preprocessing.apply(image).image for image in images]
    batch = np.stack([*prepared, noise, np.zeros_like(noise)])
    return np.repeat(batch, channels, axis=-1)


def _compare(run: Run, batch: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Compare the runtime with Keras on a batch; raise ExportError where they differ."""
    low, high = float(expected.min()), float(expected.max())
    if not (low >= 0 and high <= 1):  # also NaN
        raise ExportError(
            f"the network gives values from {low:g} to {high:g}; probabilities lie in [0, 1]. End "
            "it with a sigmoid."
        )
    largest = 0.0
    for part in (slice(None), slice(0, 1)):  # a batch, and one image alone
        values = run(batch[part])
        if values.shape != expected[part].shape:
            raise ExportError(
                f"the exported model returns {values.shape}, Keras {expected[part].shape}."
            )
        largest = float(np.maximum(largest, np.abs(values - expected[part]).max()))  # keeps NaN
    if not largest <= TOLERANCE:  # also NaN
        raise ExportError(
            f"the exported model's probabilities differ from Keras' by up to {largest:.3g}; at "
            f"most {TOLERANCE:g} is accepted."
        )
    checked = {"images": len(batch), "largest_difference": largest, "tolerance": TOLERANCE}
    return checked | {"range_of_probabilities": [low, high]}


def _describe(segmenter: Segmenter, files: list[Path]) -> dict[str, Any]:
    network, side = segmenter.network, segmenter.preprocessing.size
    channels = network.input_shape[-1]
    fit = [f"Resize to {side} x {side}."]
    if segmenter.preprocessing.keep_aspect:
        fit = [
            f"New height = max(1, round(height * {side} / max(height, width))), width likewise "
            "(halves round to the even number). Resize to it.",
            f"Place it in a {side} x {side} square of zeros, first row ({side} - new height) // 2, "
            f"first column ({side} - new width) // 2.",
        ]
    before = [
        "Colour to grey by 0.299 R + 0.587 G + 0.114 B, in the integers of the file.",
        "Divide by the largest value of the type: 255 or 65535.",
        *fit,
        "Resizing: first all axes that shrink, by the mean over the area of each new pixel; then "
        "those that grow, bilinear with pixel centres at half (OpenCV INTER_AREA, INTER_LINEAR).",
        *([f"Repeat the grey values in {channels} channels."] if channels > 1 else []),
    ]
    after = [
        "Cut out the window in which the image was placed.",
        "Resize the probabilities to the image's own height and width, as above.",
        "Lesion where the probability is at least the threshold.",
        "Cleaning: of the connected components (8 neighbours) remove those that cover less than "
        "minimum_area of the image (a fraction) or reach minimum_peak nowhere.",
    ]
    origin = segmenter.provenance.to_dict()
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
        "preprocessing": segmenter.preprocessing.to_dict() | {"steps": before},
        "postprocessing": {
            "threshold": segmenter.threshold,
            "cleaning": segmenter.cleaning.to_dict(),
            "steps": after,
        },
        "about": {key: value for key, value in origin.items() if key not in _HIDDEN},
        "notice": "Not a medical device.",
    }


def _run_onnx(network: OnnxNetwork) -> tuple[Run, str]:
    return network.predict_on_batch, network.runtime


def _open_litert(path: Path) -> tuple[Run, str]:
    """Refuse a file that needs TensorFlow's own (Flex) operations: most runtimes lack them."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    codes = [model.OperatorCodes(i).CustomCode() for i in range(model.OperatorCodesLength())]
    flex = sorted({code.decode() for code in codes if code and code.startswith(b"Flex")})
    if flex:
        raise ValueError(f"it needs TensorFlow's own operations: {', '.join(flex)}")
    interpreter = Interpreter(model_path=str(path))

    def run(batch: np.ndarray) -> np.ndarray:
        place = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(place, batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, batch)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run, f"ai-edge-litert {version('ai-edge-litert')}"


# On processors with AMX or AVX512-BF16 OpenVINO computes in bfloat16 unless told otherwise: on the
# phantoms used here that moved probabilities of busi-fold0 by up to .09.
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


def _open_openvino(path: Path) -> tuple[Run, str]:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", _FLOAT32)
    return lambda batch: compiled(batch)[0], f"openvino {version('openvino')}"


EXPORT_FORMATS = {
    "onnx": ExportFormat(
        ("model.onnx",),
        ("onnx", "tf2onnx", "onnxruntime"),
        lambda path: _run_onnx(OnnxNetwork(path)),
    ),
    "litert": ExportFormat(("model.tflite",), ("ai_edge_litert",), _open_litert),
    "openvino": ExportFormat(
        ("model.xml", "model.bin"), ("openvino",), _open_openvino, settings=_FLOAT32
    ),
}
"""Every format by its name; a file of your own adds one (see docs/extending.md)."""

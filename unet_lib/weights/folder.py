"""Model folders: a network with its settings, preprocessing and threshold, saved and checked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_lib.files import WEIGHTS_FOLDER as REGISTRY
from unet_lib.files import atomic_path, folder_lock, read_json, sha256, write_atomic, write_json
from unet_lib.images import Preprocessing, as_image
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.phantoms import make_phantom
from unet_lib.provenance import Provenance
from unet_lib.shift import ShiftMonitor
from unet_lib.weights.hdf5 import WeightsError, load_weights_file, read_hdf5
from unet_lib.weights.runtime import ONNX, TOLERANCE, OnnxNetwork

if TYPE_CHECKING:
    import keras

    from unet_lib.model import UNetConfig

WEIGHTS, SETTINGS, CARD = "model.weights.h5", "segmenter.json", "CARD.md"
MONITOR = "shift.json"  # absent in older folders

_FORMAT = 1
_SEAL = "settings_sha256"  # absent in older folders
IN_ONNX = "onnx"  # SHA-256 of model.onnx and the arrays that it takes; absent without it
_SEALED = ("network", "preprocessing", "threshold", "cleaning")
_HDF5_HEADERS = 16_384  # bytes a layer, more than HDF5 takes


def save_segmenter(segmenter: Segmenter, config: UNetConfig, folder: str | Path) -> Path:
    """Write a model folder: weights and settings; the settings last.

    Parameters
    ----------
    segmenter : Segmenter
        Network, preprocessing, threshold, cleaning and where it comes from.
    config : UNetConfig
        What `build_unet` made the network from.
    folder : str or Path
        Made when absent.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    if not segmenter.in_keras:
        raise ValueError('save_segmenter: load the model with runtime="keras"; received ONNX.')
    with folder_lock(folder):  # what a killed process was writing there goes
        save_weights_file(segmenter.network, folder / WEIGHTS)
        settings = {
            "format": _FORMAT,
            "network": config.to_dict(),
            "preprocessing": segmenter.preprocessing.to_dict(),
            "threshold": segmenter.threshold,
            "cleaning": segmenter.cleaning.to_dict(),
            "weights_sha256": sha256(folder / WEIGHTS),
            "about": segmenter.provenance.to_dict(),
        }
        settings[_SEAL] = settings_digest(settings)
        for name in (ONNX, MONITOR):  # of other weights
            (folder / name).unlink(missing_ok=True)
        if segmenter.monitor:
            write_atomic(folder / MONITOR, json.dumps(segmenter.monitor.to_dict()) + "\n")
        write_json(folder / SETTINGS, settings)
    return folder


def save_weights_file(network: keras.Model, path: Path) -> None:
    """Write a ``.weights.h5`` file whole or not at all."""
    with atomic_path(path) as temporary:
        # HDF5 that fails in the middle of a file makes Python crash when it ends: see whether
        # there is space before it begins.
        size = sum(4 * int(np.prod(variable.shape)) for variable in network.variables)
        temporary.write_bytes(bytes(size + _HDF5_HEADERS * (len(network.layers) + 1)))
        network.save_weights(temporary)


def load_segmenter(model: str | Path, *, batch_size: int = 8, runtime: str = "auto") -> Segmenter:
    """Load a registered model or a model folder, checking every part of it.

    Parameters
    ----------
    model : str or Path
        A folder with ``segmenter.json`` and ``model.weights.h5``, a run folder that holds one as
        ``model/``, or the name of a model in the repository's ``weights/``.
    batch_size : int
        Images that the network sees at once.
    runtime : {"auto", "keras"}
        "auto" runs the folder's ``model.onnx`` in ONNX Runtime where both are there, and imports
        neither Keras nor its backend; such a network predicts, in float32, and nothing else.

    Returns
    -------
    Segmenter
        Its network in float32.

    Raises
    ------
    WeightsError
        Nothing of that name, a missing, damaged or changed file, or settings that do not fit.
    """
    if runtime not in ("auto", "keras"):
        raise ValueError(f"runtime {runtime!r}: expected auto or keras.")
    folder = find_folder(model)
    path, settings = folder / WEIGHTS, read_settings(folder)
    if not path.is_file():
        raise WeightsError(f"{path}: missing; {folder / SETTINGS} belongs to it.")
    digest = sha256(path)
    if digest != settings["weights_sha256"]:
        raise WeightsError(
            f"{path}: its SHA-256 is {digest}, {SETTINGS} says {settings['weights_sha256']}: the "
            "file is damaged or of another model. Fetch the model folder again."
        )
    try:
        preprocessing = Preprocessing.from_dict(settings["preprocessing"])
        cleaning = Cleaning.from_dict(settings["cleaning"])
        provenance = Provenance.of({"name": folder.name, **settings["about"]})
        network = _in_onnx(folder, settings) if runtime == "auto" else None
        if network is None:
            from unet_lib.model import UNetConfig, build_unet

            config = UNetConfig.from_dict(settings["network"])
            network = build_unet(config, preprocessing.size, pretrained=False)
            load_weights_file(network, path)
        return Segmenter(
            network,
            preprocessing,
            settings["threshold"],
            cleaning,
            provenance.but(weights_sha256=digest),
            batch_size,
            read_monitor(folder),
        )
    except WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{folder / SETTINGS}: {error}") from error


def _in_onnx(folder: Path, settings: Mapping[str, Any]) -> OnnxNetwork | None:
    """Open the folder's file for ONNX Runtime; None where there is no file or no ONNX Runtime."""
    path, entry = folder / ONNX, settings.get(IN_ONNX)
    if not (entry or path.exists()) or importlib.util.find_spec("onnxruntime") is None:
        return None
    try:
        if sha256(path) != dict(entry or {}).get("sha256"):
            raise ValueError(f"is not the file that {SETTINGS} names")
        arrays = read_hdf5(folder / WEIGHTS).arrays
        network = OnnxNetwork(path, {name: arrays[name] for name in entry["arrays"]})
        if network.weights_sha256 != settings["weights_sha256"]:
            raise ValueError(f"made for other weights than {WEIGHTS}")
    except Exception as error:  # of a runtime, which raises whatever it likes
        reason = next(iter(str(error).splitlines()), "")[:300]
        raise WeightsError(
            f"{path}: missing, damaged or of another model ({reason}). Write it again (python -m "
            f"unet_lib export --model {folder} --format onnx), or load the model with "
            'runtime="keras".'
        ) from error
    return network


def read_monitor(folder: Path) -> ShiftMonitor | None:
    """Read the statistics of a model's training images; None in older folders."""
    path = folder / MONITOR
    try:
        return ShiftMonitor.from_dict(read_json(path)) if path.exists() else None
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{path}: cannot be used ({error}). Fetch the model folder again, or remove this file: "
            "then no image is compared with the training images."
        ) from error


def registered_models() -> list[str]:
    """Return the names of the models that come with the repository, sorted."""
    return sorted(path.parent.name for path in REGISTRY.glob(f"*/{SETTINGS}"))


def find_folder(model: str | Path) -> Path:
    """Return the folder that a name or path means; see `load_segmenter`."""
    for folder in (Path(model), Path(model) / "model", REGISTRY / str(model)):
        if (folder / SETTINGS).is_file():
            return folder
    raise WeightsError(
        f"{model}: neither a model folder (with {SETTINGS} and {WEIGHTS}), nor a finished run "
        f"(with model/), nor a registered name. Registered: "
        f"{', '.join(registered_models()) or 'none'}."
        + " The others come with a clone: pip install -e . in it."
        * (REGISTRY.parent.name == "shipped")
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the ``segmenter.json`` of a folder; WeightsError where it is damaged or was changed."""
    path = folder / SETTINGS
    try:
        settings = read_json(path)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    expected = {"format", "weights_sha256", "about", *_SEALED}
    keys = set(settings) if isinstance(settings, dict) else set()
    plain = keys - {_SEAL, IN_ONNX} == expected and isinstance(settings["about"], dict)
    if not plain or settings["format"] != _FORMAT:
        raise WeightsError(
            f"{path}: expected format {_FORMAT} with {', '.join(sorted(expected))}; "
            f"received {', '.join(sorted(keys))[:300] or type(settings).__name__}."
        )
    digest = settings_digest(settings)
    if settings.get(_SEAL, digest) != digest:
        raise WeightsError(
            f"{path}: {', '.join(_SEALED[:-1])} or {_SEALED[-1]} was changed after it was saved; "
            "scores would be those of another model under this name. Fetch the folder again; to "
            "change a setting, load it, set it and use save_segmenter."
        )
    return settings


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what decides on masks besides the weights."""
    decisive = {key: settings[key] for key in _SEALED}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def verify_model(model: str | Path) -> list[str]:
    """Return what is wrong with a model: SHA-256, arrays, card, a forward pass on a phantom."""
    try:
        folder = find_folder(model)
        segmenter, fast = load_segmenter(folder, runtime="keras"), load_segmenter(folder)
    except WeightsError as error:
        return [str(error)]
    card = folder / CARD
    expected = {
        "its title": f"# {folder.name}\n",
        "the number of parameters": f"{segmenter.network.count_params():,}",
        "the threshold": f"{segmenter.threshold:g}",
        "the warning": "Not a medical device",
    }
    findings = [f"{card}: missing"]
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        absent = {what: words.strip() for what, words in expected.items() if words not in text}
        findings = [f"{card}: {what} ({words!r}) is not in it" for what, words in absent.items()]
    image = as_image(make_phantom("benign", seed=5)[0], "phantom")
    probabilities, others = segmenter.probabilities(image), fast.probabilities(image)
    low, high = float(probabilities.min()), float(probabilities.max())
    if not 0 <= low < high <= 1:
        findings.append(f"the forward pass gives probabilities from {low:g} to {high:g}")
    if not np.allclose(others, probabilities, rtol=0, atol=TOLERANCE):
        findings.append(f"{ONNX} gives other probabilities than {WEIGHTS} in Keras")
    return findings

"""Model folders: a network with its settings, preprocessing and threshold, saved and checked."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import h5py
import keras

from unet_lib.files import atomic_path, write_atomic
from unet_lib.images import Preprocessing
from unet_lib.inference import Cleaning, Segmenter
from unet_lib.model import UNetConfig, build_unet

__all__ = [
    "WeightsError",
    "check_weights",
    "load_segmenter",
    "load_weights_file",
    "registered_models",
    "save_segmenter",
]

WEIGHTS, SETTINGS, CARD = "model.weights.h5", "segmenter.json", "CARD.md"
REGISTRY = Path(__file__).resolve().parent.parent / "weights"
"""The models that come with the repository, one folder each."""

_MAGIC = b"\x89HDF\r\n\x1a\n"
_FORMAT = 1


class WeightsError(ValueError):
    """A model or weights file cannot be used; the message names it and says why."""


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_segmenter(
    segmenter: Segmenter, config: UNetConfig, folder: str | Path, *, card: str = ""
) -> Path:
    """Write a model folder: weights, settings and card; the settings last.

    Parameters
    ----------
    segmenter : Segmenter
        Network, preprocessing, threshold, cleaning and where it comes from.
    config : UNetConfig
        What `build_unet` made the network from.
    folder : str or Path
        Made when absent.
    card : str
        Markdown for ``CARD.md``; none is written when empty.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as temporary:
        segmenter.network.save_weights(temporary)
    settings = {
        "format": _FORMAT,
        "network": config.to_dict(),
        "preprocessing": segmenter.preprocessing.to_dict(),
        "threshold": segmenter.threshold,
        "cleaning": segmenter.cleaning.to_dict(),
        "weights_sha256": sha256(folder / WEIGHTS),
        "about": segmenter.about,
    }
    if card:
        write_atomic(folder / CARD, card)
    write_atomic(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
    return folder


def load_segmenter(model: str | Path, *, batch_size: int = 8) -> Segmenter:
    """Load a registered model or a model folder, checking every part of it.

    Parameters
    ----------
    model : str or Path
        A folder with ``segmenter.json`` and ``model.weights.h5``, a run folder that holds one as
        ``model/``, or the name of a model in the repository's ``weights/``.
    batch_size : int
        Images that the network sees at once.

    Returns
    -------
    Segmenter
        In float32.

    Raises
    ------
    WeightsError
        Nothing of that name, a missing, damaged or changed file, or settings that do not fit.
    """
    folder = _find(model)
    path, settings = folder / WEIGHTS, _read_settings(folder / SETTINGS)
    if not path.is_file():
        raise WeightsError(f"{path}: missing; {folder / SETTINGS} belongs to it.")
    found = sha256(path)
    if found != settings["weights_sha256"]:
        raise WeightsError(
            f"{path}: its SHA-256 is {found}, {SETTINGS} says {settings['weights_sha256']}: the "
            "file is damaged or of another model. Fetch the model folder again."
        )
    try:
        config = UNetConfig.from_dict(settings["network"])
        preprocessing = Preprocessing.from_dict(settings["preprocessing"])
        cleaning = Cleaning.from_dict(settings["cleaning"])
        network = build_unet(config, preprocessing.size, pretrained=False)
        load_weights_file(network, path)
        return Segmenter(
            network,
            preprocessing,
            settings["threshold"],
            cleaning,
            {"name": folder.name, **settings["about"], "weights_sha256": found},
            batch_size,
        )
    except WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{folder / SETTINGS}: {error}") from error


def registered_models() -> list[str]:
    """Return the names of the models that come with the repository, sorted."""
    return sorted(path.parent.name for path in REGISTRY.glob(f"*/{SETTINGS}"))


def _find(model: str | Path) -> Path:
    for folder in (Path(model), Path(model) / "model", REGISTRY / str(model)):
        if (folder / SETTINGS).is_file():
            return folder
    known = ", ".join(registered_models()) or "none"
    raise WeightsError(
        f"{model}: neither a model folder (with {SETTINGS} and {WEIGHTS}), nor a finished run "
        f"(with model/), nor a registered name. Registered: {known}."
    )


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}).") from error
    expected = {
        "format", "network", "preprocessing", "threshold", "cleaning", "weights_sha256", "about"
    }  # fmt: skip
    keys = set(settings) if isinstance(settings, dict) else set()
    if keys != expected or settings["format"] != _FORMAT:
        raise WeightsError(
            f"{path}: expected format {_FORMAT} with {', '.join(sorted(expected))}; "
            f"received {', '.join(sorted(keys)) or type(settings).__name__}."
        )
    return settings


def load_weights_file(network: keras.Model, path: str | Path) -> None:
    """Load a ``.weights.h5`` file if, and only if, it holds exactly this network's arrays.

    Raises
    ------
    WeightsError
        See `check_weights`.
    """
    check_weights(network, path)
    network.load_weights(path)


def check_weights(network: keras.Model, path: str | Path) -> None:
    """Compare every array of a weights file with what the network expects.

    Keras itself loads a file with more layers than the network without a word.

    Parameters
    ----------
    network : keras.Model
    path : str or Path
        A ``.weights.h5`` file; an optimiser's state in it is passed over.

    Raises
    ------
    WeightsError
        Not HDF5, unreadable, or arrays missing, left over or of another shape.
    """
    path = Path(path)
    found = _stored_shapes(path)
    expected = _expected_shapes(network)
    if found == expected:
        return
    missing, extra = sorted(expected - found), sorted(found - expected)
    raise WeightsError(
        f"{path}: these weights are of another network than the configured one "
        f"({network.count_params():,} parameters). Expected but not in the file: "
        f"{_list(missing)}. In the file but not expected: {_list(extra)}. "
        "Configure the network that the file was trained with."
    )


def _list(arrays: list[tuple[str, tuple[int, ...]]]) -> str:
    shown = ", ".join(f"{name} {shape}" for name, shape in arrays[:3])
    more = f" and {len(arrays) - 3} more" if len(arrays) > 3 else ""
    return (shown or "nothing") + more


def _stored_shapes(path: Path) -> set[tuple[str, tuple[int, ...]]]:
    try:
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from error
    if start != _MAGIC:
        kind = "a web page" if start.lstrip()[:1] == b"<" else "not an HDF5 file"
        raise WeightsError(
            f"{path}: expected a Keras .weights.h5 file, this is {kind}. Download it again in a "
            "browser and put it in this place."
        )
    shapes: set[tuple[str, tuple[int, ...]]] = set()

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            shapes.add((name, tuple(item.shape)))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError on damaged files
        raise WeightsError(f"{path}: damaged HDF5 file ({error}). Fetch it again.") from error
    return shapes


def _expected_shapes(network: keras.Model) -> set[tuple[str, tuple[int, ...]]]:
    """Where Keras stores each array: by class, numbered in the order of the layers."""
    counts: dict[str, int] = {}
    shapes = set()
    for layer in network.layers:
        kind = _snake_case(type(layer).__name__)
        count = counts.get(kind, 0)
        counts[kind] = count + 1
        group = f"layers/{kind}_{count}" if count else f"layers/{kind}"
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        shapes |= {(f"{group}/vars/{key}", tuple(value.shape)) for key, value in store.items()}
    return shapes


def _snake_case(name: str) -> str:
    """Turn a class name into the name of its groups in a weights file, as Keras does."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

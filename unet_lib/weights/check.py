"""Whether a weights file holds exactly a network's arrays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import keras

__all__ = ["WeightsError", "check_weights", "load_weights_file"]

_MAGIC = b"\x89HDF\r\n\x1a\n"


class WeightsError(ValueError):
    """A model or weights file cannot be used; the message names it and says why."""


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

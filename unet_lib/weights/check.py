"""Whether a weights file holds exactly a network's arrays."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np

from unet_lib.weights.hdf5 import WeightsError, read_hdf5

__all__ = ["WeightsError", "check_weights", "load_weights_file"]


def load_weights_file(network: keras.Model, path: str | Path) -> None:
    """Load a ``.weights.h5`` file if, and only if, it holds exactly this network's arrays.

    The values come from `read_hdf5`, so that no second reader opens the file.

    Raises
    ------
    WeightsError
        See `check_weights`.
    """
    stores: dict[str, dict[str, np.ndarray]] = {}
    for name, values in check_weights(network, path).items():
        group, _, key = name.rpartition("/vars/")
        stores.setdefault(group, {})[key] = values
    for group, layer in _groups(network):
        if group in stores:
            layer.load_own_variables(stores[group])


def check_weights(network: keras.Model, path: str | Path) -> dict[str, np.ndarray]:
    """Compare every array of a weights file with what the network expects.

    Keras itself loads a file with more layers than the network without a word.

    Parameters
    ----------
    network : keras.Model
    path : str or Path
        A ``.weights.h5`` file; an optimiser's state in it is passed over.

    Returns
    -------
    dict of str to ndarray
        Every array by its path in the file.

    Raises
    ------
    WeightsError
        Refused by `read_hdf5`, or arrays missing, left over or of another shape.
    """
    arrays = read_hdf5(path).arrays
    found = {(name, values.shape) for name, values in arrays.items()}
    expected = _expected_shapes(network)
    if found == expected:
        return arrays
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


def _groups(network: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """Where Keras stores each layer: by class, numbered in the order of the layers."""
    counts: dict[str, int] = {}
    groups = []
    for layer in network.layers:
        kind = snake_case(type(layer).__name__)
        count = counts.get(kind, 0)
        counts[kind] = count + 1
        groups.append((f"layers/{kind}_{count}" if count else f"layers/{kind}", layer))
    return groups


def _expected_shapes(network: keras.Model) -> set[tuple[str, tuple[int, ...]]]:
    shapes = set()
    for group, layer in _groups(network):
        store: dict[str, np.ndarray] = {}
        layer.save_own_variables(store)
        shapes |= {(f"{group}/vars/{key}", tuple(value.shape)) for key, value in store.items()}
    return shapes


def snake_case(name: str) -> str:
    """Turn a class name into the name of its groups in a weights file, as Keras does."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

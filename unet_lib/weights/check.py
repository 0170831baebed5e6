"""Whether a weights file holds exactly a network's arrays."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np

from unet_lib.weights.hdf5 import WeightsError, read_hdf5

__all__ = ["WeightsError", "check_weights", "load_weights_file"]


def load_weights_file(network: keras.Model, path: str | Path) -> None:
    """Load a ``.weights.h5`` file if, and only if, `check_weights` finds this network's arrays.

    The values come from `read_hdf5`, so that no second reader opens the file.
    """
    arrays = check_weights(network, path)
    for group, layer in _groups(network).items():
        own = {name.removeprefix(group): name for name in arrays if name.startswith(group)}
        if own:
            layer.load_own_variables({key: arrays[name] for key, name in own.items()})


def check_weights(network: keras.Model, path: str | Path) -> dict[str, np.ndarray]:
    """Return a file's arrays by path, or raise WeightsError: missing, left over, of other shape.

    Keras itself loads a file with more layers than the network without a word.
    """
    arrays = read_hdf5(path).arrays
    stored = {(name, values.shape) for name, values in arrays.items()}
    expected = set()
    for group, layer in _groups(network).items():
        store: dict[str, np.ndarray] = {}
        layer.save_own_variables(store)
        expected |= {(group + key, tuple(value.shape)) for key, value in store.items()}
    if stored == expected:
        return arrays
    missing, extra = sorted(expected - stored), sorted(stored - expected)
    raise WeightsError(
        f"{path}: these weights are of another network than the configured one "
        f"({network.count_params():,} parameters). Expected but not in the file: "
        f"{_list(missing)}. In the file but not expected: {_list(extra)}. "
        "Configure the network that the file was trained with."
    )


def _list(arrays: list[tuple[str, tuple[int, ...]]]) -> str:
    shown = ", ".join(f"{name} {shape}" for name, shape in arrays[:3]) or "nothing"
    return shown + (f" and {len(arrays) - 3} more" if len(arrays) > 3 else "")


def _groups(network: keras.Model) -> dict[str, keras.layers.Layer]:
    """Where Keras stores each layer: by class, numbered in the order of the layers."""
    counts: dict[str, int] = {}
    groups = {}
    for layer in network.layers:
        kind = snake_case(type(layer).__name__)
        count = counts[kind] = counts.get(kind, -1) + 1
        groups[f"layers/{kind}{f'_{count}' if count else ''}/vars/"] = layer
    return groups


def snake_case(name: str) -> str:
    """Turn a class name into the name of its groups in a weights file, as Keras does."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

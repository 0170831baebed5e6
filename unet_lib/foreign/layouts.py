"""Keras' layouts of weights files as one list of layers.

Layouts (read from files of TF-Keras 2.12 to 2.15 and Keras 3.0 to 3.15): Keras 3 numbers groups by
class in the order of ``model.layers`` (``layers/conv2d_1/vars/0``); TF-Keras 2.12 to 2.14 calls the
root ``_layer_checkpoint_dependencies`` and numbers layers with weights in steps of two; the legacy
layout has the user's layer names in the attribute ``layer_names``.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet_lib.weights.hdf5 import MOST_BYTES, Contents, WeightsError, read_hdf5

__all__ = ["StoredLayer", "StoredLayers", "read_layers"]

_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_PASSED_OVER = ("vars", "metrics")  # of the root: the model's own (none), running metrics
_MOST_CONFIG = 32 << 20
_LEAVES = {
    ("kernel",): "conv2d",
    ("kernel", "bias"): "conv2d",
    ("depthwise_kernel", "pointwise_kernel"): "separable_conv2d",
    ("depthwise_kernel", "pointwise_kernel", "bias"): "separable_conv2d",
    ("gamma", "beta", "moving_mean", "moving_variance"): "batch_normalization",
    ("gamma", "beta"): "layer_normalization",
    ("alpha",): "p_re_lu",
}
_ORDER = [
    "depthwise_kernel", "pointwise_kernel", "kernel", "bias", "gamma", "beta", "moving_mean",
    "moving_variance", "alpha",
]  # fmt: skip


@dataclass(frozen=True)
class StoredLayer:
    """One layer of a file.

    Attributes
    ----------
    kind : str
        Its class as Keras writes it in files, such as ``conv2d_transpose``; "" when not known.
    label : str
        Its group or name in the file.
    arrays : tuple of ndarray
        In Keras' order; empty for a layer without weights.
    """

    kind: str
    label: str
    arrays: tuple[np.ndarray, ...] = ()

    @property
    def shapes(self) -> str:
        """The shapes of its arrays, for messages."""
        return ", ".join(str(tuple(array.shape)) for array in self.arrays) or "no arrays"


@dataclass(frozen=True)
class StoredLayers:
    """The layers of a file, each class in the order of ``model.layers``.

    Attributes
    ----------
    layout : str
        In words.
    layers : tuple of StoredLayer
    complete : bool
        Whether the layers without weights are listed with their class as well.
    config : dict or None
        The topology that the file brings along.
    """

    layout: str
    layers: tuple[StoredLayer, ...]
    complete: bool
    config: dict[str, Any] | None = None

    def count(self, *kinds: str) -> int:
        """Return the number of layers of these classes."""
        return sum(layer.kind in kinds for layer in self.layers)

    @property
    def weighted(self) -> list[StoredLayer]:
        """The layers that have arrays."""
        return [layer for layer in self.layers if layer.arrays]

    def summary(self) -> str:
        """Return the number of layers of each class, for messages."""
        kinds = Counter(layer.kind or "unknown class" for layer in self.layers)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def read_layers(path: str | Path) -> StoredLayers:
    """Read the layers of a ``.weights.h5``, ``.h5`` or ``.keras`` file.

    Raises
    ------
    WeightsError
        Refused by `read_hdf5`, or in none of the layouts.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from error
    if packed:
        return _archive(path)
    contents = read_hdf5(path)
    try:
        return _layers(contents)
    except _Layout as error:
        raise WeightsError(f"{path}: {error}. Nothing was loaded.") from error


_Written = dict[str, list[tuple[int, int]]]  # where a layer's arrays lie, by its label


class _Layout(Exception):
    """What is not as Keras writes it."""


def _archive(path: str | Path) -> StoredLayers:
    """Read a ``.keras`` archive: its topology as plain JSON, its weights by `read_hdf5`."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(_member(archive, "config.json", _MOST_CONFIG))
            data = _member(archive, "model.weights.h5", MOST_BYTES)
        stored = _layers(read_hdf5(path, data))
    except WeightsError:
        raise
    except _Layout as error:
        raise WeightsError(f"{path}: {error}. Nothing was loaded.") from error
    except (
        zipfile.BadZipFile, zlib.error, KeyError, ValueError, RuntimeError, NotImplementedError,
        EOFError, RecursionError, OSError,
    ) as error:  # fmt: skip
        raise WeightsError(f"{path}: damaged .keras archive ({error}). Fetch it again.") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: its config.json is no object. Nothing was loaded.")
    layout = f".keras archive, {stored.layout}"
    return StoredLayers(layout, stored.layers, stored.complete, config)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise _Layout(f"expected one {name} in the archive, found {len(found)}")
    packed = max(found[0].compress_size, 1)
    if found[0].file_size > most or found[0].file_size > 200 * packed:
        raise _Layout(f"{name} unpacks to {found[0].file_size:,} bytes from {packed:,}")
    with archive.open(found[0]) as file:
        return io.BytesIO(file.read(found[0].file_size + 1)).getvalue()


def _layers(contents: Contents) -> StoredLayers:
    root = "model_weights" if "model_weights" in contents.groups else ""
    if _attribute(contents, root, "layer_names") is not None:
        return _legacy(contents, root)
    for container in _CONTAINERS:
        if container in contents.groups:
            return _numbered(contents, container)
    raise _Layout("it has neither the group 'layers' nor the attribute 'layer_names' of Keras")


def _numbered(contents: Contents, container: str) -> StoredLayers:
    """Read the layout of Keras 3 and of TF-Keras 2.12 to 2.15."""
    paths = [path for path in (*contents.groups, *contents.arrays) if path]
    for root in sorted({path.split("/")[0] for path in paths}):
        if root not in (container, *_PASSED_OVER) or (root == "vars" and "vars" in contents.arrays):
            raise _Layout(f"group {root!r} is no part of a functional model's weights file")
    if any(path.startswith("vars/") for path in paths):
        raise _Layout("the model has weights of its own, beside those of its layers")
    groups: dict[str, dict[str, np.ndarray]] = {}
    written: _Written = defaultdict(list)
    for path in paths:
        parts = path.split("/")
        if parts[0] != container or len(parts) == 1:
            continue
        groups.setdefault(parts[1], {})
        if len(parts) == 2 and path not in contents.arrays:
            continue
        if parts[2:3] == ["seed_generator"]:
            continue
        if parts[2:3] != ["vars"] or len(parts) > 4:
            raise _Layout(f"{path!r}: a model or layer within a layer; only plain layers are read")
        if path in contents.arrays and len(parts) == 4:
            groups[parts[1]][parts[3]] = contents.arrays[path]
            written[parts[1]].append(contents.addresses[path])
    found: dict[str, dict[int, StoredLayer]] = {}
    for name, arrays in groups.items():
        keys = [str(index) for index in range(len(arrays))]
        if sorted(arrays, key=lambda key: (len(key), key)) != keys:
            raise _Layout(
                f"{name}: arrays {', '.join(sorted(arrays))}; expected {len(keys)} in turn"
            )
        kind, number = re.fullmatch(r"(.+?)(?:_(0|[1-9]\d*))?", name, re.DOTALL).groups()
        layer = StoredLayer(kind, name, tuple(arrays[key] for key in keys))
        if number == "0" or int(number or 0) in found.setdefault(kind, {}):
            raise _Layout(f"{name!r} is a second {kind!r}")
        found[kind][int(number or 0)] = layer
    layers: list[StoredLayer] = []
    for kind, numbered in sorted(found.items()):
        order = sorted(numbered)
        old = container != "layers" and order == list(range(0, 2 * len(order), 2))
        if order != list(range(len(order))) and not old:
            raise _Layout(
                f"layers of class {kind} are numbered {', '.join(map(str, order[:12]))}: one is "
                "missing or renamed"
            )
        layers += [numbered[number] for number in order]
    _check_order(layers, written)
    name = "Keras 3 or TF-Keras 2.15" if container == "layers" else "TF-Keras 2.12 to 2.14"
    return StoredLayers(f"weights of {name}", tuple(layers), complete=True)


def _check_order(layers: list[StoredLayer], written: _Written) -> None:
    """Refuse layers of equal shapes that were exchanged: Keras writes a class in its order."""
    before: dict[tuple[str, str], StoredLayer] = {}
    for layer in layers:
        last = before.get((layer.kind, layer.shapes))
        if layer.arrays and last:
            pairs = list(zip(written[layer.label], written[last.label], strict=True))
            # A header or values may fill a hole that is further up; all headers and most values of
            # a layer hardly do.
            headers = all(mine[0] < theirs[0] for mine, theirs in pairs)
            values = sum(mine[1] < theirs[1] for mine, theirs in pairs)
            if headers and values > len(pairs) / 2:
                raise _Layout(
                    f"{layer.label} was written before {last.label}: layers were renamed or "
                    "exchanged, or the file was rewritten by another program. Save it again from "
                    "Keras"
                )
        before[layer.kind, layer.shapes] = layer


def _attribute(contents: Contents, group: str, name: str) -> list[str] | None:
    """Return a list of texts; Keras cuts one beyond 64 KB into ``name0``, ``name1``, ..."""
    if f"{group}@{name}" in contents.texts:
        return list(contents.texts[f"{group}@{name}"])
    found: list[str] = []
    number = 0
    while (part := contents.texts.get(f"{group}@{name}{number}")) is not None:
        found, number = [*found, *part], number + 1
    return found if number else None


def _legacy(contents: Contents, root: str) -> StoredLayers:
    prefix = f"{root}/" if root else ""
    names = _attribute(contents, root, "layer_names") or []
    if len(set(names)) != len(names):
        raise _Layout("attribute 'layer_names' has a name twice")
    used: set[str] = set()
    layers: list[StoredLayer] = []
    for name in names:
        if f"{prefix}{name}" not in contents.groups:
            raise _Layout(f"layer {name!r} is named but has no group")
        arrays: dict[str, np.ndarray] = {}
        for weight in _attribute(contents, f"{prefix}{name}", "weight_names") or []:
            path = f"{prefix}{name}/{weight}"
            if path not in contents.arrays or path in used:
                raise _Layout(f"{path!r} is named but not stored, or named twice")
            used.add(path)
            leaf = weight.split("/")[-1].partition(":")[0]
            if leaf not in _ORDER or leaf in arrays:
                raise _Layout(f"{path!r}: no array of a layer known here")
            arrays[leaf] = contents.arrays[path]
        layers.append(_legacy_layer(name, arrays))
    ignored = tuple(f"{p}/" for p in ("optimizer_weights", f"{prefix}top_level_model_weights"))
    left = [p for p in contents.arrays if p not in used and not p.startswith(ignored)]
    if left:
        raise _Layout(f"{left[0]!r} is stored but belongs to no layer that is named")
    # By class; the order within a class is the list's. Where the arrays lie says nothing here:
    # names of another length (conv2d_99, conv2d_100) make HDF5 fill holes further up.
    kinds = sorted({layer.kind for layer in layers})
    layers = [layer for kind in kinds for layer in layers if layer.kind == kind]
    text = contents.texts.get("@model_config", ("",))[0]
    config = _json(text) if text else None
    complete = all(layer.kind for layer in layers)
    return StoredLayers("legacy HDF5", tuple(layers), complete, config)


def _json(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Layout(f"attribute 'model_config' is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise _Layout("attribute 'model_config' is no object")
    return config


_WITHOUT_WEIGHTS = re.compile(
    r"input|input_layer|max_pooling2d|average_pooling2d|up_sampling2d|concatenate|add|multiply|activation|"
    r"re_lu|leaky_re_lu|elu|softmax|dropout|spatial_dropout2d|lambda|rescaling|cropping2d|"
    r"zero_padding2d"
)


def _legacy_layer(name: str, arrays: dict[str, np.ndarray]) -> StoredLayer:
    """Tell a layer's class from its name where that is Keras' own, else from its arrays."""
    base = re.sub(r"_\d+$", "", name)
    leaves = tuple(leaf for leaf in _ORDER if leaf in arrays)
    values = tuple(arrays[leaf] for leaf in leaves)
    if not arrays:
        return StoredLayer(base if _WITHOUT_WEIGHTS.fullmatch(base) else "", name)
    kind = _LEAVES.get(leaves, "")
    kernel = arrays.get("kernel")
    if kind == "conv2d" and kernel.ndim == 4:
        outputs = len(arrays["bias"]) if "bias" in arrays else None
        fits = [outputs in (None, n) for n in kernel.shape[:1:-1]]  # as conv2d, as transposed
        transposed = kernel.shape[:2] == (2, 2) if all(fits) else fits[1]
        kind = "conv2d_transpose" if transposed else kind
    own = ("conv2d", "conv2d_transpose", "layer_normalization", "group_normalization")
    if base in own and {base, kind} <= set(own):
        kind = base
    return StoredLayer(kind or base, name, values)

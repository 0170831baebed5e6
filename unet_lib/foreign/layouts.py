"""Weights files of Keras as one list of layers, and the topology that some bring along.

Layouts (read from files of TF-Keras 2.12 to 2.15 and Keras 3.0 to 3.15): Keras 3 numbers groups by
class in the order of ``model.layers`` (``layers/conv2d_1/vars/0``); TF-Keras 2.12 to 2.14 calls the
root ``_layer_checkpoint_dependencies`` and numbers layers with weights in steps of two; the legacy
layout has the user's layer names in the attribute ``layer_names``.
"""

from __future__ import annotations

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

CONVOLUTIONS = {"conv2d": (1, 2), "conv2d_transpose": (1, 2), "separable_conv2d": (2, 3)}
NORMS = {"batch_normalization": (4,), "layer_normalization": (2,), "group_normalization": (2,)}
"""Classes that a network is recognised by, and how many arrays one of them has."""

_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
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
_ORDER = ("depthwise_kernel", "pointwise_kernel", "kernel", "bias", "gamma", "beta")
_ORDER = (*_ORDER, "moving_mean", "moving_variance", "alpha")
_WITHOUT_WEIGHTS = re.compile(
    "input|input_layer|max_pooling2d|average_pooling2d|up_sampling2d|concatenate|add|multiply|"
    "activation|re_lu|leaky_re_lu|elu|softmax|dropout|spatial_dropout2d|lambda|rescaling|"
    "cropping2d|zero_padding2d"
)


class UnknownNetwork(WeightsError):
    """Why a file is no network that is loaded here, without the file's name."""


@dataclass(frozen=True)
class StoredLayer:
    """One layer of a file."""

    kind: str  # its class as Keras writes it in files, such as "conv2d_transpose"; "": not known
    label: str  # its group or name in the file
    arrays: tuple[np.ndarray, ...] = ()  # in Keras' order

    @property
    def shapes(self) -> str:
        """The shapes of its arrays, for messages."""
        return ", ".join(str(tuple(array.shape)) for array in self.arrays) or "no arrays"


@dataclass(frozen=True)
class StoredLayers:
    """The layers of a file, each class in the order of ``model.layers``."""

    layout: str  # in words
    layers: tuple[StoredLayer, ...]
    complete: bool = True  # the layers without weights are listed with their class as well

    def count(self, *kinds: str) -> int:
        """Return the number of layers of these classes."""
        return sum(layer.kind in kinds for layer in self.layers)

    def summary(self) -> str:
        """Return the number of layers of each class, for messages."""
        kinds = Counter(layer.kind or "unknown class" for layer in self.layers)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def read_file(path: str | Path) -> tuple[Contents, dict[str, Any] | None]:
    """Read a file's arrays, and the topology that it brings along (None: weights alone)."""
    try:
        with open(path, "rb") as file:
            packed = file.read(4) == b"PK\x03\x04"
        if not packed:
            contents = read_hdf5(path)
            text = contents.texts.get("@model_config")
            return contents, _object(text[0], "attribute 'model_config'") if text else None
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/data.pkl") for name in archive.namelist()):
                raise UnknownNetwork("it is an archive of PyTorch; only files of Keras are read")
            text = _member(archive, "config.json", _MOST_CONFIG)
            weights = _member(archive, "model.weights.h5", MOST_BYTES)
        return read_hdf5(path, weights), _object(text, "config.json")
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}. Give a file of Keras.") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path}: damaged .keras archive ({error}). Fetch it again.") from error


def _object(text: str | bytes, where: str) -> dict[str, Any]:
    config = json.loads(text)
    if not isinstance(config, dict):
        raise UnknownNetwork(f"its {where} is no object")
    return config


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    members = [info for info in archive.infolist() if info.filename == name]
    if len(members) != 1:
        raise UnknownNetwork(f"expected one {name} in the archive, found {len(members)}")
    size, packed = members[0].file_size, max(members[0].compress_size, 1)
    if size > min(most, 200 * packed):
        raise UnknownNetwork(f"{name} unpacks to {size:,} bytes from {packed:,}")
    return archive.read(members[0])


def read_layers(contents: Contents) -> StoredLayers:
    """List the layers of a file's arrays."""
    root = "model_weights" if "model_weights" in contents.groups else ""
    if _attribute(contents, root, "layer_names") is not None:
        return _legacy(contents, root)
    for container in _CONTAINERS:
        if container in contents.groups:
            return _numbered(contents, container)
    raise UnknownNetwork(
        "it has neither the group 'layers' nor the attribute 'layer_names' of Keras"
    )


def _numbered(contents: Contents, container: str) -> StoredLayers:
    """Read the layout of Keras 3 and of TF-Keras 2.12 to 2.15."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    others = re.compile(rf"|vars|{container}|(metrics|{container}/[^/]+/seed_generator)(/.*)?")
    for path in (*contents.groups, *contents.arrays):
        match = re.fullmatch(rf"{container}/([^/]+)(?:/vars(?:/([^/]+))?)?", path)
        if match and (path in contents.arrays) == bool(match[2]):
            layer = arrays.setdefault(match[1], {})
            layer.update({match[2]: contents.arrays[path]} if match[2] else {})
        elif path in contents.arrays and path == "vars" or not others.fullmatch(path):
            raise UnknownNetwork(
                f"{path!r}: a model or layer within a layer, or weights of no layer; only plain "
                "layers are read"
            )
    kinds: dict[str, dict[int, StoredLayer]] = defaultdict(dict)
    for name, layer in arrays.items():
        keys = [str(index) for index in range(len(layer))]
        if set(layer) != set(keys):
            raise UnknownNetwork(f"{name}: arrays {', '.join(sorted(layer))}; one is missing")
        kind, number = re.fullmatch(r"(.+?)(?:_([1-9]\d*))?", name, re.DOTALL).groups()
        kinds[kind][int(number or 0)] = StoredLayer(kind, name, tuple(layer[key] for key in keys))
    layers: list[StoredLayer] = []
    for kind, numbered in sorted(kinds.items()):
        numbers, count = sorted(numbered), len(numbered)
        steps = (1,) if container == "layers" else (1, 2)
        if numbers not in [list(range(0, step * count, step)) for step in steps]:
            raise UnknownNetwork(
                f"layers of class {kind} are numbered {', '.join(map(str, numbers[:12]))}: one is "
                "missing or renamed"
            )
        layers += [numbered[number] for number in numbers]
    name = "Keras 3 or TF-Keras 2.15" if container == "layers" else "TF-Keras 2.12 to 2.14"
    return StoredLayers(f"weights of {name}", tuple(layers))


def _attribute(contents: Contents, group: str, name: str) -> list[str] | None:
    """Return a list of texts; Keras cuts one beyond 64 KB into ``name0``, ``name1``, ..."""
    if f"{group}@{name}" in contents.texts:
        return list(contents.texts[f"{group}@{name}"])
    texts: list[str] = []
    number = 0
    while (part := contents.texts.get(f"{group}@{name}{number}")) is not None:
        texts, number = [*texts, *part], number + 1
    return texts if number else None


def _legacy(contents: Contents, root: str) -> StoredLayers:
    prefix = f"{root}/" if root else ""
    names = _attribute(contents, root, "layer_names") or []
    if len(set(names)) != len(names):
        raise UnknownNetwork("attribute 'layer_names' has a name twice")
    used: set[str] = set()
    layers: list[StoredLayer] = []
    for name in names:
        if f"{prefix}{name}" not in contents.groups:
            raise UnknownNetwork(f"layer {name!r} is named but has no group")
        arrays: dict[str, np.ndarray] = {}
        for weight in _attribute(contents, f"{prefix}{name}", "weight_names") or []:
            path = f"{prefix}{name}/{weight}"
            leaf = weight.split("/")[-1].partition(":")[0]
            if path not in contents.arrays or path in used:
                raise UnknownNetwork(f"{path!r} is named but not stored, or named twice")
            if leaf not in _ORDER or leaf in arrays:
                raise UnknownNetwork(f"{path!r}: no array of a layer known here")
            used.add(path)
            arrays[leaf] = contents.arrays[path]
        layers.append(_legacy_layer(name, arrays))
    if layers and not layers[0].arrays:  # whatever its name
        layers[0] = StoredLayer("input_layer", layers[0].label)
    ignored = ("optimizer_weights/", f"{prefix}top_level_model_weights/")
    left = [p for p in contents.arrays if p not in used and not p.startswith(ignored)]
    if left:
        raise UnknownNetwork(f"{left[0]!r} is stored but belongs to no layer that is named")
    by_kind = tuple(sorted(layers, key=lambda layer: layer.kind))  # stable: a class keeps its order
    return StoredLayers("legacy HDF5", by_kind, all(layer.kind for layer in layers))


def _legacy_layer(name: str, arrays: dict[str, np.ndarray]) -> StoredLayer:
    """Tell a layer's class from its name where that is Keras' own, else from its arrays."""
    base = re.sub(r"_\d+$", "", name)
    leaves = tuple(leaf for leaf in _ORDER if leaf in arrays)
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
    return StoredLayer(kind or base, name, tuple(arrays[leaf] for leaf in leaves))
